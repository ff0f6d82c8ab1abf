package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/tradepost-crm/tradepost/syncproto"
)

// What lines do if nothing is wrong with them.
const (
	lineDelay  = 40 * time.Millisecond // one way
	lineJitter = 5 * time.Millisecond
	// dialPatience is when a dial that nobody answers is given up.
	dialPatience = 10 * time.Second
	// resendAfter is the first wait of a sender that hears no acknowledgement; it
	// doubles with each further loss (RFC 6298).
	resendAfter = 300 * time.Millisecond
)

// A network carries frames between nodes. It knows a directed line for each
// pair of nodes, which delays, loses and holds what crosses it, and streams,
// which are reliable and ordered as TCP's are: what a line loses comes late, and
// everything behind it too; what a cut line holds comes when the line is mended,
// if the stream still stands.
type network struct {
	agenda *agenda
	dice   *dice
	trace  *Trace
	lines  map[[2]string]*line
	open   []*stream
	port   map[string]listener // by node: nil or absent if nothing listens
	count  int                 // streams made
	sent   int                 // frames
	lost   int                 // and how often one had to be sent again
}

// A listener takes a stream that somebody has dialled.
type listener func(from string, end *end)

func newNetwork(a *agenda, d *dice, t *Trace) *network {
	return &network{agenda: a, dice: d, trace: t, lines: map[[2]string]*line{}, port: map[string]listener{}}
}

// A line is one direction between two nodes.
type line struct {
	rand   *rand.Rand
	delay  time.Duration
	jitter time.Duration
	loss   float64 // share of frames that are lost at first
	cut    bool    // nothing crosses, and nobody is told
}

func (n *network) line(from, to string) *line {
	key := [2]string{from, to}
	l := n.lines[key]
	if l == nil {
		l = &line{rand: n.dice.For("line " + from + " " + to), delay: lineDelay, jitter: lineJitter}
		n.lines[key] = l
	}
	return l
}

// takes returns how long a frame sent now is under way.
func (l *line) takes() (d time.Duration, losses int) {
	d = l.delay + upTo(l.rand, l.jitter)
	for wait := resendAfter; losses < 6 && l.loss > 0 && l.rand.Float64() < l.loss; losses++ {
		d += wait
		wait *= 2
	}
	return d, losses
}

// Crosses reports whether a frame sent now would get there.
func (n *network) Crosses(from, to string) bool { return from == to || !n.line(from, to).cut }

// Cut stops a direction. Nobody is told; what is sent waits.
func (n *network) Cut(from, to string) { n.line(from, to).cut = true }

// Mend lets a direction carry again, and with it what waits there. Delay, jitter
// and loss are as they were at first.
func (n *network) Mend(from, to string) {
	l := n.line(from, to)
	l.cut, l.delay, l.jitter, l.loss = false, lineDelay, lineJitter, 0
	for _, s := range slices.Clone(n.open) {
		for _, e := range s.ends {
			if e.node == from && e.peer().node == to {
				e.release()
			}
		}
	}
}

// Reset breaks the streams between two nodes: the end at a learns it at once,
// the other when the news has crossed, after what is under way.
func (n *network) Reset(a, b string) {
	n.each(a, b, func(e *end) {
		e.close()
		e.tell("connection reset")
	})
}

// Forget breaks the streams between two nodes at a alone: b goes on sending into
// nothing.
func (n *network) Forget(a, b string) {
	n.each(a, b, func(e *end) {
		e.drop()
		e.tell("connection reset")
	})
}

// Vanish ends all streams of a node that has died without a word, and what it
// listened with. If the machine lives on, it answers for the process: its peers
// learn it when they next send.
func (n *network) Vanish(node string, machineLives bool) {
	delete(n.port, node)
	for _, s := range slices.Clone(n.open) {
		for _, e := range s.ends {
			switch {
			case e.node != node || !e.open:
			case machineLives:
				e.close()
			default:
				e.drop()
			}
		}
	}
}

func (n *network) each(a, b string, do func(*end)) {
	for _, s := range slices.Clone(n.open) {
		for _, e := range s.ends {
			if e.node == a && e.peer().node == b && e.open {
				do(e)
			}
		}
	}
}

// Listen has take called with each stream dialled to the node.
func (n *network) Listen(node string, take listener) { n.port[node] = take }

