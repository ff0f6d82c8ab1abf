package processtest

import (
	"crypto/sha256"
	"fmt"
	"slices"
)

// A Mark is what a contact shows of the edits made to it.
type Mark struct {
	Sum  int64 // its counter: the weights of the edits
	Last int64 // its field: the number of the last one, 0 before the first
}

// A Tally proves that each of one clerk's acknowledged edits took effect once.
// It keeps a Mark for each of the clerk's contacts, however many edits there are.
//
// Edit n, counted from 1, adds Weight(Clerk, n) to the counter of a contact and
// writes n into a field of it; the contacts take turns. A clerk makes one edit at
// a time and none before the fate of the one before is known, so what any node
// must show is determined: the sum of the weights of 1 to Done, and the last
// numbers. The sum of random weights is a fingerprint of a multiset (Clarke et
// al., "Incremental Multiset Hash Functions", Asiacrypt 2003, MSet-Add): edits
// that are lost or doubled change it, also where one is lost and one doubled,
// unless their weights cancel out: one chance in 2⁴⁰ for edits that were not
// chosen by looking at the weights.
//
// Every noteEvery-th edit also makes a record of its own, named after it, so
// that a mutation that took effect in part shows too.
//
// A Tally sees only the states that it is shown. What it cannot see: an edit
// that was lost, or applied twice, and mended before the next look; an edit that
// was never acknowledged and never seen, which may take effect or not; and other
// fields than those that it reads.
type Tally struct {
	Clerk string
	Done  int64  // edits 1 to Done took effect
	marks []Mark // of the contacts, as they must be
}

// noteEvery is how many edits share one record of their own.
const noteEvery = 50

// NewTally returns the Tally of a clerk who has made no edits yet.
func NewTally(clerk string, contacts int) *Tally {
	return &Tally{Clerk: clerk, marks: make([]Mark, contacts)}
}

// Weight is what edit n of the clerk adds: 1 to 2⁴⁰, by SHA-256.
func Weight(clerk string, n int64) int64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", clerk, n))
	w := int64(0)
	for _, b := range sum[:5] {
		w = w<<8 | int64(b)
	}
	return w + 1
}

// NoteKey names the record that edit n makes; made is false if it makes none.
func NoteKey(clerk string, n int64) (key string, made bool) {
	return fmt.Sprintf("%s-%d", clerk, n), n%noteEvery == 0
}

// Contact returns which of the contacts edit n concerns.
func (t *Tally) Contact(n int64) int { return int((n - 1) % int64(len(t.marks))) }

// Next returns the number of the edit to make next, and its weight.
func (t *Tally) Next() (n, weight int64) { return t.Done + 1, Weight(t.Clerk, t.Done+1) }

// Took notes that the next edit took effect.
func (t *Tally) Took() {
	n, weight := t.Next()
	m := &t.marks[t.Contact(n)]
	*m = Mark{m.Sum + weight, n}
	t.Done = n
}

// Shows reports whether the marks, one a contact, hold the next edit.
func (t *Tally) Shows(got []Mark) bool {
	n, weight := t.Next()
	i := t.Contact(n)
	return got[i] == Mark{t.marks[i].Sum + weight, n}
}

// Judge says what is wrong with the marks of all contacts; nothing, if every
// edit up to Done took effect once.
func (t *Tally) Judge(got []Mark) (wrong []string) {
	for i := range t.marks {
		if text := t.JudgeOne(i, got[i]); text != "" {
			wrong = append(wrong, text)
		}
	}
	return wrong
}

// JudgeOne is Judge of one contact.
func (t *Tally) JudgeOne(contact int, got Mark) string {
	want := t.marks[contact]
	if got == want {
		return ""
	}
	return fmt.Sprintf("%s: contact %d shows sum %d, last edit %d, not %d, %d: %s", t.Clerk, contact, got.Sum, got.Last, want.Sum, want.Last, t.blame(contact, want.Sum-got.Sum))
}

// blame names the edits whose weights make up what is missing, if it is the
// last few, or one, or one too often.
func (t *Tally) blame(contact int, missing int64) string {
	if missing == 0 {
		return "the edits are all there, but not in their order"
	}
	tail, first := int64(0), int64(0)
	for n := t.marks[contact].Last; n > 0; n -= int64(len(t.marks)) {
		w := Weight(t.Clerk, n)
		switch {
		case w == missing:
			return fmt.Sprintf("edit %d is lost", n)
		case w == -missing:
			return fmt.Sprintf("edit %d is doubled", n)
		}
		if tail += w; tail == missing {
			first = n
		}
	}
	if first > 0 {
		return fmt.Sprintf("edits %d to %d are lost", first, t.marks[contact].Last)
	}
	if n, w := t.Next(); t.Contact(n) == contact && w == -missing {
		return fmt.Sprintf("edit %d is there without having been made", n)
	}
	return "several edits are lost or doubled"
}

// JudgeNotes says what is wrong with the keys of the records that a node holds
// of the clerk.
func (t *Tally) JudgeNotes(keys []string) (wrong []string) {
	held := map[string]int{}
	for _, key := range keys {
		held[key]++
	}
	for n := int64(noteEvery); n <= t.Done; n += noteEvery {
		key, _ := NoteKey(t.Clerk, n)
		if held[key] != 1 {
			wrong = append(wrong, fmt.Sprintf("%s: the record of edit %d is there %d times", t.Clerk, n, held[key]))
		}
		delete(held, key)
	}
	for key := range held {
		wrong = append(wrong, fmt.Sprintf("%s: record %s is of no edit", t.Clerk, key))
	}
	slices.Sort(wrong)
	return wrong
}
