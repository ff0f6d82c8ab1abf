package faultnet

import (
	"container/heap"
	"context"
	"net"
	"sync"
	"time"
)

// maxSessions bounds the UDP sessions of a proxy. The one unused for longest
// makes room for a new one.
const maxSessions = 256

// A session is what one UDP client sends through the proxy, with a socket of its
// own to the target, as a NAT keeps it.
type session struct {
	proxy    *Proxy
	target   net.Conn
	cancel   context.CancelFunc
	up, down *mailbox
	used     uint64 // number of the latest datagram from the client
}

func (p *Proxy) openPacket() error {
	conn, err := p.cfg.ListenPacket("udp", p.cfg.Listen)
	if err != nil {
		return err
	}
	p.addr, p.close = conn.LocalAddr(), conn.Close
	p.wg.Go(func() { p.receive(conn) })
	return nil
}

// receive sorts the clients' datagrams into sessions.
func (p *Proxy) receive(conn net.PacketConn) {
	sessions := map[string]*session{}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer func() {
		for _, s := range sessions {
			s.close()
		}
	}()
	buf := make([]byte, 64<<10)
	for clock := uint64(1); ; clock++ {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			if p.ctx.Err() != nil {
				return
			}
			continue // what an ICMP message left on the socket
		}
		s, ok := sessions[from.String()]
		if !ok {
			if s, err = p.newSession(conn, from, &wg); err != nil {
				p.count(func(c *Counts) { c.Refused++ })
				continue
			}
			evict(sessions)
			sessions[from.String()] = s
		}
		s.used = clock
		s.up.send(append([]byte(nil), buf[:n]...))
	}
}

// evict makes room for one more session.
func evict(sessions map[string]*session) {
	if len(sessions) < maxSessions {
		return
	}
	var oldest string
	for key, s := range sessions {
		if oldest == "" || s.used < sessions[oldest].used {
			oldest = key
		}
	}
	sessions[oldest].close()
	delete(sessions, oldest)
}

func (p *Proxy) newSession(conn net.PacketConn, client net.Addr, wg *sync.WaitGroup) (*session, error) {
	target, err := p.cfg.Dial(p.ctx, "udp", p.cfg.Target)
	if err != nil {
		return nil, err
	}
	var number uint64
	p.count(func(c *Counts) {
		number = uint64(c.Connections)
		c.Connections++
		c.Open++
	})
	s := &session{proxy: p, target: target}
	ctx, cancel := context.WithCancel(p.ctx)
	s.cancel = cancel
	s.up = newMailbox(p, number, up, func(b []byte) error { _, err := target.Write(b); return err })
	s.down = newMailbox(p, number, down, func(b []byte) error { _, err := conn.WriteTo(b, client); return err })
	wg.Go(func() { s.up.deliver(ctx) })
	wg.Go(func() { s.down.deliver(ctx) })
	wg.Go(func() {
		s.receive(ctx)
		p.count(func(c *Counts) { c.Open-- })
	})
	return s, nil
}

// receive takes the target's answers.
func (s *session) receive(ctx context.Context) {
	buf := make([]byte, 64<<10)
	for {
		n, err := s.target.Read(buf)
		if ctx.Err() != nil {
			return
		}
		if err == nil { // else the target was not there when a datagram came
			s.down.send(append([]byte(nil), buf[:n]...))
		}
	}
}

func (s *session) close() {
	s.cancel()
	s.target.Close()
}

// A mailbox holds the datagrams of one direction of a session that are on their
// way, and hands each over when it arrives.
type mailbox struct {
	proxy *Proxy
	way   way
	hand  func([]byte) error
	wake  chan struct{} // holds one token when there is something new

	mu    sync.Mutex // protects what follows
	road  road
	queue arrivals
	held  int // bytes in queue
}

func newMailbox(p *Proxy, number uint64, w way, hand func([]byte) error) *mailbox {
	return &mailbox{proxy: p, way: w, hand: hand, wake: make(chan struct{}, 1), road: newRoad(p.cfg.Seed, number, w)}
}

// send puts a datagram on its way, if it is to arrive.
func (m *mailbox) send(data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.road.datagram(time.Now(), m.proxy.view(m.way).Line, len(data))
	held := 0
	for _, at := range f.arrivals {
		if m.held+len(data)+pieceCost > m.proxy.cfg.Window {
			break
		}
		held++
		m.held += len(data) + pieceCost
		heap.Push(&m.queue, arrival{data, at, m.queue.next()})
	}
	m.count(func(c *LineCounts) {
		switch {
		case len(f.arrivals) == 0:
			c.Lost++
		case held == 0:
			c.Overflowed++
		}
		if f.reordered {
			c.Reordered++
		}
		if held == 2 {
			c.Duplicated++
		}
	})
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// deliver hands datagrams over until ctx ends.
func (m *mailbox) deliver(ctx context.Context) {
	for ctx.Err() == nil {
		data, wait, ok := m.due()
		if ok {
			m.arrive(data)
			continue
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-m.wake:
		case <-t.C:
		}
		t.Stop()
	}
}

// arrive hands a datagram over unless the line is cut by now.
func (m *mailbox) arrive(data []byte) {
	if m.proxy.view(m.way).Flow != Clear || m.hand(data) != nil {
		m.count(func(c *LineCounts) { c.Lost++ })
		return
	}
	m.count(func(c *LineCounts) { c.Bytes += int64(len(data)) })
}

// due takes the first datagram out if it has arrived, and otherwise says how long
// to wait for it.
func (m *mailbox) due() (data []byte, wait time.Duration, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.queue.list) == 0 {
		return nil, time.Hour, false
	}
	if wait := time.Until(m.queue.list[0].at); wait > 0 {
		return nil, wait, false
	}
	a := heap.Pop(&m.queue).(arrival)
	m.held -= len(a.data) + pieceCost
	return a.data, 0, true
}

func (m *mailbox) count(add func(*LineCounts)) {
	m.proxy.count(func(c *Counts) { add(c.line(m.way)) })
}

// An arrival is a datagram on its way.
type arrival struct {
	data  []byte
	at    time.Time
	order uint64 // in which datagrams of one time arrive
}

// arrivals is a heap, the next arrival first.
type arrivals struct {
	list []arrival
	sent uint64
}

func (a *arrivals) next() uint64 {
	a.sent++
	return a.sent
}

func (a *arrivals) Len() int { return len(a.list) }
func (a *arrivals) Less(i, j int) bool {
	if !a.list[i].at.Equal(a.list[j].at) {
		return a.list[i].at.Before(a.list[j].at)
	}
	return a.list[i].order < a.list[j].order
}
func (a *arrivals) Swap(i, j int) { a.list[i], a.list[j] = a.list[j], a.list[i] }
func (a *arrivals) Push(x any)    { a.list = append(a.list, x.(arrival)) }
func (a *arrivals) Pop() any {
	last := a.list[len(a.list)-1]
	a.list = a.list[:len(a.list)-1]
	return last
}
