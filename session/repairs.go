package session

import (
	"time"

	"github.com/tradepost-crm/tradepost/syncproto"
)

const (
	// repairBurst is how many Repairs of a session are answered at once: more than a
	// replica needs to be cured or to give up.
	repairBurst = 8
	// repairEvery is the time in which a session may have one more answered. An
	// answer may be as large as all that the replica holds.
	repairEvery = 10 * time.Second
)

// repairs holds back a replica that asks for repairs without end. Only its own
// feed waits.
type repairs struct {
	waiting *syncproto.Repair // the newest, not answered yet; nil: none
	left    int               // that may be answered at once, as of at
	at      time.Time
}

// due returns the Repair to be answered now; it counts as answered.
func (p *repairs) due(now time.Time) *syncproto.Repair {
	if n := int(now.Sub(p.at) / repairEvery); n > 0 {
		p.left, p.at = min(p.left+n, repairBurst), p.at.Add(time.Duration(n)*repairEvery)
	}
	if p.waiting == nil || p.left == 0 {
		return nil
	}
	r := p.waiting
	p.waiting, p.left = nil, p.left-1
	return r
}

// next is when a Repair that waits is due.
func (p *repairs) next() (at time.Time, waiting bool) {
	if p.left > 0 {
		return p.at, p.waiting != nil
	}
	return p.at.Add(repairEvery), p.waiting != nil
}
