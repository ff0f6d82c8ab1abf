package replica

import (
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

// A link is what the node knows of the masters. Replica.mu protects it.
type link struct {
	talk                      *Talk     // nil while there is no session
	session                   *session  // the goroutines around talk; nil if it is driven without
	addr                      string    // of the master in session, or the last one
	masters                   []string  // addresses a master named
	left                      time.Time // when the last session ended; zero: there was none
	trouble                   error     // why there is no session, or why the outbox does not move
	rtt                       time.Duration
	offset                    time.Duration // how far the master's clock is ahead
	head                      crm.Rev       // the highest one heard of
	asOf                      time.Time     // when the base was known to be a master's head; zero: never
	heads                     []headAt      // heads above the Cursor, ascending
	backup                    crm.Rev       // what the masters' backup covers
	lineage                   crm.Lineage   // that the masters told last
	spoken                    uint16        // version of the protocol; 0: there was no session yet
	choice                    choice        // among who may serve this node
	moves                     int           // how often the node went to a nearer one, since Open
	avoid                     string        // address of a master that did not cure a divergence: tried last
	repaired, repairedRecords int           // territories, and records that their repairs changed, since Open
	verified                  crm.Rev       // the last Rev at which digests were compared and equal
}

// A headAt says that a master's head was rev at a time not before at.
type headAt struct {
	rev crm.Rev
	at  time.Time
}

// maxHeads bounds the heads remembered while the Cursor catches up.
const maxHeads = 64

// heardHead notes that a master's head was rev when it answered a question
// asked at the time at, by this node's clock.
func (l *link) heardHead(rev, cursor crm.Rev, at time.Time) {
	l.head = max(l.head, rev)
	if len(l.heads) == maxHeads {
		l.heads = l.heads[1:]
	}
	if n := len(l.heads); n > 0 && l.heads[n-1].rev == rev {
		l.heads[n-1].at = at
	} else {
		l.heads = append(l.heads, headAt{rev, at})
	}
	l.settleAsOf(cursor)
}

// settleAsOf moves asOf on to the newest head that the Cursor has reached.
func (l *link) settleAsOf(cursor crm.Rev) {
	for len(l.heads) > 0 && l.heads[0].rev <= cursor {
		if at := l.heads[0].at; at.After(l.asOf) {
			l.asOf = at
		}
		l.heads = l.heads[1:]
	}
	l.head = max(l.head, cursor)
}

// age is how long ago what a relay told as the masters' head was known to be that.
func age(millis uint32) time.Duration { return time.Duration(millis) * time.Millisecond }

// change edits the link and wakes those who wait for it.
func (r *Replica) change(edit func(*link)) {
	r.mu.Lock()
	edit(&r.link)
	r.mu.Unlock()
	r.moved.fire()
}

// heard notes a head and how the master's clock compares.
func (r *Replica) heard(head crm.Rev, at time.Time, offset, rtt time.Duration) {
	r.mu.Lock()
	l := &r.link
	l.offset, l.rtt = offset, rtt
	l.choice.measured(l.choice.using, rtt, r.cfg.Now())
	l.heardHead(head, r.pos.rev, at)
	r.mu.Unlock()
	r.moved.fire()
	r.cfg.Metrics.clockOffset.Set(offset.Seconds())
	r.cfg.Metrics.rtt.Observe(rtt.Seconds())
	r.measureLag()
}
