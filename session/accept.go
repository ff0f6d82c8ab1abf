package session

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/tradepost-crm/tradepost/syncproto"
)

const (
	// strangers is how many connections may be in their handshake at once.
	strangers = 256
	// handshakeTimeout bounds TLS's handshake.
	handshakeTimeout = 10 * time.Second
	// acceptPause is the wait after a connection could not be taken: most likely this
	// process is out of file descriptors.
	acceptPause = 100 * time.Millisecond
)

// A Door says how connections to a sync port are taken. Its funcs are called by
// many goroutines.
type Door struct {
	TLS      *tls.Config
	Protocol uint16                                                       // the newest version to offer
	Serve    func(ctx context.Context, c *tls.Conn, conn *syncproto.Conn) // has the connection until it returns
	Failed   func(from net.Addr, err error)                               // a handshake failed, or no connection could be taken at the port from
}

// Accept serves the connections that come to the listener until ctx ends, and
// then closes it and waits for them. Its error is that the listener is closed;
// after any other failure it goes on.
func (d Door) Accept(ctx context.Context, lis net.Listener) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	stop := context.AfterFunc(ctx, func() { lis.Close() })
	defer stop()
	room := make(chan struct{}, strangers)
	for {
		raw, err := lis.Accept()
		if errors.Is(err, net.ErrClosed) || err != nil && ctx.Err() != nil {
			return fmt.Errorf("accept nodes: %w", err)
		}
		if err != nil {
			d.Failed(lis.Addr(), fmt.Errorf("accept a connection: %w", err))
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
			}
			continue
		}
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return raw.Close()
		}
		serving.Go(func() { d.serve(ctx, raw, func() { <-room }) })
	}
}

func (d Door) serve(ctx context.Context, raw net.Conn, shaken func()) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := tls.Server(raw, d.TLS)
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	defer c.Close()
	err := shake(ctx, c)
	shaken()
	if err != nil {
		if !errors.Is(err, io.EOF) { // who hangs up at once has measured the round trip
			d.Failed(raw.RemoteAddr(), err)
		}
		return
	}
	conn := syncproto.NewConn(c)
	conn.Limit(d.Protocol)
	defer conn.Close()
	d.Serve(ctx, c, conn)
}

func shake(ctx context.Context, c *tls.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	return c.HandshakeContext(ctx)
}
