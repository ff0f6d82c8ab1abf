package replica

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
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
	f := &folder{j: j, tx: tx, view: &footprint{Reader: rd, seen: map[store.RecordKey]bool{}}}
	if f.author, err = authorOf(f.view, r.cfg.ID.Site); err != nil {
		return nil, err
	}
	f.lineage, err = tx.Lineage()
	return f, err
}

// A footprint is a View that remembers what a decision looked at. Next to the
// records that a Mutation writes, the overlay depends on those: a pending
// contact lives in the territory of an account that it only read.
type footprint struct {
	*store.Reader
	seen map[store.RecordKey]bool
}

// Record notes the record, whether it is there or not.
func (f *footprint) Record(e crm.EntityID, id crm.RecordID) (*crm.Record, error) {
	f.note(readKey(id))
	return f.Reader.Record(e, id)
}

// Lookup notes the unique value, whether it is taken or not.
func (f *footprint) Lookup(e *crm.Entity, fld *crm.Field, v crm.Value) (crm.RecordID, bool, error) {
	f.note(valueKey(e.ID, fld.ID, v))
	return f.Reader.Lookup(e, fld, v)
}

func (f *footprint) note(k store.RecordKey) {
	f.seen[k] = true
}

// readKey stands for having read a record, among the keys of entity 0, which
// has no records.
func readKey(id crm.RecordID) store.RecordKey { return store.RecordKey{ID: id} }

// valueKey stands for having looked up a unique value.
func valueKey(e crm.EntityID, f crm.FieldID, v crm.Value) store.RecordKey {
	b := binary.BigEndian.AppendUint16([]byte("unique"), uint16(e))
	b = crm.AppendKey(binary.BigEndian.AppendUint16(b, uint16(f)), v)
	sum := sha256.Sum256(b)
	return store.RecordKey{ID: crm.RecordID(sum[:16])}
}

// decide judges m on base and overlay as they are.
func (f *folder) decide(m *crm.Mutation) (crm.Decision, error) {
	clear(f.view.seen)
	env := f.author.env(m.HLC)
	env.Lineage = f.lineage
	return crm.Decide(f.view, m, env)
}

// overlay keeps what the Mutation makes of the records, and which records and
// values the result depends on. It must follow decide.
func (f *folder) overlay(seq crm.Seq, dec crm.Decision) error {
	for _, rec := range dec.Writes {
		if err := f.j.PutOverlay(f.view.Schema(), rec); err != nil {
			return err
		}
		f.view.note(store.RecordKey{Entity: rec.Entity, ID: rec.ID})
		f.view.note(readKey(rec.ID))
	}
	for k := range f.view.seen {
		if err := f.j.Touch(k, seq); err != nil {
			return err
		}
	}
	return nil
}

// fold decides a pending Mutation anew. Whatever its outcome would be, what it
// would write is shown: also the note that tells why it would not stand.
func (f *folder) fold(seq crm.Seq) error {
	e, where, err := f.j.Entry(seq)
	if err != nil || where != store.InOutbox || e.Withheld {
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

// settle takes the Mutations up to seq out of the outbox, as decided at rev or
// before, and returns what their traces in the overlay concern.
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
	return f.foldAll(seqs)
}

const maxSeq = ^crm.Seq(0)

// foldAll folds the Mutations anew, in the order given.
func (f *folder) foldAll(seqs []crm.Seq) error {
	for _, seq := range seqs {
		if _, err := f.j.Untouch(seq); err != nil {
			return err
		}
		if err := f.fold(seq); err != nil {
			return err
		}
	}
	return nil
}

// around folds anew what the keys concern and leaves the rest of the overlay as
// it is: the pending Mutations that touch one of the keys, those that share a
// key with these, and so on. Each key ends up either untouched or decided by
// all its Mutations in order of Seq.
func (f *folder) around(keys []store.RecordKey) error {
	again, reached, err := f.closure(keys)
	if err != nil {
		return err
	}
	for k := range reached {
		if k.Entity == 0 {
			continue
		}
		if err := f.j.DropOverlay(f.view.Schema(), k.Entity, k.ID); err != nil {
			return err
		}
	}
	return f.foldAll(slices.Sorted(maps.Keys(again)))
}

// closure returns the pending Mutations that the keys reach, and all keys that
// those reach.
func (f *folder) closure(keys []store.RecordKey) (map[crm.Seq]bool, map[store.RecordKey]bool, error) {
	again, reached := map[crm.Seq]bool{}, map[store.RecordKey]bool{}
	for len(keys) > 0 {
		k := keys[len(keys)-1]
		keys = keys[:len(keys)-1]
		if reached[k] {
			continue
		}
		reached[k] = true
		seqs, err := f.j.PendingFor(k.Entity, k.ID)
		if err != nil {
			return nil, nil, err
		}
		for _, seq := range seqs {
			if again[seq] {
				continue
			}
			again[seq] = true
			touched, err := f.j.Touched(seq)
			if err != nil {
				return nil, nil, err
			}
			keys = append(keys, touched...)
		}
	}
	return again, reached, nil
}

// concerns appends the keys under which pending Mutations that depend on the
// record are found: itself, those that read it, its parent and root whose
// children it is among, and its unique values.
func concerns(keys []store.RecordKey, s *crm.Schema, rec *crm.Record) []store.RecordKey {
	keys = append(keys, store.RecordKey{Entity: rec.Entity, ID: rec.ID}, readKey(rec.ID))
	e := s.EntityByID(rec.Entity)
	if e == nil {
		return keys
	}
	if !rec.Root.IsZero() && rec.Root != rec.ID {
		keys = append(keys, readKey(rec.Root))
	}
	if e.Parent != "" {
		if parent := rec.Value(e.Field(e.Parent).ID).Link(); !parent.IsZero() {
			keys = append(keys, readKey(parent))
		}
	}
	for _, f := range e.Fields {
		if v := rec.Value(f.ID); f.Unique && !v.IsNull() {
			keys = append(keys, valueKey(e.ID, f.ID, v))
		}
	}
	return keys
}
