package faultnet

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// A lane is one direction of one TCP connection. Its read takes what comes from
// src, as long as the window has room, and its write hands it to dst when it has
// arrived.
type lane struct {
	conn     *connection
	way      way
	src, dst net.Conn
	other    *lane
	road     road                // read's own
	window   *semaphore.Weighted // bytes that may still enter
	queue    chan piece

	gone   atomic.Bool // whatever comes from now on vanishes
	change uint64      // write's own: the change of the faults since which passed counts
	passed int64
}

// A piece of a stream: bytes, or its end.
type piece struct {
	data []byte
	at   time.Time // when it arrives
	end  error     // io.EOF, or why src cannot be read
}

const (
	largestPiece = 16 << 10
	leastWindow  = 4 << 10
	pieceCost    = 64 // bytes of the window that a piece costs beside its data
)

func newLane(c *connection, w way, src, dst net.Conn) *lane {
	window := max(c.proxy.cfg.Window, leastWindow)
	return &lane{
		conn: c, way: w, src: src, dst: dst,
		road:   newRoad(c.proxy.cfg.Seed, c.number, w),
		window: semaphore.NewWeighted(int64(window)),
		queue:  make(chan piece, window/pieceCost), // never full: the window is before
	}
}

// read fills the queue until src ends.
func (l *lane) read() {
	defer close(l.queue)
	buf := make([]byte, min(largestPiece, cap(l.queue)*pieceCost/2))
	for {
		n, err := l.src.Read(buf)
		if n > 0 && !l.enter(piece{data: append([]byte(nil), buf[:n]...)}) {
			return
		}
		if err != nil {
			l.enter(piece{end: err})
			return
		}
	}
}

// enter puts a piece on its way; false means that the connection is over.
func (l *lane) enter(p piece) bool {
	if l.window.Acquire(l.conn.ctx, p.cost()) != nil {
		return false
	}
	var lost int
	p.at, lost = l.road.segments(time.Now(), l.view().Line, len(p.data))
	l.count(func(c *LineCounts) { c.Lost += int64(lost) })
	l.queue <- p
	return true
}

func (p piece) cost() int64 { return int64(len(p.data)) + pieceCost }

// write empties the queue until src has ended or the connection is over.
func (l *lane) write() {
	for p := range l.queue {
		v, ok := l.await(p.at)
		if !ok {
			return
		}
		if v.Flow == BlackHole {
			l.gone.Store(true)
		}
		switch {
		case l.gone.Load():
			l.count(func(c *LineCounts) { c.Vanished += int64(len(p.data)) })
		case p.end != nil:
			l.end(p.end)
		default:
			l.pass(v, p.data)
		}
		l.window.Release(p.cost())
	}
}

// await waits until a piece that arrives at the given time may pass.
func (l *lane) await(at time.Time) (view, bool) {
	return l.conn.proxy.await(l.conn.ctx, l.way, at)
}

// await returns what a direction suffers once a time has come and the direction
// is not cut; false means that ctx ended first.
func (p *Proxy) await(ctx context.Context, w way, at time.Time) (view, bool) {
	for {
		v := p.view(w)
		wait := time.Until(at)
		if wait <= 0 && v.Flow != Cut {
			return v, ctx.Err() == nil
		}
		if !sleep(ctx, wait, v) {
			return v, false
		}
	}
}

// sleep ends when a positive wait is over or, for a cut line, when the faults
// change; false means that ctx ended.
func sleep(ctx context.Context, wait time.Duration, v view) bool {
	if wait <= 0 {
		select {
		case <-ctx.Done():
			return false
		case <-v.changed:
			return true
		}
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// pass hands data to dst, up to where the faults end the connection.
func (l *lane) pass(v view, data []byte) {
	if l.change != v.change {
		l.change, l.passed = v.change, 0
	}
	end := Endless
	if room := v.After - l.passed; v.End != Endless && int64(len(data)) >= room {
		l.count(func(c *LineCounts) { c.Vanished += int64(len(data)) - room })
		data, end = data[:room], v.End
	}
	n, err := l.dst.Write(data)
	l.passed += int64(n)
	l.count(func(c *LineCounts) { c.Bytes += int64(n) })
	switch {
	case err != nil:
		l.refused()
	case end == Reset:
		l.conn.reset()
	case end == Truncate:
		l.conn.proxy.count(func(c *Counts) { c.Truncated++ })
		l.truncate()
	}
}

// refused is for bytes that dst no longer takes: its reset goes back to src if
// the other direction carries it.
func (l *lane) refused() {
	l.gone.Store(true)
	if !l.other.gone.Load() && l.other.view().Flow == Clear {
		l.conn.reset()
	}
}

// truncate ends both streams in good order. The sockets stay open until both
// peers have closed theirs, because closing now could reset away what the
// receiver has not read yet.
func (l *lane) truncate() {
	for _, lane := range []*lane{l, l.other} {
		lane.gone.Store(true)
		closeWrite(lane.dst)
	}
}

// end passes on that src has ended.
func (l *lane) end(err error) {
	switch {
	case err == io.EOF:
		closeWrite(l.dst)
	case !errors.Is(err, net.ErrClosed):
		l.conn.reset()
	}
}

func (l *lane) view() view { return l.conn.proxy.view(l.way) }

func (l *lane) count(add func(*LineCounts)) {
	l.conn.proxy.count(func(c *Counts) { add(c.line(l.way)) })
}
