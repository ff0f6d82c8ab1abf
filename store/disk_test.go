package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tradepost-crm/tradepost/crm"
)

// A tape records the calls of a Disk and can fail one of them.
type tape struct {
	calls []string
	each  func(call string) error // nil: all succeed
}

func (p *tape) call(call string) error {
	p.calls = append(p.calls, call)
	if p.each == nil {
		return nil
	}
	return p.each(call)
}

func (p *tape) disk() *Disk {
	return &Disk{
		Before: func(op DiskOp, path string) error {
			return p.call(fmt.Sprintf("before %s %s", op, filepath.Base(path)))
		},
		Sync:  func(path string) error { return p.call("sync " + filepath.Base(path)) },
		After: func(op DiskOp, path string) { _ = p.call(fmt.Sprintf("after %s %s", op, filepath.Base(path))) },
	}
}

// take returns the calls since the last take.
func (p *tape) take() []string {
	out := p.calls
	p.calls = nil
	return out
}

// onDisk makes a directory "d" for files of a Disk's.
func onDisk(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func openOn(t *testing.T, path string, d *Disk) *DB {
	t.Helper()
	db, err := Open(path, Options{InitialMmap: 1 << 20, Disk: d})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// TestDiskSeesEachStep lists what a Disk sees of each operation, and that bbolt
// leaves syncing to it.
func TestDiskSeesEachStep(t *testing.T) {
	var p tape
	path := filepath.Join(onDisk(t), "b")
	db := openOn(t, path, p.disk())
	want := func(what string, calls ...string) {
		t.Helper()
		if diff := cmp.Diff(calls, p.take()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	commit := []string{"before commit b", "sync b", "after commit b"}
	want("Open of no file", append([]string{"before create b", "sync b.new", "sync d", "after create b"}, commit...)...)
	if !db.bolt.NoSync || !db.bolt.NoGrowSync {
		t.Error("bbolt syncs too")
	}
	put(t, db, account(1, 16, 1, "A"))
	want("Update", commit...)
	if err := db.Compact(); err != nil {
		t.Fatal(err)
	}
	want("Compact", "before compact b", "sync b.compact", "sync d", "after compact b")
	copyFile(t, path, path+"2")
	if err := db.Replace(path + "2"); err != nil {
		t.Fatal(err)
	}
	want("Replace", "sync b2", "sync d", "before replace b", "sync b2", "sync d", "after replace b")
	view(t, db, func(*Tx) error { return nil })
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	want("View and Close")
	openOn(t, path, p.disk()).Close()
	want("Open", "sync b", "sync d")

	j, err := OpenJournal(filepath.Join(filepath.Dir(path), "j"), Options{Disk: p.disk(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if err := errors.Join(j.Update(func(tx *JTx) error { return tx.SetMeta("a", []byte("b")) }), j.Compact()); err != nil {
		t.Fatal(err)
	}
	want("a journal with NoSync", "before create j", "after create j", "before commit j", "after commit j", "before compact j", "after compact j")
}

// TestDiskErrors fails each operation before it starts: nothing of it is in the
// file, which can be used on.
func TestDiskErrors(t *testing.T) {
	var p tape
	path := filepath.Join(onDisk(t), "b")
	fail := func(call string, err error) {
		p.each = func(c string) error {
			if c == call {
				return err
			}
			return nil
		}
	}
	full := &os.PathError{Op: "write", Path: path, Err: syscall.ENOSPC}
	broken := &os.PathError{Op: "write", Path: path, Err: syscall.EIO}
	fail("before create b", full)
	if db, err := Open(path, Options{Disk: p.disk()}); crm.CodeOf(err) != crm.CodeDiskFull || db != nil {
		t.Fatalf("Open: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that could not be created: %v", err)
	}
	p.each = nil
	db := openOn(t, path, p.disk())
	put(t, db, account(1, 16, 1, "A"))
	before, err := dump(db)
	if err != nil {
		t.Fatal(err)
	}
	copyFile(t, path, path+"2")
	write := func() error { return db.Update(func(tx *Tx) error { return tx.Put(account(2, 16, 2, "B")) }) }
	begun := func() error {
		tx, err := db.Begin(true)
		if err != nil {
			return err
		}
		return errors.Join(tx.Put(account(2, 16, 2, "B")), tx.Commit())
	}
	for _, c := range []struct {
		call string
		run  func() error
		err  error
		code crm.Code
	}{
		{"before commit b", write, full, crm.CodeDiskFull},
		{"before commit b", write, broken, crm.CodeInternal},
		{"before commit b", begun, broken, crm.CodeInternal},
		{"before compact b", db.Compact, full, crm.CodeDiskFull},
		{"sync b.compact", db.Compact, broken, crm.CodeInternal},
		{"before replace b", func() error { return db.Replace(path + "2") }, broken, crm.CodeInternal},
		{"sync b2", func() error { return db.Replace(path + "2") }, broken, crm.CodeInternal},
	} {
		fail(c.call, c.err)
		if err := c.run(); crm.CodeOf(err) != c.code || !errors.Is(err, c.err) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s fails with %v, code %q: %v", c.call, c.err, crm.CodeOf(err), err)
		}
		p.each = nil
		if after, err := dump(db); err != nil || after != before {
			t.Errorf("%s failed and left %v\n%s\nwant\n%s", c.call, err, after, before)
		}
		checkBase(t, db)
		update(t, db, func(tx *Tx) error { return tx.SetMeta("still", []byte("writable")) })
	}
	if err := errors.Join(write(), db.Compact(), db.Replace(path+"2")); err != nil {
		t.Fatal(err)
	}
}

// TestUnsyncedWrite fails the last sync of each operation: nobody can promise
// any more that a write lasts, so the file takes none until what it shows was
// synced after all. It can be read meanwhile.
func TestUnsyncedWrite(t *testing.T) {
	cause := &os.PathError{Op: "sync", Path: "disk", Err: syscall.EIO}
	for _, c := range []struct {
		start, call string // the call that fails, once the operation has started
		run         func(db *DB) error
	}{
		{"before commit b", "sync b", func(db *DB) error { return db.Update(func(tx *Tx) error { return tx.Put(account(2, 16, 2, "B")) }) }},
		{"before compact b", "sync d", func(db *DB) error { return db.Compact() }},
		{"before replace b", "sync d", func(db *DB) error { return db.Replace(db.Path() + "2") }},
	} {
		var p tape
		path := filepath.Join(onDisk(t), "b")
		db := openOn(t, path, p.disk())
		var told []error
		db.opts.OnDoubt = func(err error) { told = append(told, err) }
		put(t, db, account(1, 16, 1, "A"))
		copyFile(t, path, path+"2")
		p.take()
		p.each = func(call string) error {
			if call == c.call && slices.Contains(p.calls, c.start) {
				return cause
			}
			return nil
		}
		if err := c.run(db); crm.CodeOf(err) != crm.CodeUnsynced || !errors.Is(err, cause) {
			t.Errorf("%s fails: %v", c.call, err)
		}
		shown := accounts(t, db)
		copyFile(t, path, path+"2")
		for what, err := range map[string]error{
			"Update":  db.Update(func(tx *Tx) error { return tx.Put(account(3, 16, 3, "C")) }),
			"Compact": db.Compact(),
			"Replace": db.replace(path + "2"),
			"Mend":    db.Mend(),
		} {
			if crm.CodeOf(err) != crm.CodeUnavailable || !errors.Is(err, cause) {
				t.Errorf("%s after a failed %s: %v", what, c.call, err)
			}
		}
		if got := accounts(t, db); got != shown {
			t.Errorf("after a failed %s it shows %q, then %q", c.call, shown, got)
		}
		p.take()
		p.each = nil
		if err := errors.Join(db.Mend(), db.Mend()); err != nil {
			t.Errorf("Mend once %s succeeds: %v", c.call, err)
		}
		if diff := cmp.Diff([]string{"sync b", "sync d"}, p.take()); diff != "" {
			t.Errorf("Mend (-want +got):\n%s", diff)
		}
		if len(told) != 2 || !errors.Is(told[0], cause) || told[1] != nil {
			t.Errorf("told of %v, want of the doubt and of its end", told)
		}
		put(t, db, account(4, 16, 4, "D"))
		checkBase(t, db)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if got := accounts(t, openOn(t, path, p.disk())); got != shown+" D" {
			t.Errorf("after a failed %s: %q, want what was shown and D", c.call, got)
		}
	}
}

// TestUnsyncedWrite_NextWriterMends: a writer needs not know of the failure, and
// waits for the readers who see the state before it.
func TestUnsyncedWrite_NextWriterMends(t *testing.T) {
	var p tape
	path := filepath.Join(onDisk(t), "b")
	db := openOn(t, path, p.disk())
	put(t, db, account(1, 16, 1, "A"))
	old, err := db.Begin(false)
	if err != nil {
		t.Fatal(err)
	}
	p.each = func(call string) error {
		if call == "sync b" {
			return syscall.EIO
		}
		return nil
	}
	if err := db.Update(func(tx *Tx) error { return tx.Put(account(2, 16, 2, "B")) }); crm.CodeOf(err) != crm.CodeUnsynced {
		t.Fatal(err)
	}
	p.each = nil
	written := make(chan error, 1)
	go func() { written <- db.Update(func(tx *Tx) error { return tx.Put(account(3, 16, 3, "C")) }) }()
	if rec, err := old.Record(1, account(2, 16, 2, "B").ID); rec != nil || err != nil {
		t.Errorf("the reader of the state before sees %v, %v", rec, err)
	}
	if err := errors.Join(old.Rollback(), <-written); err != nil {
		t.Fatal(err)
	}
	if got := accounts(t, db); got != "A B C" {
		t.Errorf("the file holds %q", got)
	}
	checkBase(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(*Tx) error { return nil }); crm.CodeOf(err) != crm.CodeUnavailable {
		t.Errorf("a closed file: %v", err)
	}
}

// TestDiskPanics ends a run of all operations with a panic at each call of a
// Disk in turn: it passes through, and leaves nothing locked.
func TestDiskPanics(t *testing.T) {
	for n := 0; ; n++ {
		path := filepath.Join(onDisk(t), "b")
		var p tape
		p.each = func(call string) error {
			if len(p.calls) == n+1 {
				panic(crash(call))
			}
			return nil
		}
		at := crashes(t, path, p.disk())
		if at == "" {
			if n < 20 {
				t.Errorf("only %d calls", n)
			}
			return
		}
		db := openOn(t, path, nil)
		checkBase(t, db)
		if r := accounts(t, db); !slices.Contains([]string{"", "A", "A B", "A B C"}, r) {
			t.Errorf("after a panic at %s the file holds %q", at, r)
		}
		put(t, db, account(9, 16, 9, "Z"))
		db.Close()
	}
}

type crash string

// crashes runs all operations until a crash, and returns where that was.
func crashes(t *testing.T, path string, d *Disk) (at crash) {
	t.Helper()
	var db *DB
	defer func() {
		if r := recover(); r != nil {
			at = r.(crash)
		}
		if db != nil {
			db.Close()
		}
	}()
	db, err := Open(path, Options{InitialMmap: 1 << 20, Disk: d})
	if err == nil {
		err = db.Update(func(tx *Tx) error { return tx.Put(account(1, 16, 1, "A")) })
	}
	if err != nil {
		t.Fatal(err)
	}
	tx, err := db.Begin(true)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tx.Put(account(2, 16, 2, "B")), tx.Commit(), db.Compact()); err != nil {
		t.Fatal(err)
	}
	copyFile(t, path, path+"2")
	err = errors.Join(db.Replace(path+"2"), db.Update(func(tx *Tx) error { return tx.Put(account(3, 16, 3, "C")) }), db.Close())
	if err != nil {
		t.Fatal(err)
	}
	if db, err = Open(path, Options{InitialMmap: 1 << 20, Disk: d}); err != nil {
		t.Fatal(err)
	}
	return ""
}

// accounts returns the names of all accounts, by id.
func accounts(t *testing.T, db *DB) string {
	t.Helper()
	var out []string
	view(t, db, func(tx *Tx) error {
		for r, err := range tx.Scan(entityAccount) {
			if err != nil {
				return err
			}
			out = append(out, r.Value(accountName).Str())
		}
		return nil
	})
	return strings.Join(out, " ")
}

// TestPowerLoss computes what a loss of power may leave of each commit, as the
// documentation of Disk says, and opens it: it holds the state before or after,
// and once Sync has returned the state after. Images that a crash cannot leave
// are noticed.
func TestPowerLoss(t *testing.T) {
	path := filepath.Join(onDisk(t), "b")
	rnd := rand.New(rand.NewPCG(1, 6))
	var durable, written []byte // at the last sync, and at the one to come
	d := &Disk{Sync: func(path string) (err error) {
		if info, err := os.Stat(path); err != nil || info.IsDir() {
			return err
		}
		durable = written
		written, err = os.ReadFile(path)
		return err
	}}
	db := openOn(t, path, d)
	put(t, db, append(metadata(1, accountEntity()), metadata(1, dealEntity())...)...)
	commits, noticed, torn := 0, 0, 0
	before, err := dump(db)
	if err != nil {
		t.Fatal(err)
	}
	for rev := crm.Rev(2); rev < 30; rev++ {
		a := account(int(rev)%7, 16, rev, fmt.Sprintf("Account %d", rev))
		update(t, db, func(tx *Tx) error {
			for i := range rnd.IntN(40) {
				if err := tx.Put(deal(50+rnd.IntN(300), a, rev, strings.Repeat("D", i), 5)); err != nil {
					return err
				}
			}
			return errors.Join(tx.Put(a), tx.SetRev(rev))
		})
		after, err := dump(db)
		if err != nil {
			t.Fatal(err)
		}
		loss := powerLoss{rnd: rnd, old: durable, new: written}
		image := path + ".image"
		for range 2 {
			loss.write(t, image, loss.withoutHead())
			sameState(t, image, before)
			loss.write(t, image, loss.withPartOfHead())
			if got := contents(t, image); got != before && got != after {
				t.Fatalf("a torn head left\n%s\nwant\n%s\nor\n%s", got, before, after)
			} else if got == before {
				torn++
			}
		}
		loss.write(t, image, loss.new)
		sameState(t, image, after)
		loss.write(t, image, loss.withoutAPage())
		if got, ok := tryContents(t, image); !ok || got != after {
			noticed++
		}
		commits++
		before = after
	}
	if noticed != commits || torn == 0 {
		t.Errorf("%d of %d images with a lost page were noticed; %d heads were torn", noticed, commits, torn)
	}
}

// A powerLoss computes images of a file between two syncs.
type powerLoss struct {
	rnd      *rand.Rand
	old, new []byte
}

const sector, page = 512, 4096

// changed returns the pages that differ, without the head.
func (l powerLoss) changed() []int {
	var out []int
	for at := 2 * page; at < len(l.new); at += page {
		if at+page > len(l.old) || !bytes.Equal(l.old[at:at+page], l.new[at:at+page]) {
			out = append(out, at)
		}
	}
	return out
}

// tear copies some sectors of a page of l.new into the image.
func (l powerLoss) tear(image []byte, at int) []byte {
	for s := at; s < at+page; s += sector {
		if l.rnd.IntN(2) == 0 {
			if grow := s + sector - len(image); grow > 0 {
				image = append(image, make([]byte, grow)...)
			}
			copy(image[s:s+sector], l.new[s:])
		}
	}
	return image
}

func (l powerLoss) withoutHead() []byte {
	image := bytes.Clone(l.old)
	for _, at := range l.changed() {
		image = l.tear(image, at)
	}
	return image
}

func (l powerLoss) withPartOfHead() []byte {
	image := bytes.Clone(l.new)
	copy(image[:2*page], l.old)
	return l.tear(l.tear(image, 0), page)
}

// withoutAPage is what no crash leaves: the head without one of the pages.
func (l powerLoss) withoutAPage() []byte {
	image := bytes.Clone(l.new)
	changed := l.changed()
	at := changed[l.rnd.IntN(len(changed))]
	clear(image[at : at+page])
	copy(image[at:at+page], l.old[min(at, len(l.old)):])
	return image
}

func (l powerLoss) write(t *testing.T, path string, image []byte) {
	t.Helper()
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestOpenSettles kills a process between the writing and the syncing of a
// commit. Whoever opens the file next sees that commit, and a loss of power must
// not take it away from then on.
func TestOpenSettles(t *testing.T) {
	path := filepath.Join(onDisk(t), "b")
	kill := false
	d := &Disk{Sync: func(string) error {
		if kill {
			panic(crash("killed"))
		}
		return nil
	}}
	db := openOn(t, path, d)
	kill = true
	func() {
		defer func() { recover() }()
		_ = db.Update(func(tx *Tx) error { return tx.Put(account(1, 16, 1, "A")) })
	}()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	var durable []byte
	db = openOn(t, path, &Disk{Sync: func(synced string) (err error) {
		if synced == path {
			durable, err = os.ReadFile(path)
		}
		return err
	}})
	if got := accounts(t, db); got != "A" {
		t.Fatalf("the killed process left accounts %q", got)
	}
	image := path + ".image"
	if err := os.WriteFile(image, durable, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := accounts(t, openOn(t, image, nil)); got != "A" {
		t.Errorf("a loss of power left accounts %q of what a reader saw", got)
	}
}

// TestPowerLossOfNames loses the new name of a file that was created or
// exchanged: the old file is there, whole, or the new one.
func TestPowerLossOfNames(t *testing.T) {
	dir := onDisk(t)
	path := filepath.Join(dir, "b")
	var old map[string][]byte // the directory before the operation
	want := ""
	d := &Disk{
		Before: func(op DiskOp, _ string) error { old = files(t, dir); return nil },
		Sync: func(synced string) error {
			if synced != dir {
				return nil
			}
			for what, image := range map[string]map[string][]byte{"old": old, "new": files(t, dir)} {
				crashed := onDisk(t)
				for name, b := range image {
					if err := os.WriteFile(filepath.Join(crashed, name), b, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				db := openOn(t, filepath.Join(crashed, "b"), nil)
				checkBase(t, db)
				if got := accounts(t, db); got != want {
					t.Errorf("the %s name leads to accounts %q, want %q", what, got, want)
				}
				db.Close()
			}
			return nil
		},
	}
	db := openOn(t, path, d)
	want = "A"
	put(t, db, account(1, 16, 1, "A"))
	if err := db.Compact(); err != nil {
		t.Fatal(err)
	}
	copyFile(t, path, path+"2")
	if err := db.Replace(path + "2"); err != nil {
		t.Fatal(err)
	}
}

func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = b
	}
	return out
}
