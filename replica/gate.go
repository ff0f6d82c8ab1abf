package replica

import (
	"errors"
	"sync"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// A gate keeps out who would read both files while only one of them has been
// written. That matters once: a base that goes over to another timeline loses
// edits, which the journal makes pending again a moment later. In between they
// would be in neither file, and a reader would see time go backwards.
type gate struct {
	opening sync.RWMutex // read-held while the transactions of both files are opened
	files   sync.Mutex   // held while a file is exchanged, which waits for transactions and holds new ones back
}

// both calls fn with a transaction of each file, the journal's opened first.
func (r *Replica) both(fn func(*store.JTx, *store.Tx) error) error {
	done := r.gate.open()
	defer done()
	return r.journal.View(func(j *store.JTx) error {
		return r.base.View(func(tx *store.Tx) error {
			done()
			return fn(j, tx)
		})
	})
}

// open lets the caller open transactions of both files until it calls done, which
// it may do more than once.
func (g *gate) open() (done func()) {
	g.opening.RLock()
	return sync.OnceFunc(g.opening.RUnlock)
}

// turn does the work of first in one transaction of the base, and then that of
// second. From the end of first on nobody begins to read until second has
// returned. That a disk did not confirm the first does not keep the second from
// being done: readers see the first already.
func (r *Replica) turn(first func(*store.Tx) error, second func() error) error {
	r.gate.files.Lock()
	defer r.gate.files.Unlock()
	shut := false
	defer func() {
		if shut {
			r.gate.opening.Unlock()
		}
	}()
	err := r.base.Update(func(tx *store.Tx) error {
		if err := first(tx); err != nil {
			return err
		}
		r.gate.opening.Lock()
		shut = true
		return nil
	})
	if err != nil && crm.CodeOf(err) != crm.CodeUnsynced {
		return err
	}
	return errors.Join(err, second())
}
