package replica

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/tradepost-crm/tradepost/store"
)

const (
	// probeEvery is the time between two rounds of measurements of the nodes that
	// are not in session, give or take half. A measurement is the opening of a
	// connection, about 400 bytes, of one or two nodes a round.
	probeEvery = 2 * time.Minute
	// probeTimeout bounds a measurement.
	probeTimeout = 3 * time.Second
	// surveyTimeout bounds the measurements before a session.
	surveyTimeout = time.Second
	// lastingFor is how long a session must last to make up for failures before it.
	lastingFor = 5 * time.Minute
)

// errMoved ends a session because another node is nearer.
var errMoved = errors.New("another node that serves this one is clearly nearer")

// candidates returns where to try, without repeats: the configured order, then
// those that the node in session named, then those in the records of the base.
func (r *Replica) candidates() []string {
	r.mu.Lock()
	named := r.link.masters
	r.mu.Unlock()
	var listed []string
	err := r.base.View(func(tx *store.Tx) error {
		ros, err := r.rosters.At(tx)
		if err == nil {
			listed = ros.Hosts(0, r.cfg.ID.Node)
		}
		return err
	})
	if err != nil {
		r.cfg.Logger.Debug("the base does not tell who serves this node", "error", err)
	}
	var out []string
	for _, addr := range slices.Concat(r.cfg.Masters(), named, listed) {
		if addr != "" && !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}

// choose changes the choice, of the candidates there are now, and shows it.
func (r *Replica) choose(edit func(*choice)) {
	known := r.candidates()
	r.mu.Lock()
	c := &r.link.choice
	c.know(known)
	c.avoid = r.link.avoid
	edit(c)
	shown := c.candidates()
	r.mu.Unlock()
	r.cfg.Metrics.showCandidates(shown)
}

// addresses returns where to try, the best first. It measures those that were
// never asked, if there is a choice.
func (r *Replica) addresses(ctx context.Context) (out []string) {
	var strange []string
	r.choose(func(c *choice) { strange = c.strangers() })
	r.measure(ctx, strange, surveyTimeout)
	r.choose(func(c *choice) { out = c.order(r.cfg.Now()) })
	return out
}

// keepNear measures the nodes that may serve this one, and ends the session when
// one of them is clearly nearer than the one in session.
func (r *Replica) keepNear(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(probeEvery/2 + r.jitter(probeEvery)):
		}
		var due []string
		r.choose(func(c *choice) { due = c.due() })
		r.measure(ctx, due, probeTimeout)
		r.moveNearer()
	}
}

// moveNearer ends the session if the node would be better off elsewhere. A
// catch-up under way is not interrupted.
func (r *Replica) moveNearer() {
	now := r.cfg.Now()
	to := ""
	r.choose(func(c *choice) {
		if r.link.talk != nil && r.pos.staged == 0 && r.pos.rev > 0 {
			to = c.look(now)
		}
		if to != "" {
			c.moved = now
			r.link.moves++
		}
	})
	r.mu.Lock()
	s := r.link.session
	r.mu.Unlock()
	if to == "" || s == nil {
		return
	}
	r.cfg.Logger.Info("another node is nearer; the session goes on there", "from", s.addr, "to", to)
	s.end(errMoved)
}

// measure opens a connection to each address at the same time, and closes it.
func (r *Replica) measure(ctx context.Context, addrs []string, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, addr := range addrs {
		wg.Go(func() {
			asked := r.cfg.Now()
			c, err := r.cfg.Dial(ctx, addr)
			now := r.cfg.Now()
			if err == nil {
				_ = c.Close()
			}
			r.choose(func(c *choice) {
				if err != nil {
					c.unreachable(addr, now)
					return
				}
				c.measured(addr, now.Sub(asked), now)
			})
		})
	}
	wg.Wait()
}

// A Candidate is a node that may serve this one.
type Candidate struct {
	Address string        `json:"address"`
	RTT     time.Duration `json:"rtt_ns,omitempty"` // smoothed; 0: not measured yet
	InUse   bool          `json:"in_use,omitempty"`
	Down    bool          `json:"down,omitempty"` // it did not answer when it was last asked
}

// candidates returns them in the order in which they are known.
func (c *choice) candidates() []Candidate {
	var out []Candidate
	for _, k := range c.list {
		out = append(out, Candidate{k.addr, k.rtt, k.addr == c.using, k.down})
	}
	return out
}
