package replica

import (
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// expel notes, over restarts, that the cluster has removed this node: what it
// would acknowledge now could never be delivered. It goes on answering reads.
func (r *Replica) expel() error {
	r.cfg.Logger.Error("this node was removed from the cluster; it takes no more edits")
	return r.setExpelled([]byte{1})
}

// readmit takes the node back after a master has welcomed it again.
func (r *Replica) readmit() error {
	if !r.isExpelled() {
		return nil
	}
	return r.setExpelled(nil)
}

func (r *Replica) setExpelled(mark []byte) error {
	err := r.journal.Update(func(j *store.JTx) error { return j.SetMeta(metaExpelled, mark) })
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.expelled = mark != nil
	r.mu.Unlock()
	r.moved.fire()
	return nil
}

func (r *Replica) isExpelled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.expelled
}

var errExpelled = &crm.Error{Code: crm.CodeRemoved, Op: "serve",
	Message: "this node was removed from the cluster and takes no edits; edits that it had taken are in its outbox; join it again with a new join string, in a new directory"}
