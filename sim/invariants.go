package sim

import (
	"fmt"
	"time"
)

// An Invariant is something that holds in every History, whatever the faults.
type Invariant struct {
	Name   string // I01
	Says   string
	Breach func(*History) error // nil if it holds

	// Newest judges what the last record of a kind adds, which is cheap enough to
	// be asked after every such record; nil: only a whole History can be judged.
	Newest func(*History) error
	On     kind
}

// A kind of record in a History.
type kind string

const (
	onOpening  kind = "opening"
	onDecision kind = "decision"
	onPosition kind = "position"
	onLook     kind = "look"
	onRuling   kind = "ruling"
	onPurge    kind = "purge"
	onTrim     kind = "trim"
)

// Invariants are those of the sync, by number.
var Invariants = []Invariant{
	{"I01", "an acknowledged edit survives any crash at any point", ackedSurvives, ackedSurvivesLast, onOpening},
	{"I02", "each edit takes effect exactly once", takesEffectOnce, nil, ""},
	{"I03", "a node's edits take effect in the order of their numbers, without a gap", keepsOrder, keepsOrderLast, onDecision},
	{"I04", "each acknowledged edit has one outcome, which its author sees", hasOutcome, nil, ""},
	{"I05", "a base is the decided records of the territories granted, as of its Cursor", isPrefix, isPrefixLast, onPosition},
	{"I06", "what readers see is the base with the pending edits folded over it", isFolded, nil, ""},
	{"I07", "within a timeline a Cursor and the decided Seq never go back", neverGoesBack, neverGoesBackLast, onPosition},
	{"I08", "a session sees what it has seen and written; a bounded read is no staler than its bound", honoursMarks, honoursMarksLast, onLook},
	{"I09", "a leader read sees everything that anybody was told of before it", isLinear, isLinearLast, onLook},
	{"I10", "masters are equal at equal indices, and decide as the model does", mastersEqual, mastersEqualLast, onRuling},
	{"I11", "digests, index rows and checksums are those of the records", checksFind, nil, ""},
	{"I12", "an edit whose author saw the current value wins, whatever the clocks say", seenLoses, nil, ""},
	{"I13", "a value that its successor had not seen is kept as a conflict", losersKept, nil, ""},
	{"I14", "a deleted record comes back only by a restore", deadStay, nil, ""},
	{"I15", "document numbers are unique and a site's series has no gap", numbersDense, nil, ""},
	{"I16", "an edit stands only if its guards held when it was decided", guardsHeld, nil, ""},
	{"I17", "after a purge is proven no byte of what was purged is in the files", purgedGone, purgedGoneLast, onPurge},
	{"I18", "a record that moves is seen once at every instant by who holds both territories", seenOnce, seenOnceLast, onLook},
	{"I19", "a node decides nothing in another one's name", ownName, nil, ""},
	{"I20", "no edit of a copied or rolled-back disk is dropped as a repeat of another", notDropped, nil, ""},
	{"I21", "nothing is trimmed that an active replica needs", trimSpares, trimSparesLast, onTrim},
	{"I22", "a rejected edit holds nobody up", poisonPasses, nil, ""},
	{"I23", "a base that is fetched anew and a new schema cost no edit", outboxKept, nil, ""},
	{"I24", "an edit changes only what it names", othersKept, nil, ""},
	{"I25", "after the faults all nodes agree in time, within bounds", settles, nil, ""},
	{"I26", "what a restore of the masters lost, the branches bring back once", broughtBack, nil, ""},
}

// Breaches returns what a History breaks, nil if nothing.
func Breaches(h *History) []error {
	var out []error
	for _, i := range Invariants {
		if err := i.Breach(h); err != nil {
			out = append(out, fmt.Errorf("%s, %s: %w", i.Name, i.Says, err))
		}
	}
	return out
}

// newest returns the first breach by the last record of a kind.
func newest(h *History, k kind) error {
	for _, i := range Invariants {
		if i.Newest == nil || i.On != k {
			continue
		}
		if err := i.Newest(h); err != nil {
			return fmt.Errorf("%s, %s: %w", i.Name, i.Says, err)
		}
	}
	return nil
}

// last calls judge with the last element, if there is one.
func last[T any](list []T, judge func(T) error) error {
	if len(list) == 0 {
		return nil
	}
	return judge(list[len(list)-1])
}

// each calls judge with all elements until one is wrong.
func each[T any](list []T, judge func(T) error) error {
	for _, x := range list {
		if err := judge(x); err != nil {
			return err
		}
	}
	return nil
}

// when prints an instant of the run.
func when(at time.Duration) string { return fmt.Sprintf("at %.3fs", at.Seconds()) }
