package master

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
)

// The first byte on a connection between ledgers says what it is for. Before it
// a restored cluster's masters say which timeline they are of.
const (
	connRaft     = 'R' // hashicorp/raft's own calls follow
	connVote     = 'V' // one vote follows: see sendVote
	connSeed     = 'S' // a master that joins asks for records: see seed.go
	connEntry    = 'E' // one entry to be logged follows: see sendEntry
	connTimeline = 'T' // a timeline follows, 8 bytes big-endian, and then one of the above
)

// handshakeTimeout bounds the time from accepting a connection to its first byte.
const handshakeTimeout = 10 * time.Second

// A stream connects masters with each other. It is the raft.StreamLayer: Raft
// gets the connections that are its own, each after its handshake, so that a
// stranger's costs it nothing.
type stream struct {
	addr   string
	lis    net.Listener
	dial   func(ctx context.Context, addr string) (net.Conn, error)
	server *tls.Config
	client *tls.Config
	logger *slog.Logger
	calls  *calls

	accepted chan net.Conn
	life     context.Context // ends with the stream, and with it every dial and handshake
	end      context.CancelFunc
	tasks    sync.WaitGroup // the accept loop and the handshakes

	mu    sync.Mutex // protects conns, and life from ending between a look and a use
	conns map[*tracked]struct{}
}

// calls are what a stream asks of its ledger.
type calls struct {
	vote     func(voteCast)                           // takes a vote of another master
	seed     func(*tracked) error                     // gives records to one that joins
	log      func(ctx context.Context, e Entry) error // logs an entry of another master, while this one leads
	timeline func() (restored uint64, empty bool)     // the timeline, 0 if the masters were never restored; whether there is no data yet
}

// newStream starts to accept. The caller calls closeAll. Without calls it takes
// connections of Raft only.
func newStream(cfg ledgerConfig, lis net.Listener, c *calls) *stream {
	if c == nil {
		c = &calls{timeline: func() (uint64, bool) { return 0, true }}
	}
	s := &stream{addr: cfg.Address, lis: lis, dial: cfg.Dial, server: cfg.Server, client: cfg.Client, logger: cfg.Logger, calls: c,
		accepted: make(chan net.Conn), conns: map[*tracked]struct{}{}}
	s.life, s.end = context.WithCancel(context.Background())
	s.tasks.Go(s.acceptLoop)
	return s
}

// Addr returns the address under which other masters know this one.
func (s *stream) Addr() net.Addr { return address(s.addr) }

type address string

func (address) Network() string  { return "tradepost-raft" }
func (a address) String() string { return string(a) }

// Accept returns the next connection for Raft.
func (s *stream) Accept() (net.Conn, error) {
	select {
	case c := <-s.accepted:
		return c, nil
	case <-s.life.Done():
		return nil, net.ErrClosed
	}
}

// Close is Raft's way to close; it never waits.
func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil {
		return nil
	}
	s.end()
	err := s.lis.Close()
	for c := range s.conns {
		err = errors.Join(err, c.raw.Close())
	}
	return err
}

// closeAll closes every connection and waits for the stream's goroutines.
func (s *stream) closeAll() {
	if err := s.Close(); err != nil {
		s.logger.Debug("closing the connections between masters", "error", err)
	}
	s.tasks.Wait()
}

// Dial connects Raft to another master.
func (s *stream) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(s.life, timeout)
	defer cancel()
	return s.open(ctx, string(to), connRaft)
}

// open dials, shakes hands and says what the connection is for.
func (s *stream) open(ctx context.Context, to string, purpose byte) (net.Conn, error) {
	raw, err := s.dial(ctx, to)
	if err != nil {
		return nil, err
	}
	c := s.track(raw)
	if c == nil {
		return nil, net.ErrClosed
	}
	if err := c.begin(ctx, s.client, tls.Client, func() error { return c.say(s.greeting(purpose)) }); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to master %s: %w", to, err), c.Close())
	}
	return c, nil
}

func (s *stream) acceptLoop() {
	for {
		raw, err := s.lis.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.logger.Warn("accept a master's connection", "error", err)
			select {
			case <-time.After(100 * time.Millisecond): // out of file descriptors, most likely
				continue
			case <-s.life.Done():
				return
			}
		}
		if c := s.track(raw); c != nil {
			s.tasks.Go(func() { s.welcome(c) })
		}
	}
}

// welcome shakes hands and passes the connection on.
func (s *stream) welcome(c *tracked) {
	ctx, cancel := context.WithTimeout(s.life, handshakeTimeout)
	defer cancel()
	var purpose byte
	err := c.begin(ctx, s.server, tls.Server, func() (err error) {
		purpose, err = s.hear(c)
		return err
	})
	if err == nil && purpose == connRaft {
		select {
		case s.accepted <- c:
			return
		case <-s.life.Done():
		}
	}
	switch {
	case err != nil:
	case purpose == connVote && s.calls.vote != nil:
		err = s.takeVote(ctx, c)
	case purpose == connEntry && s.calls.log != nil:
		err = s.takeEntry(ctx, c)
	case purpose == connSeed && s.calls.seed != nil:
		err = s.calls.seed(c)
	}
	if err != nil {
		s.logger.Debug("a connection to the raft port was refused", "from", c.raw.RemoteAddr(), "error", err)
	}
	c.Close()
}

