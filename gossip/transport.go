package gossip

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	maxPacket  = 64 << 10              // bytes; the largest UDP payload fits
	maxInbound = 64                    // inbound streams at a time
	errorPause = 50 * time.Millisecond // between failed reads or accepts
)

// A PacketTransport carries gossip over any pair of a net.PacketConn and a
// net.Listener. Addresses are opaque strings: over UDP they must be IP:port, as
// seeds also host:port; over another network they are whatever its WriteTo and
// dial understand. Addr.String of the sender of a packet is only logged.
type PacketTransport struct {
	pc        net.PacketConn
	listener  net.Listener
	dial      func(ctx context.Context, addr string) (net.Conn, error)
	advertise string
	udp       bool // pc wants *net.UDPAddr

	packets chan *memberlist.Packet
	streams chan net.Conn
	refused atomic.Uint64 // inbound streams beyond maxInbound

	life context.Context // ends at Shutdown; memberlist dials without a context
	end  context.CancelFunc

	loops  sync.WaitGroup // the two reading goroutines
	owners sync.WaitGroup // streams that memberlist has not closed yet

	mu      sync.Mutex // protects what follows
	open    map[*stream]struct{}
	inbound int
	closed  bool
	book    addressBook
}

var _ memberlist.NodeAwareTransport = (*PacketTransport)(nil)

// NewPacketTransport returns a transport for Config.Transport. It takes over pc
// and l, and starts nothing before Gossip.Run. Packets are written with an
// address whose String is the opaque one, or a *net.UDPAddr if pc's own address
// is one. dial opens a stream; its context ends at the time-out or at Shutdown.
// Streams must support deadlines. advertise is this node's own address, at most
// MaxAddress bytes.
func NewPacketTransport(pc net.PacketConn, l net.Listener, dial func(ctx context.Context, addr string) (net.Conn, error), advertise string) *PacketTransport {
	_, udp := pc.LocalAddr().(*net.UDPAddr)
	life, end := context.WithCancel(context.Background())
	return &PacketTransport{
		pc: pc, listener: l, dial: dial, advertise: advertise, udp: udp,
		packets: make(chan *memberlist.Packet),
		streams: make(chan net.Conn),
		life:    life, end: end,
		open: make(map[*stream]struct{}),
		book: make(addressBook),
	}
}

// start begins to receive.
func (t *PacketTransport) start() {
	t.loops.Go(t.readPackets)
	t.loops.Go(t.acceptStreams)
}

// Shutdown closes everything and returns when the transport's goroutines have
// ended and memberlist has closed all its streams.
func (t *PacketTransport) Shutdown() error {
	t.end()
	t.pc.Close()
	t.listener.Close()
	t.mu.Lock()
	t.closed = true
	for s := range t.open {
		s.Conn.Close() // its owner sees an error and closes s itself
	}
	t.mu.Unlock()
	t.loops.Wait()
	t.owners.Wait()
	return nil
}

// PacketCh delivers received packets.
func (t *PacketTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh delivers accepted streams.
func (t *PacketTransport) StreamCh() <-chan net.Conn { return t.streams }

// FinalAdvertiseAddr returns the advertised address, or its stand-in if it is
// not an IP:port. The arguments are memberlist's configuration and not used.
func (t *PacketTransport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	ip, port := standIn(t.advertise)
	return ip, int(port), nil
}

// WriteTo sends a packet to a host:port that memberlist knows.
func (t *PacketTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress sends a packet to a node. Its error is a *net.OpError, which
// memberlist counts as the node's failure to answer, until Shutdown; then it is
// net.ErrClosed, which makes memberlist drop a probe at once.
func (t *PacketTransport) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	if t.life.Err() != nil {
		return time.Time{}, net.ErrClosed
	}
	addr, err := t.packetAddr(to.Addr)
	if err == nil {
		_, err = t.pc.WriteTo(b, addr)
	}
	if err != nil {
		return time.Time{}, &net.OpError{Op: "write", Net: "udp", Addr: addr, Err: err}
	}
	return time.Now(), nil
}

func (t *PacketTransport) packetAddr(hostPort string) (net.Addr, error) {
	addr := t.lookUp(hostPort)
	if !t.udp {
		return opaque(addr), nil
	}
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	return net.UDPAddrFromAddrPort(ap), nil
}

// DialTimeout opens a stream to a host:port that memberlist knows.
func (t *PacketTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout opens a stream to a node. Until the caller sets another,
// the stream's deadline is timeout from now: memberlist writes its label before
// it sets one.
func (t *PacketTransport) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(t.life, timeout)
	defer cancel()
	conn, err := t.dial(ctx, t.lookUp(to.Addr))
	if err != nil {
		return nil, err
	}
	s, err := t.adopt(conn, false)
	if err != nil {
		conn.Close()
		return nil, err
	}
	s.SetDeadline(time.Now().Add(timeout))
	return s, nil
}

func (t *PacketTransport) readPackets() {
	buf := make([]byte, maxPacket)
	for t.life.Err() == nil {
		n, from, err := t.pc.ReadFrom(buf)
		at := time.Now()
		if err != nil {
			t.pause()
			continue
		}
		if n == 0 {
			continue
		}
		packet := &memberlist.Packet{Buf: append([]byte(nil), buf[:n]...), From: from, Timestamp: at}
		select {
		case t.packets <- packet:
		case <-t.life.Done():
		}
	}
}

func (t *PacketTransport) acceptStreams() {
	for t.life.Err() == nil {
		conn, err := t.listener.Accept()
		if err != nil {
			t.pause()
			continue
		}
		s, err := t.adopt(conn, true)
		if err != nil {
			conn.Close()
			continue
		}
		select {
		case t.streams <- s:
		case <-t.life.Done():
			s.Close()
		}
	}
}

// pause keeps a failing socket from spinning.
func (t *PacketTransport) pause() {
	select {
	case <-time.After(errorPause):
	case <-t.life.Done():
	}
}

// learn makes addr reachable through the host:port it returns.
func (t *PacketTransport) learn(addr string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.book.add(addr)
}

func (t *PacketTransport) lookUp(hostPort string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.book.find(hostPort)
}
