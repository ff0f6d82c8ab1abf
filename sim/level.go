package sim

import (
	"strconv"
	"time"

	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// levelPace is the time between two tries of the leader to activate a level.
const levelPace = 5 * time.Second

// activate has the masters turn on a level of the decision logic, which is also
// the version that they speak with branches. A founded cluster is at level 1.
func (w *world) activate(words []string) error {
	n, err := version(words[0])
	if err != nil {
		return err
	}
	w.level = max(w.level, uint64(n))
	w.tendLevel()
	return nil
}

func version(word string) (uint16, error) {
	n, err := strconv.ParseUint(word, 10, 16)
	if err == nil && (uint16(n) < syncproto.MinVersion || uint16(n) > syncproto.MaxVersion) {
		err = strconv.ErrRange
	}
	return uint16(n), err
}

// tendLevel has whoever leads propose the level until the log has it. After a
// restore of the masters it may lack it again.
func (w *world) tendLevel() {
	if w.tending || w.model.level >= w.level || w.failed != nil {
		return
	}
	if m := w.ledger.leader; m != nil && m.up {
		w.ledger.Propose(m, master.ActivateEntry{Level: w.level}, func(master.Verdict, uint64, error) {})
	}
	w.tending = true
	w.agenda.After(levelPace, func() { w.tending = false; w.tendLevel() })
}

// release has a branch run a program that speaks up to a version, from now on.
func (w *world) release(words []string) error {
	v, err := version(words[1])
	if err != nil {
		return err
	}
	n, err := w.named(words[0])
	if err != nil {
		return err
	}
	b := w.branchOf(n)
	if b == nil {
		return notReplica(n)
	}
	b.protocol = v
	if b.up {
		w.crash(n, "an administrator, who installs another release", true)
		w.start(n)
	}
	return nil
}
