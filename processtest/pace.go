package processtest

import (
	"context"
	"sync"
)

// A Pace keeps edits and kills in step: each edits a kill, so that there is no
// kill without load and no load without kills.
type Pace struct {
	each  int
	kills int

	edits chan struct{} // a token an edit that may be made; closed after the last
	due   chan struct{} // a token a kill that is due; closed after the last

	mu      sync.Mutex // protects what follows, and who sends and closes
	allowed int        // kills whose edits may be made
	acked   int        // edits
	killed  int        // kills after which the node serves again
}

// ahead is how many kills the edits may be ahead of. It must be above the number
// of kills under way at once.
const ahead = 16

// NewPace returns the pace of so many kills and at least so many edits.
func NewPace(kills, edits int) *Pace {
	p := &Pace{each: (edits + kills - 1) / kills, kills: kills}
	p.edits = make(chan struct{}, p.each*kills)
	p.due = make(chan struct{}, kills)
	p.allow()
	return p
}

// allow lets edits be made up to the bound. The caller holds mu, or is alone.
func (p *Pace) allow() {
	for ; p.allowed < min(p.killed+ahead, p.kills); p.allowed++ {
		for range p.each {
			p.edits <- struct{}{}
		}
		if p.allowed+1 == p.kills {
			close(p.edits)
		}
	}
}

// TakeEdit waits until an edit may be made. It returns false if there is none
// left or ctx has ended.
func (p *Pace) TakeEdit(ctx context.Context) bool { return take(ctx, p.edits) }

// TakeKill waits until a kill is due. It returns false if there is none left or
// ctx has ended.
func (p *Pace) TakeKill(ctx context.Context) bool { return take(ctx, p.due) }

func take(ctx context.Context, tokens <-chan struct{}) bool {
	select {
	case _, ok := <-tokens:
		return ok
	case <-ctx.Done():
		return false
	}
}

// Acked counts an acknowledged edit.
func (p *Pace) Acked() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acked++
	if p.acked%p.each == 0 {
		p.due <- struct{}{}
	}
	if p.acked == p.each*p.kills {
		close(p.due)
	}
}

// Killed counts a kill whose node serves again and returns how many there were.
func (p *Pace) Killed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killed++
	p.allow()
	return p.killed
}

// Edits returns how many edits were acknowledged.
func (p *Pace) Edits() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acked
}
