package store

import (
	"encoding/binary"
	"fmt"
	"iter"

	"github.com/tradepost-crm/tradepost/crm"
)

// An Entry is one Mutation of this node in the journal.
//
// The journal is a queue in two parts. Append puts an entry at the end of the
// outbox; it is durable when the transaction has committed. Reading removes
// nothing. Settle moves entries from the outbox to the tail once a master has
// decided them; a repeat of Settle does nothing. Reopen moves them back, if the
// masters have lost that decision. Withhold takes the Mutation out of an
// entry of the tail, whose place in the chain stays. TrimTail drops entries of the
// tail that a backup of the masters covers. The highest Seq ever appended
// survives all of it, and no Seq is ever appended twice.
type Entry struct {
	Seq      crm.Seq
	At       int64         // when the user was told "saved here", Unix milliseconds
	Chain    crm.ChainHash // after this Mutation
	Rev      crm.Rev       // in the tail: a Rev at which it was decided already; in the outbox 0, unless it is withheld
	Bytes    []byte        // the encoded crm.Mutation, never empty; nil if it is withheld
	Withheld bool          // the Mutation may not be held here any more: it was decided once
}

// Where says in which part of the journal an entry is.
type Where uint8

// The parts.
const (
	Nowhere  Where = iota // never appended, or dropped
	InOutbox              // not known to be decided
	InTail                // decided
)

func (w Where) bucket() bucket {
	if w == InTail {
		return bucketTail
	}
	return bucketOutbox
}

const entryFixed = 8 + 16 + 8

func (e Entry) encode() []byte {
	b := make([]byte, 0, entryFixed+len(e.Bytes))
	b = binary.BigEndian.AppendUint64(b, uint64(e.At))
	b = append(b, e.Chain[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Rev))
	return append(b, e.Bytes...)
}

func decodeEntry(seq crm.Seq, b []byte) (Entry, error) {
	if len(b) < entryFixed {
		return Entry{}, errShort
	}
	return Entry{Seq: seq, At: int64(binary.BigEndian.Uint64(b)), Chain: crm.ChainHash(b[8:24]), Rev: crm.Rev(binary.BigEndian.Uint64(b[24:])),
		Bytes: append([]byte(nil), b[entryFixed:]...), Withheld: len(b) == entryFixed}, nil
}

func (tx *JTx) decodeEntry(k, v []byte) (Entry, error) {
	body, err := unseal(k, v)
	var e Entry
	if err == nil && len(k) != 8 {
		err = errShort
	}
	if err == nil {
		e, err = decodeEntry(crm.Seq(binary.BigEndian.Uint64(k)), body)
	}
	if err != nil {
		return e, tx.f.corrupt(fmt.Sprintf("mutation %x", k), err)
	}
	return e, nil
}

// HighestSeq returns the highest Seq ever appended, 0 before the first.
func (tx *JTx) HighestSeq() (crm.Seq, error) {
	n, err := tx.number(bucketSelf, "highest")
	return crm.Seq(n), err
}

// Append adds e at the end of the outbox. Its Seq must be above HighestSeq and its
// Bytes must not be empty; e.Rev is not kept.
func (tx *JTx) Append(e Entry) error {
	if len(e.Bytes) == 0 {
		return fmt.Errorf("append mutation %d: it is empty", e.Seq)
	}
	highest, err := tx.HighestSeq()
	if err != nil {
		return err
	}
	if e.Seq <= highest {
		return fmt.Errorf("append mutation %d: %d is already taken", e.Seq, highest)
	}
	e.Rev = 0
	if err := tx.putSealed(bucketOutbox, seqKey(e.Seq), e.encode()); err != nil {
		return err
	}
	if err := tx.setNumber(bucketSelf, "highest", uint64(e.Seq)); err != nil {
		return err
	}
	return tx.addDepth(1, len(e.Bytes))
}

// A Depth is how much waits in the outbox.
type Depth struct {
	Entries int
	Bytes   int   // of encoded Mutations
	Oldest  int64 // At of the first, 0 if there is none
}

// Depth returns how much waits in the outbox, without walking it.
func (tx *JTx) Depth() (Depth, error) {
	d, err := tx.depth()
	if err != nil || d.Entries == 0 {
		return d, err
	}
	e, _, err := tx.oldest()
	d.Oldest = e.At
	return d, err
}

// depth returns the counters, without Oldest.
func (tx *JTx) depth() (Depth, error) {
	v, err := tx.sealed(bucketSelf, []byte("depth"))
	if err != nil || v == nil {
		return Depth{}, err
	}
	if len(v) != 16 {
		return Depth{}, tx.f.corrupt("depth", errShort)
	}
	return Depth{Entries: int(binary.BigEndian.Uint64(v)), Bytes: int(binary.BigEndian.Uint64(v[8:]))}, nil
}

func (tx *JTx) addDepth(entries, size int) error {
	d, err := tx.depth()
	if err != nil {
		return err
	}
	v := binary.BigEndian.AppendUint64(nil, uint64(d.Entries+entries))
	return tx.putSealed(bucketSelf, []byte("depth"), binary.BigEndian.AppendUint64(v, uint64(d.Bytes+size)))
}

