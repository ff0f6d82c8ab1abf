package gossip

import (
	"errors"
	"net"
	"sync"
)

// maxStream is how many bytes memberlist may read from one stream. A state
// exchange takes less than 1 KiB a node.
const maxStream = 4 << 20

var (
	errTooManyStreams = errors.New("too many inbound gossip streams")
	errStreamTooLong  = errors.New("gossip stream too long")
)

// A stream is a connection that the transport can close under its owner, and
// whose owner it can wait for.
type stream struct {
	net.Conn
	transport *PacketTransport
	inbound   bool
	budget    int // bytes that may still be read; one goroutine reads
	once      sync.Once
}

// adopt wraps conn; it fails if the transport is closed or has too many.
func (t *PacketTransport) adopt(conn net.Conn, inbound bool) (*stream, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, net.ErrClosed
	}
	if inbound && t.inbound >= maxInbound {
		t.refused.Add(1)
		return nil, errTooManyStreams
	}
	if inbound {
		t.inbound++
	}
	s := &stream{Conn: conn, transport: t, inbound: inbound, budget: maxStream}
	t.open[s] = struct{}{}
	t.owners.Add(1)
	return s, nil
}

func (t *PacketTransport) release(s *stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, s)
	if s.inbound {
		t.inbound--
	}
	t.owners.Done()
}

func (s *stream) Read(b []byte) (int, error) {
	if s.budget <= 0 {
		return 0, errStreamTooLong
	}
	n, err := s.Conn.Read(b[:min(len(b), s.budget)])
	s.budget -= n
	return n, err
}

// Write closes s if it fails: memberlist forgets a stream on which it could
// not write the label.
func (s *stream) Write(b []byte) (int, error) {
	n, err := s.Conn.Write(b)
	if err != nil {
		s.Close()
	}
	return n, err
}

func (s *stream) Close() error {
	err := s.Conn.Close()
	s.once.Do(func() { s.transport.release(s) })
	return err
}
