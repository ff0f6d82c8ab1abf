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

	"github.com/tradepost-crm/tradepost/crm"
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
	case crm.CodeUnavailable, crm.CodeNoLeader, crm.CodeTimeout, crm.CodeStale, crm.CodeInternal, crm.CodeCorrupt, crm.CodeDiskFull:
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

// connectOnce dials the masters in turn and lives one session with the first
// that accepts. It reports whether there was one.
func (r *Replica) connectOnce(ctx context.Context) (lived bool, err error) {
	var errs []error
	for _, addr := range r.addresses() {
		s, err := r.connect(ctx, addr)
		if Again(err) {
			s, err = r.connect(ctx, addr)
		}
		if err == nil {
			return true, s.run(ctx)
		}
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

// addresses returns where to try, without repeats: the configured order, then
// the masters that a master named, then those that the base lists.
func (r *Replica) addresses() []string {
	r.mu.Lock()
	named := r.link.masters
	r.mu.Unlock()
	var out []string
	for _, addr := range slices.Concat(r.cfg.Masters(), named, r.listed()) {
		if addr != "" && !slices.Contains(out, addr) {
			out = append(out, addr)
		}
	}
	return out
}

// connect opens a transport to addr and shakes hands on it.
func (r *Replica) connect(ctx context.Context, addr string) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.DialTimeout)
	defer cancel()
	raw, err := r.cfg.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	transport, err := r.secure(ctx, raw)
	if err != nil {
		stop()
		return nil, errors.Join(err, raw.Close())
	}
	s, err := r.shakeHands(transport, addr)
	if !stop() && err == nil {
		s.finish()
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return s, nil
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

func (r *Replica) secure(ctx context.Context, raw net.Conn) (net.Conn, error) {
	if r.cfg.TLS == nil {
		return raw, nil
	}
	t := tls.Client(raw, r.cfg.TLS)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	return t, nil
}

// severity says how loudly the end of a session is logged: a cut WAN is
// ordinary, what a person must settle is not.
func severity(err error) slog.Level {
	if final(err) {
		return slog.LevelError
	}
	return slog.LevelInfo
}
