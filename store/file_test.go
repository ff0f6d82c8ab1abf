package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/tradepost-crm/tradepost/crm"
)

// smallBase makes a closed base file with a few records and returns its path.
func smallBase(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "base.db")
	db := openBaseAt(t, path)
	put(t, db, append(metadata(1, accountEntity()), metadata(1, dealEntity())...)...)
	a := account(1, 16, 2, "Häusler")
	put(t, db, a, deal(2, a, 3, "First", 100), deal(3, a, 4, "Second", 200))
	if err := errors.Join(db.Compact(), db.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// usedBytes returns where the last page in use ends.
func usedBytes(t *testing.T, path string) int64 {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := readMeta(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return int64(m.pages) * int64(m.pageSize)
}

func boltEdit(t *testing.T, path string, fn func(*bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(fn), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestOpenRefuses opens every kind of file that is not a good one.
func TestOpenRefuses(t *testing.T) {
	cut := func(n int64) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.Truncate(path, n); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name   string
		damage func(*testing.T, string)
		code   crm.Code
		says   string
	}{
		{"empty", cut(0), crm.CodeCorrupt, "rebuilt from the masters"},
		{"first page only", cut(4096), crm.CodeCorrupt, "rebuilt from the masters"},
		{"last page cut", func(t *testing.T, path string) { cut(usedBytes(t, path)-1)(t, path) }, crm.CodeCorrupt, "cut off"},
		{"garbage", func(t *testing.T, path string) {
			b := make([]byte, 64<<10)
			for i := range b {
				b[i] = byte(rand.Uint32())
			}
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}, crm.CodeCorrupt, "rebuilt from the masters"},
		{"foreign", func(t *testing.T, path string) {
			boltEdit(t, path, func(tx *bolt.Tx) error { return tx.DeleteBucket(bucketFormat.top()) })
		}, crm.CodeFormat, "another program"},
		{"newer", func(t *testing.T, path string) {
			boltEdit(t, path, func(tx *bolt.Tx) error {
				return tx.Bucket(bucketFormat.top()).Put([]byte("format"), binary.BigEndian.AppendUint32(nil, formatVersion+1))
			})
		}, crm.CodeFormat, "upgrade tradepost"},
		{"no version", func(t *testing.T, path string) {
			boltEdit(t, path, func(tx *bolt.Tx) error { return tx.Bucket(bucketFormat.top()).Delete([]byte("format")) })
		}, crm.CodeCorrupt, "no version"},
		{"a bucket missing", func(t *testing.T, path string) {
			boltEdit(t, path, func(tx *bolt.Tx) error { return tx.DeleteBucket(bucketLeft.top()) })
		}, crm.CodeCorrupt, "bucket left is missing"},
		{"journal", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			j, err := OpenJournal(path, Options{NoSync: true})
			if err != nil {
				t.Fatal(err)
			}
			j.Close()
		}, crm.CodeFormat, `"journal" file`},
		{"open elsewhere", func(t *testing.T, path string) { openBaseAt(t, path) }, crm.CodeLocked, "another process"},
		{"a directory", func(t *testing.T, path string) {
			if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
				t.Fatal(err)
			}
		}, crm.CodeCorrupt, ""},
		{"no directory", func(t *testing.T, path string) {
			if err := os.RemoveAll(filepath.Dir(path)); err != nil {
				t.Fatal(err)
			}
		}, crm.CodeNotFound, "create it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := smallBase(t)
			c.damage(t, path)
			db, err := Open(path, Options{NoSync: true})
			if err == nil {
				db.Close()
			}
			if crm.CodeOf(err) != c.code || !strings.Contains(fmt.Sprint(err), c.says) || !strings.Contains(fmt.Sprint(err), path) {
				t.Fatalf("Open: code %q, %v; want code %q, %q", crm.CodeOf(err), err, c.code, c.says)
			}
		})
	}
}

func TestJournalRemedyKeepsTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := OpenJournal(path, Options{})
	if crm.CodeOf(err) != crm.CodeCorrupt || !strings.Contains(err.Error(), "do not delete it") {
		t.Errorf("OpenJournal of an empty file: %v", err)
	}
	if info, serr := os.Stat(path); serr != nil || info.Size() != 0 {
		t.Errorf("the file was changed: %v, %v", info, serr)
	}
}

