package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"
	"golang.org/x/text/unicode/norm"

	"github.com/tradepost-crm/tradepost/crm"
)

// Bounds of a CSV file.
const (
	maxColumns = 1000
	maxRow     = 1 << 20  // bytes
	sniffed    = 64 << 10 // bytes looked at to find out how the file is written
)

// A csvForm says how a CSV file is written. Empty is found out from the file.
type csvForm struct {
	encoding  string // as IANA names it
	delimiter string // one character
}

// A sheet reads the rows of a CSV file.
type sheet struct {
	name   string
	header []string
	rows   *csv.Reader
	guard  *rowGuard
	line   int // at which the last row starts; 0 before the first
}

// A csvRow is one row of a sheet.
type csvRow struct {
	line  int   // at which it starts; the first is 1
	end   int64 // offset in the decoded text of what follows it
	cells []string
}

// openSheet reads the header. Errors name the file, line and column.
func openSheet(name string, r io.Reader, form csvForm) (*sheet, error) {
	decoded, err := decode(name, r, form.encoding)
	if err != nil {
		return nil, err
	}
	text := bufio.NewReaderSize(decoded, sniffed)
	head, err := text.Peek(sniffed)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, failed("read CSV", name, err)
	}
	if bytes.IndexByte(head, 0) >= 0 {
		return nil, badCSV(name, 1, 1, "the file has zero bytes; if it is UTF-16, say --encoding utf-16le or utf-16be")
	}
	comma, skip, err := delimiterOf(name, head, form.delimiter)
	if err != nil {
		return nil, err
	}
	s := &sheet{name: name, guard: &rowGuard{r: lineEnds(text, head), left: maxRow}}
	s.rows = csv.NewReader(s.guard)
	s.rows.Comma, s.rows.FieldsPerRecord, s.rows.ReuseRecord = comma, -1, false
	for range skip {
		if _, err := s.next(); err != nil {
			return nil, err
		}
	}
	return s, s.readHeader()
}

func badCSV(name string, line, column int, format string, args ...any) error {
	return &crm.Error{Code: crm.CodeInvalid, Op: "read CSV", Item: fmt.Sprintf("%s, line %d, column %d", name, line, column), Message: fmt.Sprintf(format, args...)}
}

// decode makes UTF-8 of r. A byte order mark beats the encoding that is named.
func decode(name string, r io.Reader, encodingName string) (io.Reader, error) {
	var e encoding.Encoding = encoding.Nop
	if encodingName != "" {
		var err error
		if e, err = ianaindex.IANA.Encoding(encodingName); err != nil || e == nil {
			return nil, usage("--encoding", "%q is no encoding known here; windows-1252, iso-8859-1, utf-16le and macintosh are", encodingName)
		}
		if e == unicode.UTF8 {
			e = encoding.Nop // replaces nothing, so that wrong bytes are seen and refused
		}
	}
	return transform.NewReader(r, unicode.BOMOverride(e.NewDecoder())), nil
}

// delimiterOf returns the delimiter: the one named, the one of a leading
// "sep=;" line, which is then to be skipped, or the one the header has most of.
func delimiterOf(name string, head []byte, named string) (comma rune, skip int, err error) {
	first, _, _ := bytes.Cut(head, []byte("\n"))
	sep, isSep := bytes.CutPrefix(bytes.TrimRight(first, "\r"), []byte("sep="))
	if isSep && len(sep) == 1 {
		skip = 1
	}
	switch {
	case named == `\t` || named == "tab":
		return '\t', skip, nil
	case named != "":
		if r, n := utf8.DecodeRuneInString(named); n == len(named) && r != utf8.RuneError && !strings.ContainsRune("\"\r\n", r) {
			return r, skip, nil
		}
		return 0, 0, usage("--delimiter", "%q is not one character such as , ; | or tab", named)
	case skip == 1:
		return rune(sep[0]), skip, nil
	}
	return mostOf(head, ",;\t"), 0, nil
}

// mostOf returns the candidate that the first line has most of outside quotes,
// the first of them if it has none.
func mostOf(head []byte, candidates string) rune {
	count, quoted := map[byte]int{}, false
	for _, c := range head {
		if c == '"' {
			quoted = !quoted
		}
		if (c == '\n' || c == '\r') && !quoted {
			break
		}
		if !quoted {
			count[c]++
		}
	}
	best := candidates[0]
	for i := range len(candidates) {
		if count[candidates[i]] > count[best] {
			best = candidates[i]
		}
	}
	return rune(best)
}

