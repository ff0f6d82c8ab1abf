package syncproto

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
)

// Window is how far back a compressed frame may refer, in bytes. A peer that
// asks for more is refused; it bounds the memory of a connection.
const Window = 128 << 10

// sendWindow is how far back this side refers. Each end keeps three times as much
// for it: a node that serves hundreds feels it, and no batch of edits compresses
// worse than with Window.
const sendWindow = 64 << 10

// keepScratch is the most that a Conn keeps for encoding between sends, in
// bytes.
const keepScratch = 64 << 10

// A Conn carries frames over a byte stream, in both directions. Any number of
// goroutines may Send; one at a time may Receive. After an error a direction
// stays broken and returns that error again.
//
// Conn writes its preamble with the first Send and reads the peer's with the
// first Receive, so neither waits for the other.
type Conn struct {
	rw      io.ReadWriter
	in      source
	out     sink
	highest uint16        // the newest version to offer
	version atomic.Uint32 // agreed on by the preambles
	spoken  atomic.Uint32 // of frames
	closed  atomic.Bool

	sendMu  sync.Mutex // protects what follows; may be held while writing
	w       *bufio.Writer
	enc     *zstd.Encoder // nil before the first write and after Close
	scratch []byte
	sendErr error

	recvMu  sync.Mutex    // protects what follows and in.err; held while reading
	dec     *zstd.Decoder // nil before the preamble was read and after Close
	recvErr error
}

// NewConn returns a Conn over rw. It does no I/O yet.
func NewConn(rw io.ReadWriter) *Conn {
	c := &Conn{rw: rw, highest: MaxVersion}
	c.spoken.Store(uint32(MinVersion))
	c.in.r = bufio.NewReaderSize(rw, 8<<10)
	c.out.w = rw
	c.w = bufio.NewWriterSize(&c.out, 16<<10)
	return c
}

// A source reads a transport: it counts, and remembers why reading ended, which
// a decompressor on top of it may hide.
type source struct {
	r   io.Reader
	n   atomic.Int64
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.n.Add(int64(n))
	s.err = err
	return n, err
}

// A sink writes to a transport and counts.
type sink struct {
	w io.Writer
	n atomic.Int64
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.n.Add(int64(n))
	return n, err
}

// BytesIn returns the bytes that received frames took on the wire: compressed,
// with the preamble, without TLS.
func (c *Conn) BytesIn() int64 { return c.in.n.Load() }

// BytesOut returns the bytes written, as BytesIn counts them.
func (c *Conn) BytesOut() int64 { return c.out.n.Load() }

// Limit offers no newer version than highest. Call it before Send and Receive.
func (c *Conn) Limit(highest uint16) { c.highest = highest }

// Version returns the version agreed with the peer, 0 before the first Receive.
func (c *Conn) Version() uint16 { return uint16(c.version.Load()) }

// Speak sets the version of the frames from here on; before it, that is
// MinVersion. Both sides call it after the Welcome: the one that sent it before
// it sends more, the one that received it before it receives more.
func (c *Conn) Speak(version uint16) { c.spoken.Store(uint32(version)) }

// Spoken returns the version of frames now.
func (c *Conn) Spoken() uint16 { return uint16(c.spoken.Load()) }

// Send writes the frames, in order and as one compressed group, and flushes. If
// a frame is out of bounds it writes nothing and returns an error with
// CodeFrame; the Conn stays usable.
func (c *Conn) Send(frames ...Frame) error {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	if c.sendErr != nil {
		return c.sendErr
	}
	group, err := c.encode(frames)
	if err != nil {
		return err
	}
	if err := c.write(group); err != nil {
		c.sendErr = fmt.Errorf("send %s: %w", names(frames), err)
	}
	return c.sendErr
}

func names(frames []Frame) string {
	if len(frames) == 1 {
		return frames[0].Kind().String()
	}
	return fmt.Sprintf("%d frames", len(frames))
}

// encode returns the frames with their lengths, valid until the next encode.
func (c *Conn) encode(frames []Frame) ([]byte, error) {
	group := c.scratch[:0]
	for _, f := range frames {
		const room = binary.MaxVarintLen32
		start := len(group)
		group = append(group, make([]byte, room)...)
		framed, err := AppendFrame(group, c.Spoken(), f)
		if err != nil {
			return nil, err
		}
		head := binary.AppendUvarint(framed[start:start], uint64(len(framed)-start-room))
		group = append(framed[:start+len(head)], framed[start+room:]...)
	}
	if c.scratch = group; cap(group) > keepScratch {
		c.scratch = nil
	}
	return group, nil
}

func (c *Conn) write(group []byte) error {
	if c.enc == nil {
		if err := c.startWriting(); err != nil {
			return err
		}
	}
	if _, err := c.enc.Write(group); err != nil {
		return err
	}
	if err := c.enc.Flush(); err != nil {
		return err
	}
	return c.w.Flush()
}

