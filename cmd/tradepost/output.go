package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"gopkg.in/yaml.v3"
)

// schemaVersion counts changes to what -o json prints that a script could trip
// over: a member renamed, removed or given another meaning.
const schemaVersion = 1

// The forms of output.
const (
	formTable = "table"
	formJSON  = "json"
	formYAML  = "yaml"
)

// A listing is what a command that lists things prints.
type listing[T any] struct {
	SchemaVersion int `json:"schema_version"`
	Items         []T `json:"items"`
}

func list[T any](items []T) listing[T] {
	if items == nil {
		items = []T{}
	}
	return listing[T]{schemaVersion, items}
}

// A detail is what a command about one thing prints.
type detail[T any] struct {
	SchemaVersion int `json:"schema_version"`
	Item          T   `json:"item"`
}

func one[T any](item T) detail[T] { return detail[T]{schemaVersion, item} }

// note writes a line for people to standard error.
func (c *cli) note(format string, args ...any) {
	fmt.Fprintln(c.stderr, visible(fmt.Sprintf(format, args...)))
}

// print writes v in the form that -o asks for; asTable writes it for people.
func (c *cli) print(v any, asTable func(w io.Writer)) error {
	if c.form == formTable {
		var b bytes.Buffer
		asTable(&b)
		_, err := c.stdout.Write(b.Bytes())
		return err
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if c.form == formYAML {
		if b, err = toYAML(b); err != nil {
			return err
		}
	} else {
		b = append(b, '\n')
	}
	_, err = c.stdout.Write(b)
	return err
}

// toYAML rewrites JSON, which is YAML of another style, in the style people know.
func toYAML(b []byte) ([]byte, error) {
	var n yaml.Node
	if err := yaml.Unmarshal(b, &n); err != nil {
		return nil, err
	}
	block(&n)
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(&n); err != nil {
		return nil, err
	}
	return out.Bytes(), e.Close()
}

func block(n *yaml.Node) {
	n.Style = 0
	for _, k := range n.Content {
		block(k)
	}
}

// A grid is a table for people: a line of column names, then the rows.
type grid struct {
	names  []string
	rows   [][]string
	right  []int // columns of numbers
	footer []string
	whole  bool // the last column is for reading, however long
}

func columns(names ...string) *grid { return &grid{names: names} }

func (g *grid) add(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		if row[i] = cell(c); g.whole && i == len(cells)-1 {
			row[i] = strings.TrimSpace(visible(fmt.Sprint(c)))
		}
	}
	g.rows = append(g.rows, row)
}

func (g *grid) render(w io.Writer) {
	t := table.NewWriter()
	style := table.StyleDefault
	style.Options = table.Options{}
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	style.Format = table.FormatOptions{Header: text.FormatUpper}
	t.SetStyle(style)
	t.AppendHeader(cells(g.names))
	for _, r := range g.rows {
		t.AppendRow(cells(r))
	}
	if g.footer != nil {
		t.AppendFooter(cells(g.footer))
	}
	var configs []table.ColumnConfig
	for _, i := range g.right {
		configs = append(configs, table.ColumnConfig{Number: i + 1, Align: text.AlignRight, AlignHeader: text.AlignRight, AlignFooter: text.AlignRight})
	}
	t.SetColumnConfigs(configs)
	for line := range strings.Lines(t.Render()) {
		fmt.Fprintln(w, strings.TrimRight(line, " \n"))
	}
}

func cells(list []string) table.Row {
	row := make(table.Row, len(list))
	for i, s := range list {
		row[i] = s
	}
	return row
}

// maxCell bounds a cell of a table, in characters.
const maxCell = 60

// cell shows a value in a table: one line, without anything that could steer the
// terminal, and not endlessly long.
func cell(v any) string {
	s := strings.TrimSpace(visible(fmt.Sprint(v)))
	if r := []rune(s); len(r) > maxCell {
		s = string(r[:maxCell-1]) + "…"
	}
	return s
}

// visible replaces what is not seen: line breaks by blanks, control and format
// characters (escape sequences, changes of direction) by U+FFFD.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r) && r != '\u200d' && r != '\u200c':
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
