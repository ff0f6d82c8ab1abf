package sim

import (
	"errors"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/session"
)

// mustWorld returns a founded cluster whose masters are up.
func mustWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w, err := mustTemplate(t).world(seed, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.finish(); err != nil {
			t.Error(err)
		}
		if w.failed != nil {
			t.Error(w.failed)
		}
	})
	for _, m := range w.masters {
		w.start(m.node)
	}
	w.ledger.Elect(w.masters[0])
	w.run(time.Second)
	return w
}

// A told is what a proposer was told.
type told struct {
	times   int
	verdict master.Verdict
	index   uint64
	err     error
}

func (w *world) propose(m *masterNode) *told {
	p := &told{}
	w.ledger.Propose(m, master.ReportsEntry{}, func(v master.Verdict, index uint64, err error) {
		p.times++
		p.verdict, p.index, p.err = v, index, err
	})
	return p
}

func TestLedger_WhatBecomesOfAProposal(t *testing.T) {
	for _, tc := range []struct {
		fate    fate
		entries int
		unknown bool
	}{
		{fateOrdinary, 1, false}, {fateTwice, 2, false}, {fateLost, 0, true}, {fateUnknown, 1, true}, {fateLate, 1, false},
	} {
		w := mustWorld(t, 1)
		before := len(w.ledger.entries)
		w.ledger.fates = []fate{tc.fate}
		p := w.propose(w.masters[0])
		w.run(w.agenda.now + time.Minute)
		if got := len(w.ledger.entries) - before; got != tc.entries {
			t.Errorf("%q: %d entries are in the log, want %d", tc.fate, got, tc.entries)
		}
		if p.times != 1 || errors.Is(p.err, session.ErrUnknown) != tc.unknown {
			t.Errorf("%q: the proposer was told %d times, %v", tc.fate, p.times, p.err)
		}
		for _, m := range w.masters {
			if m.fsm.Applied() != uint64(len(w.ledger.entries)) {
				t.Errorf("%q: %s has committed %d of %d", tc.fate, m.name, m.fsm.Applied(), len(w.ledger.entries))
			}
		}
	}
}

func TestLedger_OnlyTheLeaderProposes(t *testing.T) {
	w := mustWorld(t, 1)
	p := w.propose(w.masters[1])
	w.run(w.agenda.now + time.Second)
	if p.times != 1 || crm.CodeOf(p.err) != crm.CodeNoLeader || errors.Is(p.err, session.ErrUnknown) {
		t.Errorf("a follower was told %d times, %v", p.times, p.err)
	}
}

func TestLedger_WithoutAMajorityNothingIsDecided(t *testing.T) {
	w := mustWorld(t, 1)
	before := len(w.ledger.entries)
	leader := w.masters[0]
	for _, m := range w.masters[1:] {
		w.net.Cut(leader.name, m.name)
		w.net.Cut(m.name, leader.name)
	}
	p := w.propose(leader)
	if w.run(w.agenda.now + leaseTime/2); p.times > 0 || len(w.ledger.entries) > before {
		t.Errorf("a leader that is cut off decided: %+v", p)
	}
	w.ledger.Check()
	w.run(w.agenda.now + 10*time.Second)
	if w.ledger.leader == leader || w.ledger.leader == nil {
		t.Fatalf("%v leads", w.ledger.leader)
	}
	if p.times != 1 || !errors.Is(p.err, session.ErrUnknown) {
		t.Errorf("the old leader's proposer was told %d times, %v", p.times, p.err)
	}
	w.propose(w.ledger.leader)
	w.run(w.agenda.now + time.Second)
	last := uint64(len(w.ledger.entries))
	if leader.fsm.Applied() >= last {
		t.Error("an entry crossed a cut")
	}
	for _, m := range w.masters[1:] {
		w.net.Mend(leader.name, m.name)
		w.net.Mend(m.name, leader.name)
	}
	w.run(w.agenda.now + time.Second)
	if leader.fsm.Applied() != last {
		t.Errorf("the old leader has committed %d of %d", leader.fsm.Applied(), last)
	}
}

func TestLedger_NobodyLeadsAMinority(t *testing.T) {
	w := mustWorld(t, 1)
	for _, m := range w.masters[:2] {
		w.crash(m.node, "a kill", true)
	}
	w.run(w.agenda.now + 10*time.Second)
	if w.ledger.leader != nil {
		t.Fatalf("%s leads alone", w.ledger.leader.name)
	}
	for _, m := range w.masters {
		w.start(m.node)
	}
	w.run(w.agenda.now + 10*time.Second)
	if w.ledger.leader == nil {
		t.Error("nobody leads three masters")
	}
}

// TestMaster_ReplaysWhatItHadNotCommitted kills a master between an entry and its
// commit.
func TestMaster_ReplaysWhatItHadNotCommitted(t *testing.T) {
	w := mustWorld(t, 1)
	m := w.masters[2]
	m.disk.ambush = &ambush{how: dieBefore}
	w.propose(w.masters[0])
	w.run(w.agenda.now + time.Second)
	last := uint64(len(w.ledger.entries))
	if m.up || m.applied != last {
		t.Fatalf("m3 is up: %v, at entry %d of %d", m.up, m.applied, last)
	}
	w.start(m.node)
	if m.fsm.Applied() == last {
		t.Fatal("what was not committed is there after the power failed")
	}
	w.run(w.agenda.now + time.Second)
	if m.fsm.Applied() != last {
		t.Errorf("m3 has replayed up to %d of %d", m.fsm.Applied(), last)
	}
}
