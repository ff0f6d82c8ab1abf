package replica

import (
	"fmt"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// A folder folds pending Mutations over the base into the overlay, in one
// journal transaction. It runs the function that the master decides with.
type folder struct {
	j       *store.JTx
	tx      *store.Tx
	view    *footprint
	author  author
	lineage crm.Lineage // of the base
}

func (r *Replica) newFolder(j *store.JTx, tx *store.Tx) (*folder, error) {
	rd, err := store.NewReader(tx, j)
	if err != nil {
		return nil, err
	}
	f := &folder{j: j, tx: tx, view: newFootprint(rd)}
	if f.author, err = authorOf(f.view, r.cfg.ID.Site); err != nil {
		return nil, err
	}
	f.lineage, err = tx.Lineage()
	return f, err
}

// decide judges m on base and overlay as they are.
func (f *folder) decide(m *crm.Mutation) (crm.Decision, error) {
	f.view.forget()
	env := f.author.env(m.HLC)
	env.Lineage = f.lineage
	return crm.Decide(f.view, m, env)
}

// overlay keeps what the Mutation makes of the records, and the traces of the
// decision. It must follow decide.
func (f *folder) overlay(seq crm.Seq, dec crm.Decision) error {
	for _, rec := range dec.Writes {
		if err := f.j.PutOverlay(f.view.Schema(), rec); err != nil {
			return err
		}
		f.view.wrote(rec)
	}
	return f.j.Retouch(seq, f.view.left())
}

// settle takes the Mutations up to seq out of the outbox, as decided at rev or
// before, and returns their traces.
func (f *folder) settle(seq crm.Seq, rev crm.Rev) ([]store.RecordKey, error) {
	var keys []store.RecordKey
	settled, err := f.pending(seq)
	if err != nil {
		return nil, err
	}
	for _, s := range settled {
		touched, err := f.j.Untouch(s)
		if err != nil {
			return nil, err
		}
		keys = append(keys, touched...)
	}
	_, err = f.j.Settle(seq, rev)
	return keys, err
}

// pending returns the numbers in the outbox up to last.
func (f *folder) pending(last crm.Seq) (out []crm.Seq, err error) {
	for e, err := range f.j.Outbox(0) {
		if err != nil || e.Seq > last {
			return out, err
		}
		out = append(out, e.Seq)
	}
	return out, nil
}

// all folds the whole outbox anew.
func (f *folder) all() error {
	for _, k := range slices.Collect(f.j.Overlaid()) {
		if err := f.j.DropOverlay(f.view.Schema(), k.Entity, k.ID); err != nil {
			return err
		}
	}
	seqs, err := f.pending(maxSeq)
	if err != nil {
		return err
	}
	for _, seq := range seqs {
		if err := f.refold(seq); err != nil {
			return err
		}
	}
	return nil
}

const maxSeq = ^crm.Seq(0)

// refold decides a pending Mutation anew. Whatever its outcome would be, what it
// would write is shown: also the note that tells why it would not stand.
func (f *folder) refold(seq crm.Seq) error {
	e, where, err := f.j.Entry(seq)
	if err != nil {
		return err
	}
	if where != store.InOutbox || e.Withheld {
		_, err := f.j.Untouch(seq)
		return err
	}
	m, err := crm.DecodeMutation(e.Bytes)
	if err != nil {
		return fmt.Errorf("outbox entry %d: %w", seq, err)
	}
	dec, err := f.decide(m)
	if err != nil {
		return err
	}
	return f.overlay(seq, dec)
}