// Outbox yields the entries of the outbox above since, by Seq. The transaction
// must not be written meanwhile.
func (tx *JTx) Outbox(since crm.Seq) iter.Seq2[Entry, error] {
	return tx.entries(bucketOutbox, since)
}

// Tail yields the entries of the tail above since, by Seq. The transaction must
// not be written meanwhile.
func (tx *JTx) Tail(since crm.Seq) iter.Seq2[Entry, error] { return tx.entries(bucketTail, since) }

func (tx *JTx) entries(b bucket, since crm.Seq) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		c := tx.top(b).Cursor()
		for k, v := c.Seek(seqKey(since + 1)); k != nil; k, v = c.Next() {
			e, err := tx.decodeEntry(k, v)
			if !yield(e, err) || err != nil {
				return
			}
		}
	}
}

// Entry returns the entry of that Seq and where it is; Nowhere and the zero
// Entry if the journal does not have it.
func (tx *JTx) Entry(seq crm.Seq) (Entry, Where, error) {
	k := seqKey(seq)
	for _, w := range []Where{InOutbox, InTail} {
		if v := tx.get(w.bucket(), k); v != nil {
			e, err := tx.decodeEntry(k, v)
			return e, w, err
		}
	}
	return Entry{}, Nowhere, nil
}

// Settle moves all entries up to seq from the outbox to the tail, as decided at
// rev or before, and returns how many.
func (tx *JTx) Settle(seq crm.Seq, rev crm.Rev) (int, error) {
	n, size := 0, 0
	for {
		e, ok, err := tx.oldest()
		if err != nil {
			return n, err
		}
		if !ok || e.Seq > seq {
			break
		}
		if err := tx.settle(e, rev); err != nil {
			return n, err
		}
		n, size = n+1, size+len(e.Bytes)
	}
	if n == 0 {
		return 0, nil
	}
	return n, tx.addDepth(-n, -size)
}

func (tx *JTx) oldest() (Entry, bool, error) {
	for e, err := range tx.Outbox(0) {
		return e, err == nil, err
	}
	return Entry{}, false, nil
}

func (tx *JTx) settle(e Entry, rev crm.Rev) error {
	if err := tx.delete(bucketOutbox, seqKey(e.Seq)); err != nil {
		return err
	}
	return tx.settleAt(e, rev)
}

func (tx *JTx) settleAt(e Entry, rev crm.Rev) error {
	e.Rev = rev
	return tx.putSealed(bucketTail, seqKey(e.Seq), e.encode())
}

// Withhold takes the Mutation out of an entry of the tail, because this node may
// not hold it any more; Seq, At, Chain and Rev stay, so that the numbers around
// it can still be proven. It reports whether the entry is there; a repeat does
// nothing. [Journal.Compact] then takes the bytes out of the file.
func (tx *JTx) Withhold(seq crm.Seq) (bool, error) {
	e, where, err := tx.Entry(seq)
	if err != nil || where != InTail {
		return false, err
	}
	e.Bytes = nil
	return true, tx.putSealed(bucketTail, seqKey(seq), e.encode())
}

// Reopen moves all entries above seq from the tail back to the outbox, also those
// that are withheld: they are not decided after all. It returns how many.
func (tx *JTx) Reopen(seq crm.Seq) (int, error) {
	var again []Entry
	size := 0
	for e, err := range tx.Tail(seq) {
		if err != nil {
			return 0, err
		}
		again, size = append(again, e), size+len(e.Bytes)
	}
	for _, e := range again {
		if err := tx.DropTail(e.Seq); err != nil {
			return 0, err
		}
		if !e.Withheld { // its Rev tells that it was decided once, and is not lost
			e.Rev = 0
		}
		if err := tx.putSealed(bucketOutbox, seqKey(e.Seq), e.encode()); err != nil {
			return 0, err
		}
	}
	if len(again) == 0 {
		return 0, nil
	}
	return len(again), tx.addDepth(len(again), size)
}

// Redate says of all entries of the tail that were decided above a Rev that they
// were decided at another one, and returns how many.
func (tx *JTx) Redate(above, to crm.Rev) (int, error) {
	var again []Entry
	for e, err := range tx.Tail(0) {
		if err != nil {
			return 0, err
		}
		if e.Rev > above && e.Rev != to {
			again = append(again, e)
		}
	}
	for _, e := range again {
		if err := tx.settleAt(e, to); err != nil {
			return 0, err
		}
	}
	return len(again), nil
}

// TrimTail drops the entries of the tail up to last that were decided at upTo or
// before and returns how many.
func (tx *JTx) TrimTail(last crm.Seq, upTo crm.Rev) (int, error) {
	var covered []crm.Seq
	for e, err := range tx.Tail(0) {
		if err != nil {
			return 0, err
		}
		if e.Seq > last {
			break
		}
		if e.Rev <= upTo {
			covered = append(covered, e.Seq)
		}
	}
	for i, seq := range covered {
		if err := tx.DropTail(seq); err != nil {
			return i, err
		}
	}
	return len(covered), nil
}

// DropTail drops one entry of the tail, if it is there.
func (tx *JTx) DropTail(seq crm.Seq) error { return tx.delete(bucketTail, seqKey(seq)) }