// TestFlippedBytes flips bytes all over a closed file. Opening, checking and
// reading it must never panic, and unless the file still holds what it held,
// some of them must say that it is damaged.
func TestFlippedBytes(t *testing.T) {
	path := smallBase(t)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := contents(t, path)
	rnd := rand.New(rand.NewPCG(1, 4))
	flipped := filepath.Join(t.TempDir(), "flipped.db")
	detected, used := 0, usedBytes(t, path)
	for range 600 {
		b := bytes.Clone(good)
		b[rnd.Int64N(used)] ^= 1 << rnd.IntN(8)
		if err := os.WriteFile(flipped, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, ok := tryContents(t, flipped); !ok {
			detected++
		} else if got != want {
			t.Fatalf("a flip went unnoticed:\n%s\nwant\n%s", got, want)
		}
	}
	if detected < 50 {
		t.Errorf("only %d of 600 flips were detected", detected)
	}
}

// tryContents opens a possibly damaged file and returns all that it holds, and
// whether everything was well.
func tryContents(t *testing.T, path string) (string, bool) {
	db, err := Open(path, Options{NoSync: true, InitialMmap: 1 << 20, ReadOnly: true})
	if err != nil {
		return "", false
	}
	defer db.Close()
	var findings []Finding
	err = db.View(func(tx *Tx) (err error) { findings, err = tx.Check(context.Background()); return err })
	if err != nil || len(findings) > 0 {
		// What is left must be readable or refused, but must not panic.
		dump(db)
		return "", false
	}
	s, err := dump(db)
	return s, err == nil
}

func contents(t *testing.T, path string) string {
	t.Helper()
	s, ok := tryContents(t, path)
	if !ok {
		t.Fatal("the file is not sound")
	}
	return s
}

// dump writes all records and rows that matter as text.
func dump(db *DB) (string, error) {
	var b strings.Builder
	err := db.View(func(tx *Tx) error {
		rev, err := tx.Rev()
		fmt.Fprintln(&b, rev, err)
		for _, e := range tx.entities() {
			for r, err := range tx.every(e) {
				if err != nil {
					return err
				}
				fmt.Fprintf(&b, "%d %s %x\n", e, r.ID, crm.AppendRecord(nil, r))
			}
		}
		for t := range tx.Territories() {
			for e, err := range tx.Feed(t, 0) {
				if err != nil {
					return err
				}
				fmt.Fprintln(&b, t, e)
			}
		}
		r, err := NewReader(tx, nil)
		if err != nil {
			return err
		}
		_, err = r.Search("haus", nil, 10)
		return err
	})
	return b.String(), err
}

// TestDamageWhileOpen writes over the pages of an open file, as a failing disk
// does: reads end in an error of code corrupt or in the right answer, not in a
// panic.
func TestDamageWhileOpen(t *testing.T) {
	path := smallBase(t)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 5))
	for range 40 {
		db := openBaseAt(t, path)
		w, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			at := 2*4096 + rnd.Int64N(int64(len(good))-2*4096)
			if _, err := w.WriteAt([]byte{byte(rnd.Uint32()), byte(rnd.Uint32())}, at); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		if _, err := dump(db); err != nil && crm.CodeOf(err) != crm.CodeCorrupt && crm.CodeOf(err) != crm.CodeInvalid {
			t.Errorf("read of a damaged file: %v", err)
		}
		if err := db.Update(func(tx *Tx) error { return tx.Put(account(9, 16, 9, "New")) }); err != nil && crm.CodeOf(err) == crm.CodeInternal {
			t.Errorf("write to a damaged file: %v", err)
		}
		db.Close()
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCrash copies the file while it is written, as a crash would leave it, and
// opens the copies: each holds a whole prefix of the commits.
func TestCrash(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "base.db")
	db := openBaseAt(t, path)
	put(t, db, append(metadata(1, accountEntity()), metadata(1, dealEntity())...)...)
	states := map[crm.Rev]string{}
	for rev := crm.Rev(2); rev < 20; rev++ {
		a := account(int(rev)%5, 16, rev, fmt.Sprintf("Account %d", rev))
		err := db.Update(func(tx *Tx) error {
			if err := errors.Join(tx.Put(a), tx.Put(deal(50+int(rev), a, rev, "D", 5)), tx.SetRev(rev)); err != nil {
				return err
			}
			copyFile(t, path, filepath.Join(dir, "before")) // nothing of this transaction may be in it
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		states[rev], err = dump(db)
		if err != nil {
			t.Fatal(err)
		}
		copyFile(t, path, filepath.Join(dir, "after"))
		if rev > 2 {
			sameState(t, filepath.Join(dir, "before"), states[rev-1])
		}
		sameState(t, filepath.Join(dir, "after"), states[rev])
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func sameState(t *testing.T, path, want string) {
	t.Helper()
	db := openBaseAt(t, path)
	defer db.Close()
	checkBase(t, db)
	if got, err := dump(db); err != nil || got != want {
		t.Fatalf("after the crash: %v\n%s\nwant\n%s", err, got, want)
	}
}

func TestReplaceAndCompact(t *testing.T) {
	db := openBaseAt(t, smallBase(t))
	copied := filepath.Join(filepath.Dir(db.Path()), "copy")
	f, err := os.Create(copied)
	if err != nil {
		t.Fatal(err)
	}
	view(t, db, func(tx *Tx) error { _, err := tx.WriteTo(f); return err })
	f.Close()
	before, err := dump(db)
	if err != nil {
		t.Fatal(err)
	}
	secret := account(8, 17, 9, "Purgatory")
	setCell(secret, accountCode, crm.TextValue("TOPSECRET"))
	put(t, db, secret)
	update(t, db, func(tx *Tx) error { _, err := tx.DropTerritory(17); return err })
	if err := db.Compact(); err != nil {
		t.Fatal(err)
	}
	checkBase(t, db)
	if b, err := os.ReadFile(db.Path()); err != nil || bytes.Contains(b, []byte("TOPSECRET")) || bytes.Contains(b, []byte("topsecret")) {
		t.Errorf("a compacted file keeps a purged value (%v)", err)
	}
	put(t, db, account(8, 16, 9, "Later"))
	if err := db.Replace(copied); err != nil {
		t.Fatal(err)
	}
	checkBase(t, db)
	if after, err := dump(db); err != nil || after != before {
		t.Errorf("after Replace: %v\n%s\nwant\n%s", err, after, before)
	}
	if _, err := os.Stat(copied); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the replacing file is still there: %v", err)
	}
	for name, bad := range map[string][]byte{"missing": nil, "garbage": []byte("garbage")} {
		path := filepath.Join(filepath.Dir(db.Path()), name)
		if bad != nil {
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Replace(path); err == nil {
			t.Errorf("Replace with a %s file succeeded", name)
		}
		if after, err := dump(db); err != nil || after != before {
			t.Errorf("after Replace with a %s file: %v", name, err)
		}
	}
}

// TestReplaceWaitsForReaders begins a view, then a Replace, and sees the view
// keep its file.
func TestReplaceWaitsForReaders(t *testing.T) {
	db := openBaseAt(t, smallBase(t))
	other := smallBase(t)
	var wg sync.WaitGroup
	view(t, db, func(tx *Tx) error {
		started := make(chan struct{})
		wg.Go(func() {
			close(started)
			if err := db.Replace(other); err != nil {
				t.Error(err)
			}
		})
		<-started
		for range 100 {
			if r, err := tx.Record(entityAccount, recordID(1)); err != nil || r == nil {
				t.Fatalf("Record during Replace: %v, %v", r, err)
			}
		}
		return nil
	})
	wg.Wait()
	checkBase(t, db)
}

func TestReadersBesideWriter(t *testing.T) {
	db := openBaseAt(t, smallBase(t))
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := db.View(consistent); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for rev := crm.Rev(10); rev < 150; rev++ {
		a := account(1, 16, rev, fmt.Sprintf("Name %d", rev))
		update(t, db, func(tx *Tx) error { return errors.Join(tx.Put(a), tx.SetRev(rev)) })
		if rev%50 == 0 {
			if err := db.Compact(); err != nil {
				t.Error(err)
			}
		}
	}
	close(done)
	wg.Wait()
}

// consistent reports a snapshot whose parts are of different commits.
func consistent(tx *Tx) error {
	rev, err := tx.Rev()
	if err != nil {
		return err
	}
	r, err := tx.Record(entityAccount, recordID(1))
	if err != nil || rev > 0 && r.Stamp.Rev != rev {
		return fmt.Errorf("record of rev %d in a snapshot of rev %d: %v", r.Stamp.Rev, rev, err)
	}
	d, err := tx.Digest(16)
	if err != nil {
		return err
	}
	b, err := tx.Buckets(16)
	if err != nil || DigestOf(b) != d {
		return fmt.Errorf("a cached digest is not that of the snapshot: %v", err)
	}
	return nil
}

func TestDiskFull(t *testing.T) {
	db := openBaseAt(t, smallBase(t))
	size := fileSize(db.Path())
	db.Close()
	db, err := Open(db.Path(), Options{NoSync: true, InitialMmap: 64 << 10, MaxSize: int(size) + 64<<10})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	before, err := dump(db)
	if err != nil {
		t.Fatal(err)
	}
	big := crm.TextValue(strings.Repeat("x", crm.MaxText))
	err = db.Update(func(tx *Tx) error {
		for n := range 50 {
			r := account(100+n, 16, 9, "Big")
			setCell(r, accountCity, big)
			if err := tx.Put(r); err != nil {
				return err
			}
		}
		return nil
	})
	if crm.CodeOf(err) != crm.CodeDiskFull || !strings.Contains(err.Error(), "nothing was acknowledged") {
		t.Fatalf("Update of a full file: %v", err)
	}
	if after, err := dump(db); err != nil || after != before {
		t.Errorf("a failed commit left traces: %v", err)
	}
	put(t, db, account(1, 16, 10, "Small"))
	checkBase(t, db)
	for _, cause := range []error{syscall.ENOSPC, &os.PathError{Op: "write", Path: "x", Err: syscall.EDQUOT}} {
		if got := crm.CodeOf(db.failure("commit", fmt.Errorf("write: %w", cause))); got != crm.CodeDiskFull {
			t.Errorf("%v has code %q", cause, got)
		}
	}
}

func TestPanicsOfOthersGoOn(t *testing.T) {
	db := openBaseAt(t, smallBase(t))
	defer func() {
		if r := recover(); r != "mine" {
			t.Errorf("recovered %v", r)
		}
		put(t, db, account(1, 16, 10, "After")) // the transaction was ended
	}()
	_ = db.Update(func(*Tx) error { panic("mine") })
}

func TestClosed(t *testing.T) {
	db := openBaseAt(t, smallBase(t))
	if err := errors.Join(db.Close(), db.Close()); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"View":    db.View(func(*Tx) error { return nil }),
		"Update":  db.Update(func(*Tx) error { return nil }),
		"Compact": db.Compact(),
	} {
		if crm.CodeOf(err) != crm.CodeUnavailable {
			t.Errorf("%s of a closed file: %v", what, err)
		}
	}
}

func TestStatsAndCommitHook(t *testing.T) {
	var commits []CommitStats
	path := smallBase(t)
	db, err := Open(path, Options{InitialMmap: 1 << 20, OnCommit: func(c CommitStats) { commits = append(commits, c) }})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	commits = nil
	put(t, db, account(4, 16, 9, "A"))
	if len(commits) != 1 || commits[0].Pages == 0 || commits[0].Duration < commits[0].Write || commits[0].Write == 0 {
		t.Errorf("commits = %+v", commits)
	}
	view(t, db, func(*Tx) error {
		s := db.Stats()
		if s.Bytes != fileSize(path) || s.OpenReads != 1 || s.Commits == 0 || s.LastCommit != commits[0].Duration || s.MaxCommit > s.TotalCommit {
			t.Errorf("Stats = %+v", s)
		}
		return nil
	})
}

// TestReadOnlyWrites says that writing through a read transaction is an error.
func TestReadOnlyWrites(t *testing.T) {
	db := openBaseAt(t, smallBase(t))
	view(t, db, func(tx *Tx) error {
		if err := tx.SetRev(5); err == nil {
			t.Error("SetRev in a View succeeded")
		}
		if err := tx.Commit(); err == nil {
			t.Error("Commit of a read transaction succeeded")
		}
		return nil
	})
	put(t, db, account(4, 16, 9, "A"))
	view(t, db, func(tx *Tx) error { _, err := tx.WriteTo(io.Discard); return err })
}