// track takes a connection into s.conns, or closes it and returns nil if the
// stream is closed.
func (s *stream) track(raw net.Conn) *tracked {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil {
		raw.Close()
		return nil
	}
	c := &tracked{Conn: raw, raw: raw, stream: s}
	s.conns[c] = struct{}{}
	return c
}

// A tracked connection is closed with its stream.
type tracked struct {
	net.Conn // what is read and written: raw, or TLS over it
	raw      net.Conn
	stream   *stream
}

// Close closes the connection without the farewell of TLS, which could block.
func (c *tracked) Close() error {
	c.stream.mu.Lock()
	delete(c.stream.conns, c)
	c.stream.mu.Unlock()
	return c.raw.Close()
}

// begin puts TLS over the connection, if config is not nil, and runs the first
// exchange, all until ctx's deadline.
func (c *tracked) begin(ctx context.Context, config *tls.Config, layer func(net.Conn, *tls.Config) *tls.Conn, first func() error) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.raw.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if config != nil {
		secured := layer(c.raw, config)
		if err := secured.HandshakeContext(ctx); err != nil {
			return err
		}
		c.Conn = secured
	}
	if err := first(); err != nil {
		return err
	}
	return c.raw.SetDeadline(time.Time{})
}

func (c *tracked) say(greeting []byte) error {
	_, err := c.Write(greeting)
	return err
}

// greeting is what a connection begins with.
func (s *stream) greeting(purpose byte) []byte {
	timeline, _ := s.calls.timeline()
	if timeline == 0 {
		return []byte{purpose}
	}
	return append(binary.BigEndian.AppendUint64([]byte{connTimeline}, timeline), purpose)
}

// hear reads a greeting. Masters of a timeline that was left by a restore bear
// the same names and may still run: they and those of the new one must not hear
// each other. A master that has no data yet joins whoever leads it, so one that
// asks for records names no timeline.
func (s *stream) hear(c *tracked) (purpose byte, err error) {
	var b [8]byte
	if _, err := io.ReadFull(c, b[:1]); err != nil {
		return 0, err
	}
	purpose = b[0]
	var theirs uint64
	if purpose == connTimeline {
		if _, err := io.ReadFull(c, b[:]); err != nil {
			return 0, err
		}
		theirs = binary.BigEndian.Uint64(b[:])
		if _, err := io.ReadFull(c, b[:1]); err != nil {
			return 0, err
		}
		purpose = b[0]
	}
	if ours, empty := s.calls.timeline(); ours != theirs && !empty && purpose != connSeed {
		return 0, fmt.Errorf("the other master is of timeline %d, this one of %d: one of them was left by a restore and must be stopped (0: never restored)", theirs, ours)
	}
	return purpose, nil
}

// A voteCast is a master's accumulator at a mark, on its way to the leader.
type voteCast struct {
	StateVote
	raftIndex uint64
}

const voteSize = 8 + 4 + 32

// sendVote carries a vote as raft index 8 ‖ node 4 ‖ accumulator 32 bytes, and
// waits until the other side has read it.
func (s *stream) sendVote(ctx context.Context, to string, v voteCast) error {
	c, err := s.open(ctx, to, connVote)
	if err != nil {
		return err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return err
		}
	}
	b := binary.BigEndian.AppendUint64(make([]byte, 0, voteSize), v.raftIndex)
	b = append(binary.BigEndian.AppendUint32(b, uint32(v.Node)), v.Accumulator[:]...)
	if _, err := c.Write(b); err != nil {
		return err
	}
	var ok [1]byte
	_, err = io.ReadFull(c, ok[:])
	return err
}

// takeVote reads what sendVote wrote. A master votes in its own name only.
func (s *stream) takeVote(ctx context.Context, c *tracked) error {
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return err
	}
	var b [voteSize]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return err
	}
	v := voteCast{raftIndex: binary.BigEndian.Uint64(b[:])}
	v.Node = crm.NodeID(binary.BigEndian.Uint32(b[8:]))
	copy(v.Accumulator[:], b[12:])
	if secured, ok := c.Conn.(*tls.Conn); ok {
		id, err := auth.PeerIdentity(secured.ConnectionState())
		if err != nil || crm.NodeID(id.Node) != v.Node {
			return errors.Join(fmt.Errorf("vote of node %d from %v", v.Node, id), err)
		}
	}
	s.calls.vote(v)
	_, err := c.Write([]byte{1})
	return err
}
