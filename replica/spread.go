package replica

import (
	"maps"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// A spread finds which pending Mutations must be decided anew after the base has
// changed, from the traces that their decisions have left.
//
// The overlay must be what folding the whole outbox over the base makes. A
// decision is a function of what it looks at, so one that is left alone is right
// if every subject that it saw is, when its turn in the order of Seq comes, as it
// was when it was made. One that is made anew is right if it sees each subject
// as the base and the Mutations before it leave it, and nothing of those after
// it, although the overlay keeps only each record's last state. That holds if
//
//  1. of a subject that the base changed, or that a settled Mutation made, all
//     who saw it are decided anew;
//  2. of a subject that a Mutation decided anew made, before or now, all who saw
//     it after that one are decided anew;
//  3. of a subject that one decided anew sees, before or now, all who made it
//     afterwards are decided anew, because their work must be out of its sight;
//  4. of a record that the base changed, or that one settled or decided anew wrote,
//     all who wrote it are decided anew: it leaves the overlay first, and they saw
//     it.
//
// By induction over Seq each decision is then that of the whole fold. To have
// seen a subject together spreads nothing, nor does having made one that neither
// has seen: who joins a set does not look at who else is in it.
//
// What a decision sees and makes now is known only once it is made. So what it
// leaves is followed again, and if that reaches further, all is done once more:
// the set grows, so it ends.
type spread struct {
	j       *store.JTx
	again   map[crm.Seq]bool            // to be decided anew
	records map[store.RecordKey]bool    // that leave the overlay first
	changed map[store.RecordKey]crm.Seq // made subject → who may have changed it first; 0: the base
	seen    map[store.RecordKey]crm.Seq // made subject → who of again looks at it first
	todo    []crm.Seq                   // in again, with traces not followed
}

func newSpread(j *store.JTx) *spread {
	return &spread{j: j, again: map[crm.Seq]bool{}, records: map[store.RecordKey]bool{}, changed: map[store.RecordKey]crm.Seq{}, seen: map[store.RecordKey]crm.Seq{}}
}

// begin follows traces of changes that no pending Mutation made. That something
// was only looked at changes nothing.
func (s *spread) begin(traces []store.RecordKey) error {
	for _, k := range traces {
		if k.Entity == 0 && !isMade(k) {
			continue
		}
		if err := s.trace(k, 0); err != nil {
			return err
		}
	}
	return s.follow()
}

// follow follows the traces of what is to be decided anew, until they lead to
// nothing more.
func (s *spread) follow() error {
	for len(s.todo) > 0 {
		seq := s.todo[len(s.todo)-1]
		s.todo = s.todo[:len(s.todo)-1]
		traces, err := s.j.Touched(seq)
		if err != nil {
			return err
		}
		if err := s.left(seq, slices.Values(traces)); err != nil {
			return err
		}
	}
	return nil
}

// left follows the traces that a Mutation decided anew has left, before or now.
func (s *spread) left(seq crm.Seq, traces func(func(store.RecordKey) bool)) error {
	for k := range traces {
		if err := s.trace(k, seq); err != nil {
			return err
		}
	}
	return nil
}

// trace follows one trace that seq has left, or the base, which is 0.
func (s *spread) trace(k store.RecordKey, seq crm.Seq) error {
	switch {
	case k.Entity != 0:
		return s.write(k)
	case isMade(k):
		return s.change(k, seq)
	default:
		return s.see(made(k.ID), seq)
	}
}

// write notes that the record leaves the overlay: rule 4.
func (s *spread) write(k store.RecordKey) error {
	if s.records[k] {
		return nil
	}
	s.records[k] = true
	return s.add(k, 0, maxSeq)
}

// change notes that the subject may have changed from seq on: rules 1 and 2.
func (s *spread) change(k store.RecordKey, seq crm.Seq) error {
	if upto := first(s.changed, k, seq); seq < upto {
		return s.add(saw(k.ID), seq, upto)
	}
	return nil
}

// see notes that seq looks at the subject: rule 3.
func (s *spread) see(k store.RecordKey, seq crm.Seq) error {
	if upto := first(s.seen, k, seq); seq < upto {
		return s.add(k, seq, upto)
	}
	return nil
}

// first notes seq if it is the first for the subject, and returns who was until
// now.
func first(of map[store.RecordKey]crm.Seq, k store.RecordKey, seq crm.Seq) crm.Seq {
	was, known := of[k]
	if !known {
		was = maxSeq
	}
	of[k] = min(was, seq)
	return was
}

// add adds the Mutations above since, up to upto, that left the trace.
func (s *spread) add(k store.RecordKey, since, upto crm.Seq) error {
	for seq, err := range s.j.PendingFor(k, since) {
		if err != nil {
			return err
		}
		if seq > upto {
			return nil
		}
		if !s.again[seq] {
			s.again[seq] = true
			s.todo = append(s.todo, seq)
		}
	}
	return nil
}

// around folds anew what the traces of changes concern and leaves the rest of
// the overlay as it is.
func (f *folder) around(traces []store.RecordKey) error {
	s := newSpread(f.j)
	if err := s.begin(traces); err != nil {
		return err
	}
	for {
		known := len(s.again)
		if err := f.foldSpread(s); err != nil || len(s.again) == known {
			return err
		}
	}
}

// foldSpread folds what the spread holds, and follows where that leads.
func (f *folder) foldSpread(s *spread) error {
	for k := range s.records {
		if err := f.j.DropOverlay(f.view.Schema(), k.Entity, k.ID); err != nil {
			return err
		}
	}
	for _, seq := range slices.Sorted(maps.Keys(s.again)) {
		if err := f.refold(seq); err != nil {
			return err
		}
		if err := s.left(seq, maps.Keys(f.view.left())); err != nil {
			return err
		}
	}
	return s.follow()
}
