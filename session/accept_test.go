package session

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A crowded is a listener of a process without file descriptors: it fails until
// there is a connection to give, or it is closed.
type crowded struct {
	fails  int
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *crowded) Accept() (net.Conn, error) {
	if l.fails > 0 {
		l.fails--
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *crowded) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *crowded) Addr() net.Addr { return &net.TCPAddr{Port: 7400} }

// A node that is short of file descriptors for a moment must not end for it.
func TestDoor_OutlivesAShortageOfFileDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mine, theirs := net.Pipe()
		lis := &crowded{fails: 3, conns: make(chan net.Conn, 1), closed: make(chan struct{})}
		lis.conns <- mine
		var mu sync.Mutex
		var failed []error
		d := Door{TLS: &tls.Config{}, Failed: func(_ net.Addr, err error) {
			mu.Lock()
			defer mu.Unlock()
			failed = append(failed, err)
		}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		start := time.Now()
		go func() { ended <- d.Accept(ctx, lis) }()
		theirs.Write([]byte("no handshake at all")) // returns when the connection is served
		if took := time.Since(start); took != 3*acceptPause {
			t.Errorf("the connection was taken after %v", took)
		}
		theirs.Close()
		cancel()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("at the end: %v", err)
		}
		for i, err := range failed[:3] {
			if !errors.Is(err, syscall.EMFILE) {
				t.Errorf("failure %d: %v", i, err)
			}
		}
	})
}
