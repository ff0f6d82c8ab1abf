package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// Names of the blobs in the base file.
const (
	metaDecided = "replica/decided" // own Mutations up to this Seq are decided: 8 bytes
	metaStaged  = "replica/staged"  // how far a catch-up has come, and where it leads: 16 bytes
	metaWhole   = "replica/whole"   // the territories that come whole in it: 4 bytes each
	metaBuckets = "replica/buckets" // the buckets that come whole in it: territory:4 and 32 bytes each
	metaSuspect = "replica/suspect" // what is not the masters': see suspicion
	metaPurge   = "replica/purge"   // JSON: the purges that are not proven yet
	metaCompact = "replica/compact" // present: purged bytes may be in free pages
)

// Names of the blobs in the journal file.
const (
	metaContact  = "replica/contact"  // present: a master has accepted this journal since it was opened
	metaOpened   = "replica/opened"   // NextSeq at the first Open since then: 8 bytes
	metaProven   = "replica/proven"   // JSON: Rev of the last proven purge of a territory
	metaSettled  = "replica/settled"  // which Mutations were decided by when: see settled
	metaCompactJ = "replica/compact"  // present: purged bytes may be in free pages
	metaExpelled = "replica/expelled" // present: the cluster has removed this node
)

// recover brings journal and base together after a crash and reads the
// position.
func (r *Replica) recover() error {
	var p position
	err := r.journal.Update(func(j *store.JTx) error {
		return r.base.View(func(tx *store.Tx) (err error) {
			if p, err = readPosition(tx); err != nil {
				return err
			}
			id, err := r.identify(j, p)
			if err != nil {
				return err
			}
			p.last = id.NextSeq - 1
			mark, err := j.Meta(metaExpelled)
			if err != nil {
				return err
			}
			r.expelled = len(mark) > 0
			r.clock.Restore(id.HLC)
			if p.rev == 0 {
				return markTail(j)
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	r.pos = p
	refold, err := r.refold()
	if err := r.tolerate(err); err != nil {
		return err
	}
	if err := r.readSuspicions(); err != nil {
		return err
	}
	if p.rev == 0 {
		r.cfg.Logger.Info("the base is empty; it is filled when a master answers", "dir", r.cfg.Dir)
	}
	r.cfg.Logger.Info("replica opened", "site", r.cfg.ID.Site, "node", r.cfg.ID.Node, "cursor", p.rev, "refolded", refold)
	nudge(r.dirty)
	return r.readOutbox()
}

// reconcile repairs what an error between the base's transaction and the
// journal's, or in the latter, has left, as recover does after a crash.
func (r *Replica) reconcile() error {
	shown := r.position()
	var p position
	err := r.base.View(func(tx *store.Tx) (err error) {
		p, err = readPosition(tx)
		return err
	})
	if err != nil || p.rev == shown.rev && p.decided == shown.decided && p.isMoving() == shown.isMoving() && !r.isUnfolded() {
		return err
	}
	_, err = r.refold()
	if err := r.tolerate(err); err != nil {
		return err
	}
	r.advance(func(q *position) {
		if p.last = q.last; p.timeline != q.timeline || p.rev > q.rev || p.isMoving() != q.isMoving() {
			*q = p
		}
	})
	return r.tolerate(r.measureOutbox())
}

func readPosition(tx *store.Tx) (p position, err error) {
	if p.timeline, err = tx.Timeline(); err != nil {
		return p, err
	}
	if p.rev, err = tx.Rev(); err != nil {
		return p, err
	}
	decided, err := number(tx, metaDecided)
	if err != nil {
		return p, err
	}
	p.decided = crm.Seq(decided)
	v, err := tx.Meta(metaStaged)
	if len(v) == 16 {
		p.staged, p.target = crm.Rev(binary.BigEndian.Uint64(v)), crm.Rev(binary.BigEndian.Uint64(v[8:]))
	}
	if err != nil {
		return p, err
	}
	next, moving, err := moveIn(tx)
	if err != nil || !moving {
		return p, err
	}
	return p, p.moved(tx, next)
}

// identify reads who the journal is, and makes a new journal this node's. A
// journal of another node is refused. One whose next number is decided already
// is an old copy: it goes on above and must be admitted again.
func (r *Replica) identify(j *store.JTx, p position) (store.Identity, error) {
	id, err := j.Identity()
	if err != nil {
		return id, err
	}
	if id.NextSeq == 0 {
		id = store.Identity{Cluster: r.cfg.ID.Cluster, Site: r.cfg.ID.Site, Node: r.cfg.ID.Node, NextSeq: 1}
	}
	if id.Cluster != r.cfg.ID.Cluster || id.Node != r.cfg.ID.Node {
		return id, &crm.Error{Code: crm.CodeFormat, Op: "read journal", Item: r.journal.Path(),
			Message: fmt.Sprintf("it belongs to node %d of cluster %q, not to node %d of %q; give the directory of this node", id.Node, id.Cluster, r.cfg.ID.Node, r.cfg.ID.Cluster)}
	}
	id.Site = r.cfg.ID.Site
	if id.NextSeq <= p.decided {
		r.cfg.Logger.Error("the journal is older than the base: this disk was rolled back", "next_seq", id.NextSeq, "decided", p.decided)
		id.NextSeq, id.Incarnation, id.Chain = p.decided+1, 0, crm.ChainHash{}
	}
	r.rolledBack = id.NextSeq > 1 && id.Chain == crm.ChainHash{}
	if err := j.SetIdentity(id); err != nil {
		return id, err
	}
	return id, markOpened(j, id.NextSeq)
}

// markOpened remembers which Mutations this disk made since a master last
// accepted it: if the disk turns out to be an old copy, these are the new ones.
func markOpened(j *store.JTx, next crm.Seq) error {
	contact, err := j.Meta(metaContact)
	if err != nil {
		return err
	}
	opened, err := j.Meta(metaOpened)
	if err != nil || contact == nil && opened != nil {
		return err
	}
	if err := setNumber(j, metaOpened, uint64(next)); err != nil || contact == nil {
		return err
	}
	return j.SetMeta(metaContact, nil)
}

// refold settles what the base says is decided, makes pending again what it says
// is not, and folds the overlay anew. It reports whether there was anything to do.
func (r *Replica) refold() (bool, error) {
	err := r.folding(func(bool) error {
		return r.journal.Update(func(j *store.JTx) error {
			return r.base.View(func(tx *store.Tx) error { return r.refoldIn(j, tx) })
		})
	})
	if errors.Is(err, errNothing) {
		return false, nil
	}
	return err == nil, err
}

// refoldIn does the work of both transactions, errNothing if there is none. Where
// the base stands is read in them: another batch may have been settled since
// anybody looked.
func (r *Replica) refoldIn(j *store.JTx, tx *store.Tx) error {
	p, err := readPosition(tx)
	if err != nil {
		return err
	}
	if p.rev == 0 {
		return errNothing
	}
	reopened := false
	if !p.isMoving() {
		if reopened, err = reopen(j, p.decided, p.rev); err != nil {
			return err
		}
	}
	d, err := j.Depth()
	if err != nil {
		return err
	}
	if !reopened && d.Entries == 0 && !j.HasOverlay() {
		return errNothing
	}
	f, err := r.newFolder(j, tx)
	if err != nil {
		return err
	}
	settled, err := f.pending(p.decided)
	if err != nil {
		return err
	}
	if _, err := f.settle(p.decided, p.rev); err != nil {
		return err
	}
	if err := r.withholdForbidden(j, tx, settled); err != nil {
		return err
	}
	return f.all()
}

// A blobs is either file's transaction.
type blobs interface {
	Meta(string) ([]byte, error)
	SetMeta(string, []byte) error
}

// number returns the number kept under the name, 0 if there is none.
func number(b blobs, name string) (uint64, error) {
	v, err := b.Meta(name)
	if err != nil || len(v) != 8 {
		return 0, err
	}
	return binary.BigEndian.Uint64(v), nil
}

func setNumber(b blobs, name string, n uint64) error {
	return b.SetMeta(name, binary.BigEndian.AppendUint64(nil, n))
}
