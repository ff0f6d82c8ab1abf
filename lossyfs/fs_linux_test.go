package lossyfs

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

var cuts = flag.Int("cuts", 8, "how often to cut the power below bbolt and the raft log")

// mount skips a test where nothing can be mounted.
func mount(t *testing.T, cfg Config) (*FS, string) {
	t.Helper()
	dir := t.TempDir()
	f, err := Mount(context.WithoutCancel(t.Context()), dir, cfg) // files are closed before it
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(func() { must(t, f.Close()) })
	return f, dir
}

// create writes a file of the mount without syncing it.
func create(t *testing.T, path, text string) *os.File {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	_, err = f.WriteString(text)
	must(t, err)
	return f
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	if b, err := os.ReadFile(path); err != nil || string(b) != want {
		t.Errorf("%s holds %q (%v), want %q", filepath.Base(path), b, err, want)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

func TestFS_PowerCut(t *testing.T) {
	f, dir := mount(t, Config{})
	a := create(t, dir+"/a", "synced")
	must(t, a.Sync())
	_, err := a.WriteString(", and more")
	must(t, err)
	create(t, dir+"/b", "never synced")
	must(t, syncDir(dir))
	lost := create(t, dir+"/c", "nameless")
	must(t, lost.Sync())
	wantFile(t, dir+"/a", "synced, and more")

	f.PowerCut()
	_, err = a.WriteString("x")
	wantErr(t, err, syscall.EIO)
	wantErr(t, a.Sync(), syscall.EIO)
	wantFile(t, dir+"/a", "synced")
	wantFile(t, dir+"/b", "")
	_, err = os.Stat(dir + "/c")
	wantErr(t, err, fs.ErrNotExist)

	again, err := os.OpenFile(dir+"/a", os.O_RDWR|os.O_APPEND, 0)
	must(t, err)
	defer again.Close()
	_, err = again.WriteString(" again")
	must(t, err)
	must(t, again.Sync())
	f.PowerCut()
	wantFile(t, dir+"/a", "synced again")
}

func TestFS_Journal(t *testing.T) {
	f, dir := mount(t, Config{Journal: true})
	must(t, os.Mkdir(dir+"/d", 0o700))
	must(t, create(t, dir+"/d/a", "all names go with it").Sync())
	f.PowerCut()
	wantFile(t, dir+"/d/a", "all names go with it")
}

func TestFS_Names(t *testing.T) {
	f, dir := mount(t, Config{})
	must(t, create(t, dir+"/a", "a").Sync())
	must(t, create(t, dir+"/b", "b").Sync())
	must(t, os.MkdirAll(dir+"/d/e", 0o755))
	wantErr(t, os.Remove(dir+"/d"), syscall.ENOTEMPTY)
	must(t, os.Rename(dir+"/a", dir+"/b"))
	must(t, os.Link(dir+"/b", dir+"/d/l"))
	must(t, syncDir(dir))
	must(t, syncDir(dir+"/d"))
	must(t, os.Remove(dir+"/b"))
	must(t, os.Remove(dir+"/d/e"))
	f.PowerCut()
	wantFile(t, dir+"/b", "a")
	wantFile(t, dir+"/d/l", "a")
	entries, err := os.ReadDir(dir + "/d")
	must(t, err)
	if len(entries) != 2 || !entries[0].IsDir() {
		t.Errorf("d holds %v", entries)
	}
	_, err = os.Stat(dir + "/a")
	wantErr(t, err, fs.ErrNotExist)
}

func TestFS_Faults(t *testing.T) {
	f, dir := mount(t, Config{})
	a, b := create(t, dir+"/a.db", "a"), create(t, dir+"/b.log", "b")
	write := func(file *os.File, text string, want error) {
		t.Helper()
		if _, err := file.WriteString(text); !errors.Is(err, want) {
			t.Errorf("writing %d bytes to %s: got %v, want %v", len(text), filepath.Base(file.Name()), err, want)
		}
	}
	must(t, f.Spoil(Faults{Full: true, Room: 2 * pageSize}))
	write(a, strings.Repeat("x", pageSize), nil)
	write(a, strings.Repeat("x", 3*pageSize), syscall.ENOSPC)
	_, err := os.Create(dir + "/c")
	wantErr(t, err, syscall.ENOSPC)
	must(t, f.Spoil(Faults{Files: []FileFault{{Match: "*.db", Write: true, Sync: true}}}))
	write(a, "x", syscall.EIO)
	write(b, "x", nil)
	wantErr(t, a.Sync(), syscall.EIO)
	must(t, b.Sync())
	must(t, f.Spoil(Faults{Files: []FileFault{{Sync: true, Times: 1}}}))
	wantErr(t, a.Sync(), syscall.EIO)
	must(t, a.Sync())
	must(t, f.Spoil(Faults{Files: []FileFault{{Sync: true, Spare: 1, Times: 1}}}))
	must(t, b.Sync())
	wantErr(t, b.Sync(), syscall.EIO)
	must(t, b.Sync())
	must(t, syncDir(dir))
	f.PowerCut()
	if got, err := os.ReadFile(dir + "/a.db"); err != nil || strings.Contains(string(got), "x") {
		t.Errorf("what a failed fsync lost is there: %d bytes (%v)", len(got), err)
	}
	wantFile(t, dir+"/b.log", "bx")
	for want, bad := range map[string]Faults{"no pattern": {Files: []FileFault{{Match: "["}}}, "room": {Room: -1}, "negative": {Files: []FileFault{{Stall: -1}}}, "spare": {Files: []FileFault{{Spare: -1}}}} {
		if err := f.Spoil(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v", bad, err)
		}
	}
	if c := f.Counts(); c.Failed != 4 || c.Cuts != 1 {
		t.Errorf("counted %+v", c)
	}
}

func TestFS_ReadFails(t *testing.T) {
	f, dir := mount(t, Config{})
	must(t, f.Spoil(Faults{Files: []FileFault{{Match: "d/a", Read: true}}}))
	must(t, os.Mkdir(dir+"/d", 0o700))
	must(t, create(t, dir+"/d/a", "x").Sync())
	must(t, syncDir(dir+"/d"))
	must(t, syncDir(dir))
	f.PowerCut() // empties the cache too
	_, err := os.ReadFile(dir + "/d/a")
	wantErr(t, err, syscall.EIO)
	must(t, f.Spoil(Faults{}))
	wantFile(t, dir+"/d/a", "x")
}

// TestFS_Lie: an fsync that only says so.
func TestFS_Lie(t *testing.T) {
	f, dir := mount(t, Config{})
	a := create(t, dir+"/a", "true")
	must(t, a.Sync())
	must(t, syncDir(dir))
	must(t, f.Spoil(Faults{Files: []FileFault{{Lie: true}}}))
	_, err := a.WriteString(", false")
	must(t, err)
	must(t, a.Sync())
	f.PowerCut()
	wantFile(t, dir+"/a", "true")
}

// TestFS_Stall: an fsync stalls until the faults are lifted, and is done then; a
// cut fails it.
func TestFS_Stall(t *testing.T) {
	f, dir := mount(t, Config{})
	a := create(t, dir+"/a", "a")
	must(t, syncDir(dir))
	synced := func() chan error {
		must(t, f.Spoil(Faults{Files: []FileFault{{Match: "a", Stall: time.Hour}}}))
		done := make(chan error)
		go func() { done <- a.Sync() }()
		return done
	}
	done := synced()
	select {
	case err := <-done:
		t.Fatalf("an fsync did not stall: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	must(t, f.Spoil(Faults{}))
	must(t, <-done)
	_, err := a.WriteString("b")
	must(t, err)
	done = synced()
	f.PowerCut()
	wantErr(t, <-done, syscall.EIO)
	wantFile(t, dir+"/a", "a")

	must(t, f.Spoil(Faults{Files: []FileFault{{Stall: 20 * time.Millisecond}}}))
	start := time.Now()
	must(t, create(t, dir+"/c", "c").Sync())
	if took := time.Since(start); took < 20*time.Millisecond {
		t.Errorf("the fsync took %v", took)
	}
}

func TestFS_Flip(t *testing.T) {
	f, dir := mount(t, Config{})
	must(t, os.Mkdir(dir+"/d", 0o700))
	must(t, create(t, dir+"/d/a", "abc").Sync())
	wantFile(t, dir+"/d/a", "abc")
	must(t, f.Flip("d/a", 1, 0))
	wantFile(t, dir+"/d/a", "acc")
	wantErr(t, f.Flip("d/b", 0, 0), fs.ErrNotExist)
	wantErr(t, f.Flip("d/a", 3, 0), fs.ErrInvalid)
	wantErr(t, f.Flip("d", 0, 0), fs.ErrInvalid)
}

// TestFS_CloseNamesTheCause: a file system in use is not unmounted silently.
func TestFS_CloseNamesTheCause(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f, err := Mount(ctx, dir, Config{})
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	must(t, err)
	a := create(t, dir+"/a", "")
	cancel()
	if err := f.Close(); err == nil || !strings.Contains(err.Error(), "end the processes") {
		t.Errorf("got %v", err)
	}
	must(t, a.Close())
}

// TestPowerCut_Bolt: what bbolt committed is there after every cut, plain or
// torn, and its pages are sound.
func TestPowerCut_Bolt(t *testing.T) { cutBelow(t, "bbolt", "bbolt last") }

// TestPowerCut_RaftLog is the same for the log that masters write, within one of
// its segments: what a cut between two segments does is package master's affair.
func TestPowerCut_RaftLog(t *testing.T) { cutBelow(t, "wal", "wal last") }

func cutBelow(t *testing.T, what, last string) {
	f, dir := mount(t, Config{})
	committed := 0
	for n := range *cuts {
		c := startChild(t, what, dir)
		c.await(committed + 20 + 7*n)
		if n%2 == 0 {
			f.PowerCut()
		} else {
			f.TornPowerCut(uint64(n))
		}
		if c.end() == nil {
			t.Fatalf("cut %d: the writer ended without an error", n)
		}
		got := lastCommitted(t, last, dir)
		if got < c.last || got > c.last+1 { // the one under way may be there
			t.Fatalf("cut %d: %d committed, %d there", n, c.last, got)
		}
		committed = got
	}
	t.Logf("%d cuts, %d commits, none lost; %+v", *cuts, committed, f.Counts())
}

// TestPowerCut_CatchesAMissingSync: bbolt without fsync loses what it said it had
// committed, so this file system can fail a test.
func TestPowerCut_CatchesAMissingSync(t *testing.T) {
	f, dir := mount(t, Config{})
	c := startChild(t, "bbolt", dir)
	c.await(20)
	f.PowerCut()
	_ = c.end() // EIO, as above
	durable := lastCommitted(t, "bbolt last", dir)
	c = startChild(t, "bbolt unsynced", dir)
	c.await(durable + 100)
	f.PowerCut()
	_ = c.end()
	if got := lastCommitted(t, "bbolt last", dir); got != durable || c.last < durable+100 {
		t.Errorf("%d committed without fsync, and %d there after a cut, want only the %d synced before", c.last, got, durable)
	}
}
