package sim

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tradepost-crm/tradepost/store"
)

// A powerCut is the panic of an operation in which the power fails, or the
// process is killed.
type powerCut struct {
	why  string
	kill bool // only the process dies; what it had written stays
}

// How a node dies in an operation of its disk.
const (
	dieBefore = "before" // nothing of the operation is on the disk
	dieTorn   = "torn"   // what was not synced is, in part
	dieAfter  = "after"  // all of it is, and nobody was told
	dieKilled = "killed" // the process dies with all written and nothing synced: the disk has all of it
)

// An ambush is a death to come: in the operation on a file after skip others.
type ambush struct {
	skip int
	file string // journal.db; "" for any
	how  string

	here   bool   // the operation has begun
	path   string // of the file concerned
	synced []byte // its bytes before
	image  []byte // what it holds after; nil: what it holds
	gone   bool   // it is not there after
}

// A disk stands between a node's files and the file system, which loses nothing:
// all that may be lost is lost here.
type disk struct {
	n      *node
	rand   *rand.Rand
	dead   bool   // the power has failed: nothing more happens until it is back
	full   bool   // no room for anything
	fails  string // the file whose next sync fails: journal.db; "": none does
	broken bool   // one has failed: the file takes no more writes until it is opened again
	stall  time.Duration
	ambush *ambush
	ops    int // commits and exchanges so far
}

func (d *disk) hooks() *store.Disk {
	return &store.Disk{Before: d.before, Sync: d.sync, After: d.after}
}

func (d *disk) before(op store.DiskOp, path string) error {
	if d.dead {
		return syscall.EIO
	}
	if d.full {
		return syscall.ENOSPC
	}
	d.ops++
	if d.stall > 0 {
		d.n.busy, d.stall = d.n.w.agenda.now+d.stall, 0
	}
	a := d.ambush
	if a == nil || a.here || a.file != "" && a.file != filepath.Base(path) {
		return nil
	}
	if a.skip > 0 {
		a.skip--
		return nil
	}
	a.here, a.path = true, path
	switch a.how {
	case dieBefore:
		d.die(fmt.Sprintf("a loss of power before a %s of %s", op, filepath.Base(path)), false)
	case dieTorn:
		var err error
		if a.synced, err = os.ReadFile(path); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}

// sync stands for fsync: what is there is durable.
func (d *disk) sync(path string) error {
	if !d.dead && d.fails != "" && d.fails == filepath.Base(path) {
		d.fails, d.broken = "", true
		d.n.note("has a sync of %s fail", filepath.Base(path))
		return syscall.EIO
	}
	a := d.ambush
	if d.dead || a == nil || !a.here {
		return nil
	}
	what := "the sync of " + filepath.Base(path)
	switch {
	case a.how == dieKilled:
		d.die("a kill before "+what, true)
	case a.how != dieTorn:
	case path == a.path:
		written, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		a.image = crash(a.synced, written, os.Getpagesize(), d.rand).Bytes
		d.die("a loss of power at "+what, false)
	case d.rand.IntN(3) > 0:
		if path == filepath.Dir(a.path) && d.rand.IntN(2) == 0 {
			a.image, a.gone = a.synced, a.synced == nil
		}
		d.die("a loss of power at "+what, false)
	}
	return nil
}

func (d *disk) after(op store.DiskOp, path string) {
	if a := d.ambush; a != nil && a.here && !d.dead {
		d.die(fmt.Sprintf("a loss of power after a %s of %s", op, filepath.Base(path)), false)
	}
}

// die ends the process where it stands.
func (d *disk) die(why string, kill bool) {
	d.dead = true
	panic(powerCut{why, kill})
}

// restore puts on the disk what the power cut has left, once the files are
// closed, and takes the disk up again.
func (d *disk) restore() error {
	a := d.ambush
	d.dead, d.stall, d.ambush, d.fails, d.broken = false, 0, nil, "", false
	switch {
	case a == nil || !a.here:
		return nil
	case a.gone:
		return os.Remove(a.path)
	case a.image != nil:
		return os.WriteFile(a.path, a.image, 0o600)
	}
	return nil
}