// Dial opens a stream. done is called once, with an end or the reason why there
// is none.
func (n *network) Dial(from, to string, done func(*end, error)) {
	out, back := n.line(from, to), n.line(to, from)
	if out.cut || back.cut {
		n.agenda.After(dialPatience, func() { done(nil, fmt.Errorf("dial %s: nobody answers", to)) })
		return
	}
	there, _ := out.takes()
	here, _ := back.takes()
	n.agenda.After(there+here, func() {
		take := n.port[to]
		if take == nil {
			done(nil, fmt.Errorf("dial %s: connection refused", to))
			return
		}
		n.count++
		s := &stream{network: n, number: n.count}
		for i, node := range []string{from, to} {
			s.ends[i] = &end{stream: s, side: i, node: node, open: true, spoken: syncproto.MinVersion}
		}
		n.open = append(n.open, s)
		take(from, s.ends[1])
		done(s.ends[0], nil)
	})
}

// A stream is a connection between two nodes.
type stream struct {
	network *network
	number  int
	ends    [2]*end
}

// An end is a node's side of a stream. Whoever takes it sets Hear and Ended.
type end struct {
	stream *stream
	side   int
	node   string
	open   bool
	spoken uint16 // the version of the frames from here on, in both directions

	Hear  func(syncproto.Frame) // a frame has come
	Ended func(error)           // the stream has ended; nothing comes after

	queue []parcel      // sent and not arrived, in order
	last  time.Duration // when the newest of it arrives, if nothing holds it up
}

// A parcel is an encoded frame, or the end of the stream if it has no bytes.
type parcel struct {
	at    time.Duration // when it arrives
	bytes []byte
}

func (e *end) peer() *end { return e.stream.ends[1-e.side] }

// Send puts frames on their way. A closed end sends nothing. The frames are
// encoded here and decoded at the peer. It fails if a frame cannot be encoded.
func (e *end) Send(frames ...syncproto.Frame) error {
	for _, f := range frames {
		b, err := syncproto.AppendFrame(nil, e.spoken, f)
		if err != nil {
			return fmt.Errorf("send to %s: %w", e.peer().node, err)
		}
		if e.open {
			e.stream.network.sent++
			e.ship(b)
		}
		e.agree(f)
	}
	return nil
}

// agree takes up the version that a Welcome says, as both sides do behind it.
func (e *end) agree(f syncproto.Frame) {
	if w, ok := f.(*syncproto.Welcome); ok {
		e.spoken = w.Proto
	}
}

// Close ends the stream: the peer learns it after all that was sent before.
func (e *end) Close() {
	if e.open {
		e.close()
	}
}

func (e *end) close() {
	e.ship(nil)
	e.drop()
}

// drop forgets the stream on this side only.
func (e *end) drop() {
	e.open = false
	s := e.stream
	if !e.peer().open {
		s.network.open = slices.DeleteFunc(s.network.open, func(o *stream) bool { return o == s })
	}
}

func (e *end) tell(why string) {
	if e.Ended != nil {
		e.stream.network.agenda.After(0, func() { e.Ended(fmt.Errorf("%s: %s", e.peer().node, why)) })
	}
}

// ship puts a frame under way, behind those before it.
func (e *end) ship(frame []byte) {
	e.queue = append(e.queue, parcel{e.arrival(), frame})
	e.await()
}

// arrival returns when what leaves now arrives.
func (e *end) arrival() time.Duration {
	n := e.stream.network
	d, losses := n.line(e.node, e.peer().node).takes()
	n.lost += losses
	e.last = max(e.last, n.agenda.now+d)
	return e.last
}

func (e *end) await() { e.stream.network.agenda.At(e.last, e.arrive) }

// release puts under way again what a cut has held.
func (e *end) release() {
	for i := range e.queue {
		e.queue[i].at = e.arrival()
		e.await()
	}
}

// arrive hands the peer what has come by now, unless the line is cut: then it
// has not been acknowledged, and waits.
func (e *end) arrive() {
	n := e.stream.network
	for len(e.queue) > 0 && e.queue[0].at <= n.agenda.now && !n.line(e.node, e.peer().node).cut {
		p := e.queue[0]
		e.queue = e.queue[1:]
		e.hand(p.bytes)
	}
}

func (e *end) hand(frame []byte) {
	n, to := e.stream.network, e.peer()
	if !to.open {
		return
	}
	if frame == nil {
		to.drop()
		to.tell("the peer has closed the connection")
		return
	}
	f, err := syncproto.DecodeFrame(frame, to.spoken)
	if err != nil {
		panic(fmt.Sprintf("sim: a frame from %s to %s does not decode in version %d: %v", e.node, to.node, to.spoken, err))
	}
	to.agree(f)
	n.trace.Note(n.agenda.now, to.node, "hears %s of %s on %d: %s", f.Kind(), e.node, e.stream.number, describe(f))
	if to.Hear != nil {
		to.Hear(f)
	}
}
