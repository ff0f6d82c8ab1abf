package replica

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	serving "github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// keepConnected runs one session after another until ctx ends.
func (r *Replica) keepConnected(ctx context.Context) error {
	bound := r.cfg.BackoffMin
	for ctx.Err() == nil {
		lived, err := r.connectOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if lived && !isDivergence(err) {
			bound = r.cfg.BackoffMin
		}
		if final(err) {
			bound = r.cfg.BackoffMax
		}
		if errors.Is(err, errMoved) {
			continue
		}
		r.change(func(l *link) { l.trouble = err })
		r.backOff(ctx, bound, err)
		bound = min(2*bound, r.cfg.BackoffMax)
	}
	return nil
}

// final reports whether trying again soon is useless: a person must act first.
// A master that refuses because of a state of its own may be better next time.
func final(err error) bool {
	_, refused := errors.AsType[*refusedBy](err)
	switch crm.CodeOf(err) {
	case crm.CodeFenced, crm.CodeFrozen:
		return true
	case serving.CodeNotServed, crm.CodeUnavailable, crm.CodeNoLeader, crm.CodeTimeout, crm.CodeStale, crm.CodeInternal, crm.CodeCorrupt, crm.CodeDiskFull:
		return false
	}
	return refused
}

// backOff waits a random part of bound, so that many branches that lost one
// master do not come back at once (full jitter).
func (r *Replica) backOff(ctx context.Context, bound time.Duration, cause error) {
	wait := r.jitter(bound)
	r.cfg.Logger.Log(ctx, severity(cause), "no session with a master", "retry_in", wait, "error", cause)
	select {
	case <-ctx.Done():
	case <-time.After(wait):
	}
}

func (r *Replica) jitter(bound time.Duration) time.Duration {
	var b [8]byte
	if _, err := r.cfg.Rand.Read(b[:]); err != nil {
		return bound
	}
	return time.Duration(binary.BigEndian.Uint64(b[:]) % uint64(bound+1))
}

// connectOnce tries who may serve this node in turn and lives one session with the
// first that accepts. It reports whether there was one.
func (r *Replica) connectOnce(ctx context.Context) (lived bool, err error) {
	var errs []error
	for _, addr := range r.addresses(ctx) {
		s, err := r.connect(ctx, addr)
		if Again(err) {
			s, err = r.connect(ctx, addr)
		}
		if err == nil {
			return true, r.live(ctx, s)
		}
		r.choose(func(c *choice) { c.failed(addr, r.cfg.Now()) })
		errs = append(errs, fmt.Errorf("master %s: %w", addr, err))
		if ctx.Err() != nil || final(err) {
			break
		}
	}
	if len(errs) == 0 {
		return false, errors.New("no address of a master is known")
	}
	return false, errors.Join(errs...)
}

// live lives a session. A peer that hung up may be there again at once; one that
// fell silent is not tried first.
func (r *Replica) live(ctx context.Context, s *session) error {
	began := r.cfg.Now()
	r.choose(func(c *choice) {
		c.begun(s.addr)
		c.measured(s.addr, r.link.rtt, began)
	})
	err := s.run(ctx)
	now := r.cfg.Now()
	if reason := "lost"; ctx.Err() == nil {
		if errors.Is(err, errMoved) {
			reason = "nearer"
		}
		r.cfg.Metrics.upstreamChanges.WithLabelValues(reason).Inc()
	}
	r.choose(func(c *choice) {
		if now.Sub(began) >= lastingFor {
			c.lasted()
		}
		if c.using = ""; errors.Is(err, errSilent) || isDivergence(err) {
			c.failed(s.addr, now)
		}
	})
	return err
}

// connect opens a transport to addr and shakes hands on it.
func (r *Replica) connect(ctx context.Context, addr string) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.DialTimeout)
	defer cancel()
	transport, err := r.dial(ctx, addr, r.cfg.TLS)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = transport.Close() })
	s, err := r.shakeHands(transport, addr)
	if !stop() && err == nil {
		s.finish()
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, transport.Close())
	}
	return s, nil
}

// dial opens a transport to a node that serves replicas.
func (r *Replica) dial(ctx context.Context, addr string, config *tls.Config) (net.Conn, error) {
	raw, err := r.cfg.Dial(ctx, addr)
	if err != nil || config == nil {
		return raw, err
	}
	c := tls.Client(raw, config)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("tls: %w", err), raw.Close())
	}
	if err := r.expect(c, addr); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return c, nil
}

// expect accepts a master, and a relay that may serve this node by its records.
// While there are none it accepts a relay whose address an admin has given.
func (r *Replica) expect(c *tls.Conn, addr string) error {
	id, err := auth.PeerIdentity(c.ConnectionState())
	if err != nil || id.Role == auth.RoleMaster {
		return err
	}
	trusted := false
	err = r.base.View(func(tx *store.Tx) error {
		ros, err := r.rosters.At(tx)
		if err != nil {
			return err
		}
		if _, known := ros.Nodes[r.cfg.ID.Node]; !known {
			trusted = slices.Contains(r.cfg.Masters(), addr)
			return nil
		}
		trusted = ros.Serves(crm.NodeID(id.Node), r.cfg.ID.Node) && ros.Nodes[crm.NodeID(id.Node)].Site == id.Site
		return nil
	})
	if err == nil && !trusted {
		err = &crm.Error{Code: crm.CodeForbidden, Op: "connect", Item: addr, Message: fmt.Sprintf("%s answers, which is no master and no relay that may serve this node", id)}
	}
	return err
}

// shakeHands introduces the node on a transport and takes the answer.
func (r *Replica) shakeHands(transport net.Conn, addr string) (*session, error) {
	hello, err := r.Hello()
	if err != nil {
		return nil, err
	}
	conn := syncproto.NewConn(transport)
	conn.Limit(r.cfg.Protocol)
	asked := r.cfg.Now()
	if err := conn.Send(hello); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	f, err := conn.Receive()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	t, err := r.Greeted(hello, f, asked)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	conn.Speak(t.Version())
	s := newSession(t, conn, transport, addr)
	var l link
	r.change(func(now *link) { now.session, now.addr, l = s, addr, *now })
	r.cfg.Logger.Info("session with a master", "address", addr, "head", l.head, "rtt", l.rtt, "offset", l.offset)
	return s, nil
}

// severity says how loudly the end of a session is logged: a cut WAN is
// ordinary, what a person must settle is not.
func severity(err error) slog.Level {
	if final(err) {
		return slog.LevelError
	}
	return slog.LevelInfo
}
