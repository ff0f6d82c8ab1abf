package node

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/tradepost-crm/tradepost/httpapi"
)

// Env is the outside world of a node. The zero fields mean the real one.
type Env struct {
	Now          func() time.Time
	Rand         io.Reader
	Dial         func(ctx context.Context, addr string) (net.Conn, error) // to other nodes
	Listen       func(addr string) (net.Listener, error)                  // for other nodes
	ListenPacket func(addr string) (net.PacketConn, error)                // for gossip; nil means real UDP and TCP
	ListenHTTP   func(addr string) (net.Listener, error)                  // for people; nil means real TCP
	Drain        bool                                                     // on stopping, wait for gossip's last timers: virtual time must not be left with any
	NoHTTP       bool                                                     // serve no HTTP: a node in virtual time has no real port
	Wan          *httpapi.Wan                                             // the simulated WAN the node stands in; nil at real nodes
	Version      string                                                   // of the build, for the metrics
	Logger       *slog.Logger
	Fatal        func(error) // a broken invariant or a stalled disk: ends the process
}

// real fills what is not given.
func (e Env) real() Env {
	if e.Now == nil {
		e.Now = time.Now
	}
	if e.Rand == nil {
		e.Rand = rand.Reader
	}
	if e.Dial == nil {
		d := &net.Dialer{Timeout: 10 * time.Second, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}}
		e.Dial = func(ctx context.Context, addr string) (net.Conn, error) { return d.DialContext(ctx, "tcp", addr) }
	}
	if e.Listen == nil {
		e.Listen = func(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }
	}
	if e.ListenHTTP == nil {
		e.ListenHTTP = func(addr string) (net.Listener, error) { return net.Listen("tcp", addr) }
	}
	if e.Version == "" {
		e.Version = "unknown"
	}
	if e.Logger == nil {
		e.Logger = slog.Default()
	}
	if e.Fatal == nil {
		e.Fatal = func(err error) { panic(err) }
	}
	return e
}
