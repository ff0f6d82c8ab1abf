package store

import (
	"bytes"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/google/go-cmp/cmp"

	"github.com/tradepost-crm/tradepost/crm"
)

var updateGolden = flag.Bool("update", false, "rewrite testdata; only with a new formatVersion once a version is released")

// golden compares with a file of testdata, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *updateGolden {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(got), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// TestKeys draws the buckets as docs/format.md shows them.
func TestKeys(t *testing.T) {
	var b strings.Builder
	for _, k := range []kind{baseFile, journalFile} {
		fmt.Fprintf(&b, "%s file, format %d\n\n", k, formatVersion)
		for _, l := range layout[k] {
			fmt.Fprintf(&b, "%-24s %s\n%-24s = %s\n", l.name, l.key, "", l.value)
		}
		fmt.Fprintln(&b)
	}
	golden(t, "keys.golden", b.String())
}

// TestLayoutNamesEachBucketOnce guards the table that everything else is derived from.
func TestLayoutNamesEachBucketOnce(t *testing.T) {
	for k, buckets := range layout {
		seen := map[string]bool{}
		for _, b := range buckets {
			if top := string(b.top()); seen[top] || top == "" || strings.Contains(top, "/") {
				t.Errorf("%s file: bucket %q", k, b.name)
			} else {
				seen[top] = true
			}
		}
	}
}

// goldenBase fills a base file with one of everything.
func goldenBase(tx *Tx) error {
	a := account(1, 16, 2, "Häusler & Söhne")
	setCell(a, accountTags, crm.ChoicesValue("vip", "new"))
	setCell(a, accountPhone, crm.PhoneValue("+49 30 5550100"))
	b := account(2, 17, 3, "Łódź Steel")
	dead := deal(4, a, 5, "Lost", -150)
	dead.Deleted = true
	moved := account(3, 17, 6, "Zebra")
	var puts []*crm.Record
	puts = append(puts, metadata(1, accountEntity())...)
	puts = append(puts, metadata(1, dealEntity())...)
	puts = append(puts, a, b, account(3, 16, 4, "Zebra"), moved, dead, deal(5, a, 7, "First", 12345))
	for _, r := range puts {
		if err := tx.Put(r); err != nil {
			return err
		}
	}
	return errors.Join(tx.SetRev(7), tx.SetTimeline(1), tx.SetMeta("applied", []byte{1, 2, 3}), tx.SetRefused(recordID(8), recordID(9)),
		tx.SetNode(NodeState{Node: 3, Incarnation: 1, LastSeq: 9, LastHash: crm.ChainHash{1}, LastHLC: crm.NewHLC(1_700_000_000_000), Cursor: 6, LowBase: 5, SeenMillis: 1_700_000_000_000, Frozen: "forked"}),
		tx.PutOutcome(crm.Outcome{Node: 3, Seq: 8, Rev: 6, Kind: crm.Parked, Code: crm.CodeTransition, Message: "a person decides"}),
		tx.Stage([]byte{1, 2}, []byte("staged")))
}

// goldenJournal fills a journal file with one of everything.
func goldenJournal(s *crm.Schema) func(tx *JTx) error {
	return func(tx *JTx) error {
		k := RecordKey{entityAccount, recordID(1)}
		edited := account(1, 16, crm.Pending, "Häusler GmbH")
		gone := deal(5, edited, crm.Pending, "First", 1)
		gone.Deleted = true
		_, err := tx.NextInSeries("INV")
		err = errors.Join(err, tx.Append(entry(1)), tx.Append(entry(2)), tx.PutOverlay(s, edited), tx.PutOverlay(s, gone), tx.Touch(k, 2),
			tx.SetMeta("name", []byte("blob")),
			tx.SetIdentity(Identity{Cluster: "acme", Site: "lisbon", Node: 3, Incarnation: 1, NextSeq: 3, Chain: crm.ChainHash{2}, HLC: 7, Timeline: 1}))
		if err != nil {
			return err
		}
		_, err = tx.Settle(1, 6)
		return err
	}
}

// TestFormat writes one of everything and compares each key and value with
// what this format has always been, and opens the files of its release.
func TestFormat(t *testing.T) {
	db, j := openBase(t), openJournal(t)
	update(t, db, goldenBase)
	var s *crm.Schema
	view(t, db, func(tx *Tx) error { s = tx.Schema(); return nil })
	updateJournal(t, j, goldenJournal(s))
	checkBase(t, db)
	checkJournal(t, db, j)
	baseText, journalText := rawDump(t, db.file), rawDump(t, j.file)
	golden(t, "format1/base.txt", baseText)
	golden(t, "format1/journal.txt", journalText)
	if *updateGolden {
		pack(t, db.file, "testdata/format1/base.db.gz")
		pack(t, j.file, "testdata/format1/journal.db.gz")
	}

	old := openBaseAt(t, unpack(t, "testdata/format1/base.db.gz"))
	oldJournal, err := OpenJournal(unpack(t, "testdata/format1/journal.db.gz"), Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer oldJournal.Close()
	checkBase(t, old)
	checkJournal(t, old, oldJournal)
	if diff := cmp.Diff(baseText, rawDump(t, old.file)); diff != "" {
		t.Errorf("base.db.gz holds something else than base.txt:\n%s", diff)
	}
	if diff := cmp.Diff(journalText, rawDump(t, oldJournal.file)); diff != "" {
		t.Errorf("journal.db.gz holds something else than journal.txt:\n%s", diff)
	}
}

// rawDump writes every key and value of the file in hex.
func rawDump(t *testing.T, f *file) string {
	t.Helper()
	var b strings.Builder
	tx, err := f.begin(false)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	var walk func(name string, at *bolt.Bucket) error
	walk = func(name string, at *bolt.Bucket) error {
		fmt.Fprintln(&b, name)
		return at.ForEach(func(k, v []byte) error {
			if nested := at.Bucket(k); nested != nil {
				return walk(fmt.Sprintf("%s/%x", name, k), nested)
			}
			if string(k) == "layout" { // a fingerprint of the program's own entities
				return nil
			}
			fmt.Fprintf(&b, "  %x = %x\n", k, v)
			return nil
		})
	}
	if err := tx.bolt.ForEach(func(name []byte, at *bolt.Bucket) error { return walk(string(name), at) }); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func pack(t *testing.T, f *file, path string) {
	t.Helper()
	if err := f.Compact(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err == nil {
		_, err = w.Write(raw)
	}
	if err = errors.Join(err, w.Close(), os.WriteFile(path, b.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func unpack(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), strings.TrimSuffix(filepath.Base(path), ".gz"))
	b, err := io.ReadAll(r)
	if err = errors.Join(err, os.WriteFile(out, b, 0o600)); err != nil {
		t.Fatal(err)
	}
	return out
}
