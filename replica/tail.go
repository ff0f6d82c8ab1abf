package replica

import (
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// keepTail drops of the tail what the masters will not ask for. While the base is
// moved to their timeline it is not known what they still lack.
func (r *Replica) keepTail(j *store.JTx, w *syncproto.Welcome) error {
	p := r.position()
	if !p.isMoving() {
		return r.trimTail(j, w.Backup, w.LastSeq)
	}
	_, err := j.Redate(p.rev, undated)
	return err
}

// trimTail drops decided Mutations that a backup of the masters covers, or that
// are too old to be asked for: not above last, which restored masters lack. What
// they have backed up since is of another timeline than the Revs of those.
func (r *Replica) trimTail(j *store.JTx, backup crm.Rev, last crm.Seq) error {
	if backup > 0 {
		if _, err := j.TrimTail(last, backup); err != nil {
			return err
		}
	}
	var old crm.Seq
	before := r.cfg.Now().Add(-r.cfg.KeepTail).UnixMilli()
	for e, err := range j.Tail(0) {
		if err != nil {
			return err
		}
		if e.At >= before || e.Seq > last {
			break
		}
		old = e.Seq
	}
	_, err := j.TrimTail(old, crm.Pending)
	return err
}
