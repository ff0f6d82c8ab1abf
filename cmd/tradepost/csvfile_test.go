package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// rowsOf reads all rows below the header.
func rowsOf(s *sheet) ([][]string, error) {
	rows := [][]string{}
	for {
		row, err := s.next()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return nil, err
		}
		rows = append(rows, row.cells)
	}
}

func surveyRows(content string) ([][]string, error) {
	s, err := openSheet("file.csv", strings.NewReader(content), csvForm{})
	if err != nil {
		return nil, err
	}
	return rowsOf(s)
}

func torture(t *testing.T, part string) string {
	t.Helper()
	dir := filepath.Join(shared, "csv-torture", part)
	if _, err := os.Stat(dir); err != nil {
		t.Skip("the torture files are not beside the repository")
	}
	return dir
}

// The same 91 customers, however they are encoded.
func TestEncodings(t *testing.T) {
	dir := torture(t, "encodings")
	want := func() [][]string {
		s, err := openSheet("utf8", bytes.NewReader(mustRead(t, filepath.Join(dir, "customers_utf8.csv"))), csvForm{})
		must(t, err)
		rows, err := rowsOf(s)
		must(t, err)
		return rows
	}()
	if len(want) != 91 || !slices.Contains(want[4], "Berglunds snabbköp") {
		t.Fatalf("%d customers, the fifth is %q", len(want), want[4])
	}
	for name, encoding := range map[string]string{
		"customers_cp1252_crlf.csv": "windows-1252", "customers_latin1.csv": "iso-8859-1", "customers_macroman_cr.csv": "macintosh",
		"customers_nfd_utf8.csv": "", "customers_semicolon_quoted_cp1252.csv": "windows-1252", "customers_sep_line_utf8.csv": "",
		"customers_tab_utf8.tsv": "", "customers_utf16be_bom.csv": "", "customers_utf16le_bom.csv": "", "customers_utf8_bom_crlf.csv": "",
		"customers_cp437.csv": "ibm437",
	} {
		s, err := openSheet(name, bytes.NewReader(mustRead(t, filepath.Join(dir, name))), csvForm{encoding: encoding})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		rows, err := rowsOf(s)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		some := want
		if name == "customers_cp437.csv" { // further down it has ? for letters outside cp437
			rows, some = rows[:9], want[:9]
		}
		if diff := cmp.Diff(some, rows); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for _, name := range []string{"customers_cp1252_crlf.csv", "customers_latin1.csv"} { // and unsaid, an error that says what to do
		_, err := surveySheet(name, bytes.NewReader(mustRead(t, filepath.Join(dir, name))), csvForm{})
		if err == nil || !strings.Contains(err.Error(), "--encoding windows-1252") || !strings.Contains(err.Error(), "line ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func mustRead(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	must(t, err)
	return b
}

func TestSpectrum(t *testing.T) {
	dir := torture(t, "csv-spectrum")
	files, err := filepath.Glob(filepath.Join(dir, "csvs", "*.csv"))
	must(t, err)
	for _, name := range files {
		base := strings.TrimSuffix(filepath.Base(name), ".csv")
		text := bytes.TrimSpace(mustRead(t, filepath.Join(dir, "json", base+".json")))
		if text[0] == '{' { // of one row
			text = slices.Concat([]byte("["), text, []byte("]"))
		}
		var want []map[string]string
		must(t, json.Unmarshal(text, &want))
		s, err := openSheet(name, bytes.NewReader(mustRead(t, name)), csvForm{})
		if err != nil {
			t.Errorf("%s: %v", base, err)
			continue
		}
		rows, err := rowsOf(s)
		if base == "location_coordinates" { // quotes in cells without quotes: RFC 4180 forbids them, and guessing loses data
			if err == nil {
				t.Error(base + " was read")
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", base, err)
			continue
		}
		got := []map[string]string{}
		for _, cells := range rows {
			m := map[string]string{}
			for i, c := range cells {
				m[s.header[i]] = c
			}
			got = append(got, m)
		}
		for _, m := range want { // line ends inside a cell become \n: a field keeps one kind
			for k, v := range m {
				m[k] = strings.ReplaceAll(v, "\r\n", "\n")
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", base, diff)
		}
	}
}

func TestBadFilesAreRefused(t *testing.T) {
	dir := torture(t, "csv-test-data")
	for _, name := range []string{"bad-missing-quote.csv", "bad-quotes-with-unescaped-quote.csv", "bad-unescaped-quote.csv"} {
		_, err := surveySheet(name, bytes.NewReader(mustRead(t, filepath.Join(dir, "csv", name))), csvForm{})
		if err == nil || !strings.Contains(err.Error(), "line ") || !strings.Contains(err.Error(), "column ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The other bad-* files have rows too short or too long, which fail one by
	// one (TestImportOnlyWrongRowsFail), or a header that no reader can judge.
	files, err := filepath.Glob(filepath.Join(dir, "csv", "*.csv"))
	must(t, err)
	for _, name := range files {
		base := filepath.Base(name)
		if strings.HasPrefix(base, "bad-") {
			continue
		}
		if _, err := surveySheet(base, bytes.NewReader(mustRead(t, name)), csvForm{}); err != nil && !strings.Contains(err.Error(), "both named") && base != "all-empty.csv" {
			t.Errorf("%s: %v", base, err)
		}
	}
}

// Pollock's files are polluted in ways that a reader can only know by being told:
// those that the flags can tell are read, the others must not be hung on.
func TestPollock(t *testing.T) {
	dir := torture(t, "pollock")
	files, err := filepath.Glob(filepath.Join(dir, "csv", "*.csv"))
	must(t, err)
	told := map[string]csvForm{
		"file_field_delimiter_0x20.csv": {delimiter: " "}, "file_field_delimiter_0x3B.csv": {}, "file_field_delimiter_0x9.csv": {},
		"file_record_delimiter_0xA.csv": {}, "file_record_delimiter_0xD.csv": {}, "file_no_trailing_newline.csv": {}, "file_header_only.csv": {}, "file_one_data_row.csv": {}, "source.csv": {},
	}
	for _, name := range files {
		base := filepath.Base(name)
		form, known := told[base]
		v, err := surveySheet(base, bytes.NewReader(mustRead(t, name)), form)
		if !known {
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", base, err)
			continue
		}
		clean, err := surveySheet(base, bytes.NewReader(mustRead(t, filepath.Join(dir, "clean", base))), csvForm{})
		must(t, err)
		if v.rows != clean.rows {
			t.Errorf("%s: %d rows, want %d", base, v.rows, clean.rows)
		}
	}
}

func TestSheetErrors(t *testing.T) {
	for name, c := range map[string]struct{ content, want string }{
		"empty":      {"", "line 1, column 1: the file is empty"},
		"same name":  {"a,b,a\n", `columns 1 and 3 are both named "a"`},
		"bare quote": {"a,b\n1,2\"3\n", "line 2, column 4: a quote inside a cell"},
		"open quote": {"a,b\n1,2\n3,\"4\n5,6\n", "row at line 3 does not end well"},
		"endless":    {"a,b\n1,\"" + strings.Repeat("x", 2<<20), "line 2, column 1: the row here is longer than"},
		"binary":     {"PK\x03\x04\x00\x00", "zero bytes"},
		"not UTF-8":  {"a,b\n1,2\n3,M\xfcnster\n", "line 3, column 2: not UTF-8"},
		"wide":       {strings.Repeat("x,", 1001) + "\n", "at most 1000"},
	} {
		_, err := surveySheet("file.csv", strings.NewReader(c.content), csvForm{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func FuzzSheet(f *testing.F) {
	for _, s := range []string{"a,b\n1,2\n", "sep=;\na;b\n", "\xef\xbb\xbfa\tb\r\n\"1\n\"\t2", "\xff\xfea\x00,\x00", "a\rb\r\"c\"", "\"", "a,\"b\"\"c\"\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := surveySheet("file.csv", bytes.NewReader(b), csvForm{})
		if err != nil {
			if codeOf(err) == "internal" {
				t.Errorf("%v", err)
			}
			return
		}
		s, err := openSheet("file.csv", bytes.NewReader(b), csvForm{})
		must(t, err)
		rows, err := rowsOf(s)
		must(t, err)
		if len(rows) != v.rows {
			t.Errorf("%d rows, then %d", v.rows, len(rows))
		}
	})
}
