package gossip

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	tryEvery  = 5 * time.Second  // how often a lone node tries to join
	healEvery = time.Minute      // how often a node in company looks for the missing
	maxJoins  = 8                // most addresses tried at a time
	sendSoon  = time.Millisecond // memberlist's least wait for a broadcast that we do not await
)

// keepJoined joins other nodes until ctx ends. It is level-triggered: what to
// try is decided anew at each tick from who is known to live. memberlist stops
// talking to the dead after a minute, so two halves of a cluster that lost each
// other for longer come together only because each keeps trying the other.
func (g *Gossip) keepJoined(ctx context.Context, list *memberlist.Memberlist) {
	ticker := time.NewTicker(tryEvery)
	defer ticker.Stop()
	var tried time.Time // when addresses were last tried
	turn := 0
	for {
		now := time.Now()
		g.members.forget(now)
		if _, live := g.members.counts(g.cfg.Name); live == 0 || now.Sub(tried) >= healEvery {
			tried = now
			turn = g.join(ctx, list, turn)
		}
		if !g.publishUntil(ctx, list, ticker.C) {
			return
		}
	}
}

// publishUntil sends changed announcements until the next tick; it reports
// false if ctx ended first.
func (g *Gossip) publishUntil(ctx context.Context, list *memberlist.Memberlist, tick <-chan time.Time) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick:
			return true
		case <-g.republish:
			g.publish(list, sendSoon) // its error only says that sending goes on
		}
	}
}

// join tries up to maxJoins of the addresses where a node is missing, beginning
// with number turn, and returns the turn after the last one tried.
func (g *Gossip) join(ctx context.Context, list *memberlist.Memberlist, turn int) int {
	var seeds []string
	if g.cfg.Seeds != nil {
		seeds = g.cfg.Seeds(ctx)
	}
	self := g.transport.advertise
	missing := slices.DeleteFunc(g.members.missing(seeds), func(addr string) bool { return addr == self })
	for i := range min(len(missing), maxJoins) {
		if ctx.Err() != nil {
			break
		}
		addr := missing[(turn+i)%len(missing)]
		if _, err := list.Join([]string{g.transport.learn(addr)}); err != nil {
			g.cfg.Logger.Debug("gossip: cannot join", "addr", addr, "err", err)
		}
	}
	return turn + min(len(missing), maxJoins)
}
