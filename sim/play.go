package sim

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// A Result is what came of a run.
type Result struct {
	Script  *Script
	Hash    string         // of the Trace
	Events  int            // of the Trace
	Frames  int            // carried
	Acked   int            // edits acknowledged
	Counts  map[string]int // what happened, by kind
	Virtual time.Duration
	History *History
	Err     error // the first promise that was broken; nil if none was
}

// quietAfter is how long after its last step a Script's faults are mended.
const quietAfter = 5 * time.Second

// Play plays a Script on a copy of the Template. The error is that of the
// machine it runs on; what the cluster does wrong is in the Result.
func (t *Template) Play(s *Script, o Options) (*Result, error) {
	if s.Masters != t.plan.masters || s.Replicas != t.plan.replicas {
		return nil, fmt.Errorf("the script is for %d masters and %d replicas and the template has %d and %d", s.Masters, s.Replicas, t.plan.masters, t.plan.replicas)
	}
	w, err := t.world(s.Seed, o)
	if err != nil {
		return nil, err
	}
	w.play(s)
	r := &Result{Script: s, Hash: w.trace.Hash(), Events: w.trace.Events, Frames: w.net.sent, Acked: w.acked, Counts: w.counts, Virtual: w.agenda.now,
		History: w.record, Err: w.failed}
	return r, w.finish()
}

// play does what the Script says, mends all faults, and looks at what came of it.
func (w *world) play(s *Script) {
	defer w.caught()
	for _, n := range w.nodes() {
		w.start(n)
	}
	w.ledger.Elect(w.masters[0])
	end := time.Duration(0)
	for _, step := range s.Steps {
		w.agenda.At(step.At, func() { w.step(step) })
		end = max(end, step.At)
	}
	w.run(end + quietAfter)
	if w.failed != nil {
		return
	}
	w.quiet()
	if w.settle(settleWait) {
		w.record.Settled = w.agenda.now
	} else {
		w.record.Unsettled = w.unsettled()
	}
	w.inspect()
	if w.failed == nil {
		w.failed = errors.Join(Breaches(w.record)...)
	}
}

// caught makes a panic of the product the end of the run.
func (w *world) caught() {
	if r := recover(); r != nil {
		w.failed = fmt.Errorf("%s: panic: %v\n%s", when(w.agenda.now), r, debug.Stack())
	}
}

// step does one step.
func (w *world) step(s Step) {
	if w.failed != nil {
		return
	}
	v := verbs[s.Words[0]]
	if v.fault {
		w.count("fault " + s.Words[0])
		w.trace.Note(w.agenda.now, "script", "%v", s.Words)
	}
	if err := v.do(w, s.Words[1:]); err != nil {
		w.fail("%s: %w", s, err)
	}
}

// tally counts what a run was about.
func (w *world) tally() {
	for _, t := range w.record.Timelines {
		for _, d := range t.Decisions {
			w.count("edit decided: " + d.Outcome.Kind.String())
		}
	}
	for _, l := range w.record.Looks {
		if l.Code == "" {
			w.count("look " + string(l.Demand.Level))
		} else {
			w.count("look " + string(l.Demand.Level) + " given up: " + string(l.Code))
		}
	}
	for _, p := range w.record.Positions {
		if p.Rebased {
			w.count("other bases fetched anew")
		}
	}
}

// inspect takes stock of every node at the end.
func (w *world) inspect() {
	settled := w.record.Settled != 0 && w.failed == nil
	for _, m := range w.masters {
		if m.up && w.failed == nil {
			if err := m.stock(settled, true); err != nil {
				w.fail("%w", err)
			}
		}
	}
	for _, b := range w.branches {
		if !b.up || b.retired != "" || w.failed != nil {
			continue
		}
		if err := b.take(settled, true); err != nil {
			w.fail("%w", err)
		}
		if settled {
			if err := b.purged(); err != nil {
				w.fail("%w", err)
			}
		}
	}
	if settled {
		w.answers()
	}
	w.tally()
	for _, n := range w.nodes() {
		w.record.Usage.Bytes = max(w.record.Usage.Bytes, n.size())
	}
}
