package session

import (
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A progress is how far a replica has come, and how its clock compares.
type progress struct {
	applied crm.Rev // Cursor that the replica reported
	lowBase crm.Rev
	sent    crm.Rev // To of the last final Batch sent
	heard   time.Time
	clock   offsets
}

func newProgress(h *syncproto.Hello, w *syncproto.Welcome, now time.Time) progress {
	p := progress{lowBase: h.LowBase, heard: now}
	if h.Timeline == w.Timeline {
		p.applied, p.sent = h.Cursor, h.Cursor
	}
	// Until a heartbeat was answered the Hello is all there is to compare clocks
	// by; its way here makes the replica's clock look slow by so much.
	p.clock.guess(w.Received - h.Sent)
	return p
}

// report takes what the replica says it has applied: never more than was sent.
func (p *progress) report(f *syncproto.Applied) {
	p.applied, p.lowBase = max(p.applied, min(f.Cursor, p.sent)), f.LowBase
}

// answered measures by the answer to a question that came at now.
func (p *progress) answered(f *syncproto.Heartbeat, now time.Time) (rtt time.Duration) {
	ahead, rtt := syncproto.Offset(f.T1, f.T2, f.T3, now.UnixMilli())
	p.clock.sample(-ahead, rtt)
	return rtt
}