func (c *Conn) startWriting() (err error) {
	if _, err := c.w.Write(preamble(c.highest)); err != nil {
		return err
	}
	c.enc, err = zstd.NewWriter(c.w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(sendWindow),
		zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false))
	return err
}

// Receive returns the next frame. Its slices are the caller's. The error is
// io.EOF if the peer's stream ended between frames and wraps
// io.ErrUnexpectedEOF if it ended inside one; it has CodeFrame if the bytes are
// no frame and CodeVersion if the peer speaks no common version.
func (c *Conn) Receive() (Frame, error) {
	c.recvMu.Lock()
	defer c.recvMu.Unlock()
	if c.recvErr != nil {
		return nil, c.recvErr
	}
	f, err := c.read()
	c.recvErr = err
	return f, err
}

func (c *Conn) read() (Frame, error) {
	if c.dec == nil {
		if err := c.startReading(); err != nil {
			return nil, err
		}
	}
	before := c.BytesIn()
	n, err := binary.ReadUvarint(byteReader{c.dec})
	if err != nil {
		return nil, c.readError("length", err, c.BytesIn() == before)
	}
	if n == 0 || n > MaxFrame {
		return nil, badFrame("receive frame", "length", fmt.Sprintf("%d is not 1 to %d", n, MaxFrame), nil)
	}
	b, err := readFrame(c.dec, int(n))
	if err != nil {
		return nil, c.readError("frame", err, false)
	}
	return DecodeFrame(b, c.Spoken())
}

// readError says why reading ended: the transport, else the bytes it brought.
func (c *Conn) readError(item string, err error, between bool) error {
	switch {
	case c.in.err == io.EOF && between:
		return io.EOF
	case c.in.err == io.EOF:
		return fmt.Errorf("receive %s: %w", item, io.ErrUnexpectedEOF)
	case c.in.err != nil:
		return fmt.Errorf("receive %s: %w", item, c.in.err)
	}
	return badFrame("receive frame", item, "the stream is damaged", err)
}

// A byteReader reads no further than it is asked to.
type byteReader struct{ io.Reader }

func (r byteReader) ReadByte() (byte, error) {
	var b [1]byte
	_, err := io.ReadFull(r, b[:])
	return b[0], err
}

// readFrame reads n bytes into a new slice that grows as they arrive: a length
// alone reserves little.
func readFrame(r io.Reader, n int) ([]byte, error) {
	const step = 16 << 10
	b := make([]byte, 0, min(n, step))
	for len(b) < n {
		b = slices.Grow(b, min(n-len(b), max(step, len(b))))
		got, err := io.ReadFull(r, b[len(b):min(n, cap(b))])
		if b = b[:len(b)+got]; err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (c *Conn) startReading() (err error) {
	lowest, highest, err := c.readPreamble()
	if err != nil {
		return err
	}
	version, err := Negotiate(MinVersion, c.highest, lowest, highest)
	if err != nil {
		return err
	}
	c.version.Store(uint32(version))
	c.dec, err = zstd.NewReader(&c.in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(Window), zstd.WithDecoderMaxMemory(Window))
	return err
}

// magic begins every direction of a connection, so that a foreign peer is known
// before its bytes are decompressed.
const magic = "TPS1"

func preamble(highest uint16) []byte {
	b := binary.BigEndian.AppendUint16([]byte(magic), MinVersion)
	return binary.BigEndian.AppendUint16(b, highest)
}

func (c *Conn) readPreamble() (lowest, highest uint16, err error) {
	var b [len(magic) + 4]byte
	n, err := io.ReadFull(&c.in, b[:])
	if got := min(n, len(magic)); string(b[:got]) != magic[:got] {
		return 0, 0, badFrame("receive preamble", "", fmt.Sprintf("the peer is no Tradepost node: it begins with %q", b[:n]), nil)
	}
	if err != nil {
		return 0, 0, c.readError("preamble", err, n == 0)
	}
	return binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:]), nil
}

// Close closes the transport if that is an io.Closer, which ends a Send or a
// Receive in progress, waits for both, and releases the compression state. With
// another transport the caller must end them first. After Close both return
// net.ErrClosed. Closing again does nothing.
func (c *Conn) Close() error {
	var err error
	if closer, ok := c.rw.(io.Closer); ok && c.closed.CompareAndSwap(false, true) {
		err = closer.Close()
	}
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	c.enc, c.w, c.scratch, c.sendErr = nil, nil, nil, net.ErrClosed
	c.recvMu.Lock()
	defer c.recvMu.Unlock()
	if c.dec != nil {
		c.dec.Close()
	}
	c.dec, c.recvErr = nil, net.ErrClosed
	return err
}
