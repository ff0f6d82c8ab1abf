package main

import (
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/tradepost-crm/tradepost/crm"
)

// stateVersion is the version of the import-state file.
const stateVersion = 1

// An importState is what FILE.import-state holds: how far an import has come.
// It is written after the edits it tells of were acknowledged and after the rows
// that failed were written, never before.
type importState struct {
	Version int          `json:"version"`
	File    string       `json:"file_sha256"`
	Command string       `json:"command_sha256"` // entity and flags: continuing with others would mix two imports
	Offset  int64        `json:"offset"`         // in the decoded text; rows that end at or below it have their fate
	Failed  int64        `json:"failed_bytes"`   // length of FILE.failed.csv
	Counts  importCounts `json:"counts"`
}

// A progress keeps the state of an import, and the rows that fail.
type progress struct {
	c      *cli
	name   string
	header []string
	comma  rune
	dry    bool
	state  importState
	first  []failText
	out    file // nil until a row fails
	rows   *csv.Writer
}

// A failText is a row that failed as the summary shows it.
type failText struct {
	Line  int      `json:"line"`
	Code  crm.Code `json:"code"`
	Error string   `json:"error"`
}

// maxShown bounds the failures that the summary shows.
const maxShown = 10

// codeRows is the code of an import of which some rows failed.
const codeRows crm.Code = "rows_failed"

// startProgress begins an import anew or, with --resume, reads how far it came.
func (c *cli) startProgress(o *importFlags, s *sheet, entity string, v survey) (*progress, error) {
	command, err := json.Marshal([]any{entity, o.mode, o.currency, o.form, o.spec.maps, o.spec.values, o.spec.set, o.spec.key, o.spec.keyFrom, o.spec.skipEmpty})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(command)
	p := &progress{
		c: c, name: s.name, header: s.header, comma: s.rows.Comma, dry: o.dryRun, first: []failText{},
		state: importState{Version: stateVersion, File: v.hash, Command: hex.EncodeToString(sum[:])},
	}
	old, err := p.load()
	switch {
	case err != nil:
		return nil, err
	case o.resume:
		return p, p.resume(old)
	case o.dryRun:
		return p, nil
	case old != nil && old.File == v.hash && old.Command == p.state.Command:
		c.note("an earlier import of this file stopped after %d rows; this one starts over, --resume would continue", old.Counts.rows())
	}
	if err := c.remove(p.failedName()); err != nil && !errors.Is(err, fs.ErrNotExist) { // tells of an earlier import
		return nil, failed("import", p.failedName(), err)
	}
	return p, nil
}

func (p *progress) stateName() string  { return p.name + ".import-state" }
func (p *progress) failedName() string { return p.name + ".failed.csv" }

// load reads the state of an earlier import; nil if there is none.
func (p *progress) load() (*importState, error) {
	b, err := p.c.readFile(p.stateName())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, failed("import", p.stateName(), err)
	}
	var s importState
	if err := json.Unmarshal(b, &s); err != nil || s.Version != stateVersion {
		return nil, &crm.Error{Code: crm.CodeFormat, Op: "import", Item: p.stateName(), Message: "not a state file that this program can read; remove it to start over, which makes no record twice"}
	}
	return &s, nil
}

func (p *progress) resume(old *importState) error {
	switch {
	case old == nil:
		return usage("--resume", "there is no %s: no import of this file was interrupted", p.stateName())
	case old.File != p.state.File:
		return usage("--resume", "%s has changed since the import began; import it without --resume, which makes no record twice", p.name)
	case old.Command != p.state.Command:
		return usage("--resume", "the import began with another entity or other flags; repeat that command, or leave --resume out to start over")
	}
	p.state = *old
	if old.Failed == 0 {
		return nil
	}
	return p.openFailed(p.c.extend, old.Failed)
}

func (p *progress) openFailed(open func(string) (file, error), size int64) error {
	f, err := open(p.failedName())
	if err == nil {
		if err = f.Truncate(size); err == nil { // rows that failed after the state was written will fail again
			_, err = f.Seek(size, io.SeekStart)
		}
	}
	if err != nil {
		return failed("import", p.failedName(), err)
	}
	p.out, p.rows = f, csv.NewWriter(f)
	p.rows.Comma = p.comma
	return nil
}

// fail notes a row that failed, with its cells as the file has them.
func (p *progress) fail(row csvRow, bad *rowError) error {
	if len(p.first) < maxShown {
		p.first = append(p.first, failText{bad.line, bad.code, bad.text})
	}
	if p.dry {
		return nil
	}
	if p.out == nil {
		if err := p.openFailed(p.c.create, 0); err != nil {
			return err
		}
		if err := p.rows.Write(append(p.originals(p.header), ownColumns...)); err != nil {
			return failed("import", p.failedName(), err)
		}
	}
	cells := append(p.originals(row.cells), fmt.Sprint(bad.line), string(bad.code), bad.text)
	if err := p.rows.Write(cells); err != nil {
		return failed("import", p.failedName(), err)
	}
	return nil
}

// originals returns as many cells as the header has, without the reasons of an
// earlier import of a file of failed rows.
func (p *progress) originals(cells []string) []string {
	var out []string
	for i, h := range p.header {
		switch {
		case h == ownColumns[0] || h == ownColumns[1] || h == ownColumns[2]:
		case i < len(cells):
			out = append(out, cells[i])
		default:
			out = append(out, "")
		}
	}
	return out
}

// save makes the rows up to offset done.
func (p *progress) save(offset int64, counts importCounts) error {
	if p.dry {
		return nil
	}
	if p.out != nil {
		p.rows.Flush()
		if err := errors.Join(p.rows.Error(), p.out.Sync()); err != nil {
			return failed("import", p.failedName(), err)
		}
		size, err := p.out.Seek(0, io.SeekCurrent)
		if err != nil {
			return failed("import", p.failedName(), err)
		}
		p.state.Failed = size
	}
	p.state.Offset, p.state.Counts = offset, counts
	b, err := json.MarshalIndent(p.state, "", "  ")
	if err != nil {
		return err
	}
	if err := p.c.replace(p.stateName(), append(b, '\n')); err != nil {
		return failed("import", p.stateName(), err)
	}
	return nil
}

// finish forgets the state of an import that came to its end.
func (p *progress) finish() error {
	if p.dry {
		return nil
	}
	if err := p.c.remove(p.stateName()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return failed("import", p.stateName(), err)
	}
	return nil
}

func (p *progress) close() {
	if p.out != nil {
		p.out.Close()
	}
}
