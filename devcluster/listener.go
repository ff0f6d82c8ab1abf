package devcluster

import (
	"net"
	"sync"
)

// A doubleListener accepts from two listeners: people reach a node's HTTP port
// on this machine, and over the simulated WAN.
type doubleListener struct {
	outside, wan net.Listener
	accepted     chan net.Conn
	failed       chan error // capacity 2
	closing      chan struct{}
	once         sync.Once
	loops        sync.WaitGroup
}

func listenBoth(outside, wan net.Listener) net.Listener {
	l := &doubleListener{outside: outside, wan: wan, accepted: make(chan net.Conn), failed: make(chan error, 2), closing: make(chan struct{})}
	for _, from := range []net.Listener{outside, wan} {
		l.loops.Go(func() { l.failed <- l.pass(from) })
	}
	return l
}

func (l *doubleListener) pass(from net.Listener) error {
	for {
		c, err := from.Accept()
		if err != nil {
			return err
		}
		select {
		case l.accepted <- c:
		case <-l.closing:
			c.Close()
		}
	}
}

// Accept returns the next connection to either listener, or the error of the
// first that fails.
func (l *doubleListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accepted:
		return c, nil
	case err := <-l.failed:
		return nil, err
	}
}

// Close closes both listeners and waits for the loops.
func (l *doubleListener) Close() (err error) {
	l.once.Do(func() {
		close(l.closing)
		err = l.outside.Close()
		l.wan.Close()
		l.loops.Wait()
	})
	return err
}

// Addr returns the address on this machine.
func (l *doubleListener) Addr() net.Addr { return l.outside.Addr() }