// lineEnds makes lines of a text that ends them with CR only, as old Macs did.
func lineEnds(r io.Reader, head []byte) io.Reader {
	if bytes.IndexByte(head, '\r') < 0 || bytes.IndexByte(head, '\n') >= 0 {
		return r
	}
	return crReader{r}
}

type crReader struct{ io.Reader }

func (r crReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	for i, c := range p[:n] {
		if c == '\r' {
			p[i] = '\n'
		}
	}
	return n, err
}

// A rowGuard refuses a row that does not end: a quote was opened and never
// closed, and the rest of the file would be read as one cell.
type rowGuard struct {
	r    io.Reader
	left int // bytes the current row may still take
}

var errLongRow = fmt.Errorf("the row here is longer than %d bytes; a quote in it may never be closed", maxRow)

func (g *rowGuard) Read(p []byte) (int, error) {
	n, err := g.r.Read(p)
	if g.left -= n; g.left < 0 {
		return 0, errLongRow
	}
	return n, err
}

func (s *sheet) readHeader() error {
	row, err := s.next()
	if errors.Is(err, io.EOF) {
		return badCSV(s.name, 1, 1, "the file is empty; its first line must name the columns")
	}
	if err != nil {
		return err
	}
	if len(row.cells) > maxColumns {
		return badCSV(s.name, row.line, 1, "%d columns; at most %d are read", len(row.cells), maxColumns)
	}
	for i, c := range row.cells {
		c = strings.TrimSpace(c)
		if c == "" {
			c = fmt.Sprintf("column %d", i+1)
		}
		for j, other := range s.header {
			if other == c {
				return badCSV(s.name, row.line, i+1, "columns %d and %d are both named %q; rename one", j+1, i+1, c)
			}
		}
		s.header = append(s.header, c)
	}
	return nil
}

// next returns the next row, or io.EOF. A row with cells too few or too many is
// returned: only the caller knows whether that is the end.
func (s *sheet) next() (csvRow, error) {
	s.guard.left = maxRow
	cells, err := s.rows.Read()
	if errors.Is(err, io.EOF) {
		return csvRow{}, io.EOF
	}
	if p, ok := errors.AsType[*csv.ParseError](err); ok {
		return csvRow{}, s.broken(p)
	}
	if err != nil {
		return csvRow{}, badCSV(s.name, s.line+1, 1, "%s", err)
	}
	row := csvRow{end: s.rows.InputOffset(), cells: cells}
	row.line, _ = s.rows.FieldPos(0)
	s.line = row.line
	for i, c := range cells {
		if !utf8.ValidString(c) {
			return row, badCSV(s.name, row.line, i+1, "not UTF-8; save the file as UTF-8, or say what it is, such as --encoding windows-1252")
		}
		cells[i] = norm.NFC.String(c)
	}
	return row, nil
}

func (s *sheet) broken(p *csv.ParseError) error {
	message := p.Err.Error()
	switch {
	case errors.Is(p.Err, csv.ErrBareQuote):
		message = `a quote inside a cell; put the cell in quotes and write the quote twice`
	case errors.Is(p.Err, csv.ErrQuote):
		message = fmt.Sprintf(`the quoted cell of the row at line %d does not end well; a quote inside it is written twice`, p.StartLine)
	}
	return badCSV(s.name, p.Line, p.Column, "%s", message)
}

// A survey is what one reading of a whole file tells before anything is done
// with it.
type survey struct {
	hash string // hex SHA-256 of the file's bytes
	rows int
	end  int64 // offset in the decoded text at which the last row ends
}

// surveySheet reads the file once. A file that cannot be cut into rows is
// refused here, before any of it is imported.
func surveySheet(name string, r io.Reader, form csvForm) (survey, error) {
	h := sha256.New()
	all := io.TeeReader(r, h)
	s, err := openSheet(name, all, form)
	if err != nil {
		return survey{}, err
	}
	var v survey
	for {
		row, err := s.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return v, err
		}
		v.rows++
		v.end = row.end
	}
	if _, err := io.Copy(io.Discard, all); err != nil {
		return v, failed("read CSV", name, err)
	}
	v.hash = hex.EncodeToString(h.Sum(nil))
	return v, nil
}
