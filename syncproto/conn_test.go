package syncproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/tradepost-crm/tradepost/crm"
)

// A stream is the bytes of one direction as a transport whose writes go nowhere.
type stream struct{ io.Reader }

func (stream) Write(p []byte) (int, error) { return len(p), nil }

// sent returns the bytes of a direction that carries the frames, each sent alone.
func sent(tb testing.TB, frames ...Frame) []byte {
	tb.Helper()
	var b bytes.Buffer
	c := NewConn(&b)
	for _, f := range frames {
		mustSend(tb, c, f)
	}
	return b.Bytes()
}

// compressed returns a direction whose decompressed bytes are plain.
func compressed(tb testing.TB, plain []byte, options ...zstd.EOption) []byte {
	tb.Helper()
	b := bytes.NewBuffer(preamble(MaxVersion))
	enc, err := zstd.NewWriter(b, append([]zstd.EOption{zstd.WithWindowSize(Window)}, options...)...)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := enc.Write(plain); err != nil {
		tb.Fatal(err)
	}
	if err := enc.Flush(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func TestConn_CarriesEveryFrame(t *testing.T) {
	var transport bytes.Buffer
	c := NewConn(&transport)
	mustSend(t, c, samples(MinVersion)...)
	for i, f := range samples(MinVersion) {
		mustSend(t, c, f)
		if i%3 == 0 {
			mustSend(t, c)
		}
	}
	for range 2 {
		for _, want := range samples(MinVersion) {
			got, err := c.Receive()
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("got %v, %v, want %s", got, err, want.Kind())
			}
		}
	}
	if _, err := c.Receive(); err != io.EOF {
		t.Errorf("at the end: %v, want io.EOF", err)
	}
	if c.Version() != MaxVersion || c.BytesIn() != c.BytesOut() || c.BytesIn() == 0 {
		t.Errorf("version %d, %d bytes in, %d out", c.Version(), c.BytesIn(), c.BytesOut())
	}
}

// Every frame is readable as soon as Send returns, without a byte of the next.
// Hello and Welcome are understood before a version is agreed on, the rest as
// both then speak.
func TestConn_Versions(t *testing.T) {
	for version := MinVersion; version <= MaxVersion; version++ {
		var ours, theirs bytes.Buffer
		a, b := NewConn(&duplex{&theirs, &ours}), NewConn(&duplex{&ours, &theirs})
		b.Limit(version)
		mustSend(t, a, &Hello{NextSeq: 1, ProtoMin: MinVersion, ProtoMax: MaxVersion})
		if _, err := b.Receive(); err != nil {
			t.Fatal(err)
		}
		frames := samples(version)
		mustSend(t, b, frames[2])
		b.Speak(version)
		mustSend(t, b, frames...)
		w, err := a.Receive()
		if err != nil || a.Version() != version || w.(*Welcome).Proto != version {
			t.Fatalf("version %d: %v, agreed on %d, %v", version, w, a.Version(), err)
		}
		a.Speak(version)
		for _, want := range frames {
			if got, err := a.Receive(); err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("version %d: %v, %v", version, got, err)
			}
		}
	}
}

// A duplex reads from one buffer and writes into another.
type duplex struct{ in, out *bytes.Buffer }

func (d *duplex) Read(p []byte) (int, error)  { return d.in.Read(p) }
func (d *duplex) Write(p []byte) (int, error) { return d.out.Write(p) }

func TestConn_FlushesEachSend(t *testing.T) {
	var transport bytes.Buffer
	c := NewConn(&transport)
	for seq := range crm.Seq(300) {
		mustSend(t, c, &Pushed{Seq: seq})
		if f, err := c.Receive(); err != nil || f.(*Pushed).Seq != seq {
			t.Fatalf("got %v, %v", f, err)
		}
		if transport.Len() != 0 {
			t.Fatalf("%d bytes wait in the transport", transport.Len())
		}
	}
}

func TestConn_BothSidesMaySendFirst(t *testing.T) {
	a, b := net.Pipe()
	left, right := NewConn(a), NewConn(b)
	var wg sync.WaitGroup
	for _, c := range []*Conn{left, right} {
		wg.Go(func() {
			if err := c.Send(&Pushed{Seq: 1}); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if f, err := c.Receive(); err != nil || f.Kind() != KindPushed {
				t.Errorf("got %v, %v", f, err)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(left.Close(), right.Close()); err != nil {
		t.Error(err)
	}
}

func TestConn_ManySenders(t *testing.T) {
	a, b := net.Pipe()
	left, right := NewConn(a), NewConn(b)
	shared := &Forward{Mutations: [][]byte{bytes.Repeat([]byte{1}, 5000)}}
	const each = 200
	var wg sync.WaitGroup
	for id := range uint32(2) {
		wg.Go(func() {
			for n := range int64(each) {
				if err := left.Send(&Heartbeat{ID: id, T1: n}, shared); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	next := map[uint32]int64{}
	for range 2 * each {
		f, err := right.Receive()
		if err != nil {
			t.Fatal(err)
		}
		h := f.(*Heartbeat)
		if h.T1 != next[h.ID] {
			t.Fatalf("sender %d: frame %d came where %d was due", h.ID, h.T1, next[h.ID])
		}
		next[h.ID]++
		if f, err := right.Receive(); err != nil || !reflect.DeepEqual(f, shared) {
			t.Fatalf("a group was torn: %v, %v", f, err)
		}
	}
	wg.Wait()
	left.Close()
	right.Close()
}

// The peer reads a few bytes at a time, with pauses.
func TestConn_SlowPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		left, right := NewConn(a), NewConn(slow{b})
		push, _ := newEdits().group(100)
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := left.Send(push, &Pushed{Seq: 5}); err != nil {
				t.Error(err)
			}
		})
		for _, want := range []Frame{push, &Pushed{Seq: 5}} {
			if got, err := right.Receive(); err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("got %v, %v, want %s", got, err, want.Kind())
			}
		}
		wg.Wait()
		left.Close()
		right.Close()
	})
}

// slow passes at most 7 bytes a second.
type slow struct{ net.Conn }

func (s slow) Read(p []byte) (int, error) {
	<-time.After(time.Second)
	return s.Conn.Read(p[:min(len(p), 7)])
}

func TestConn_DeadlineIsTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		c := NewConn(a)
		a.SetDeadline(time.Now().Add(time.Second))
		if _, err := c.Receive(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("receive: %v", err)
		}
		first := c.Send(&Pushed{})
		if !errors.Is(first, os.ErrDeadlineExceeded) || !strings.Contains(first.Error(), "send pushed") {
			t.Errorf("send: %v", first)
		}
		a.SetDeadline(time.Time{})
		if err := c.Send(&Pushed{}); err != first {
			t.Errorf("the broken direction was used again: %v", err)
		}
		c.Close()
	})
}

func TestConn_CloseEndsBothDirections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		c := NewConn(a)
		var wg sync.WaitGroup
		wg.Go(func() {
			if f, err := c.Receive(); err == nil {
				t.Errorf("received %v", f)
			}
		})
		wg.Go(func() {
			if err := c.Send(&Pushed{}); err == nil {
				t.Error("sent into a pipe that nobody reads")
			}
		})
		synctest.Wait()
		if err := errors.Join(c.Close(), c.Close()); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if _, err := c.Receive(); err != net.ErrClosed {
			t.Errorf("receive after close: %v", err)
		}
		if err := c.Send(&Pushed{}); err != net.ErrClosed {
			t.Errorf("send after close: %v", err)
		}
	})
}

func TestConn_RefusedFrameLeavesItUsable(t *testing.T) {
	var transport bytes.Buffer
	c := NewConn(&transport)
	wantError(t, c.Send(&Pushed{}, &Ask{}), CodeFrame, "ask.what")
	if c.BytesOut() != 0 {
		t.Errorf("%d bytes were written", c.BytesOut())
	}
	mustSend(t, c, &Pushed{Seq: 9})
	if f, err := c.Receive(); err != nil || f.(*Pushed).Seq != 9 {
		t.Errorf("got %v, %v", f, err)
	}
}

func TestConn_RefusesForeignPeers(t *testing.T) {
	tests := []struct {
		name, want string
		code       crm.Code
		b          []byte
	}{
		{"HTTP", `the peer is no Tradepost node: it begins with "GET / HT"`, CodeFrame, []byte("GET / HTTP/1.1\r\n")},
		{"short", `it begins with "SSH"`, CodeFrame, []byte("SSH")},
		{"newer", "the peer speaks 4 to 5, this node 1 to 3: upgrade this node", CodeVersion, []byte("TPS1\x00\x04\x00\x05")},
		{"older", "the peer speaks 0 to 0", CodeVersion, []byte("TPS1\x00\x00\x00\x00")},
		{"not compressed", "the stream is damaged", CodeFrame, append(preamble(MaxVersion), "plain text here"...)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := NewConn(stream{bytes.NewReader(tt.b)})
			_, err := c.Receive()
			wantError(t, err, tt.code, tt.want)
			if _, again := c.Receive(); again != err {
				t.Errorf("then %v", again)
			}
		})
	}
}

func TestConn_RefusesBadStreams(t *testing.T) {
	length := func(n uint64) []byte { return binary.AppendUvarint(nil, n) }
	tests := []struct {
		name, want string
		code       crm.Code
		plain      []byte
	}{
		{"no length", "length: 0 is not", CodeFrame, []byte{0, 0}},
		{"long", "length: 2097153 is not 1 to 2097152", CodeFrame, length(MaxFrame + 1)},
		{"huge", "length: 18446744073709551615 is not", CodeFrame, length(1<<64 - 1)},
		{"overflow", "the stream is damaged", CodeFrame, bytes.Repeat([]byte{0xff}, 20)},
		{"unknown", "frame kind 42 is not part of version 1", CodeVersion, []byte{1, 42}},
		{"field", "ask.what: 9 is not 1 to 2", CodeFrame, []byte{3, 17, 1, 9}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := NewConn(stream{bytes.NewReader(compressed(t, tt.plain))}).Receive()
			wantError(t, err, tt.code, tt.want)
		})
	}
}

// The end of the stream is clean between frames only.
func TestConn_Truncations(t *testing.T) {
	push, _ := newEdits().group(2)
	whole := sent(t, push, &Gap{Expected: 3})
	first := len(sent(t, push))
	for n := range whole {
		c := NewConn(stream{iotest.HalfReader(bytes.NewReader(whole[:n]))})
		f, err := c.Receive()
		switch {
		case n >= first && err == nil:
			if !reflect.DeepEqual(f, push) {
				t.Fatalf("%d bytes: got %v", n, f)
			}
			if _, err = c.Receive(); n == first && err != io.EOF {
				t.Fatalf("between frames: %v", err)
			}
		case n == 0 && err != io.EOF:
			t.Fatalf("nothing: %v", err)
		}
		if n > 0 && n != first && !errors.Is(err, io.ErrUnexpectedEOF) && !(n == len(preamble(MaxVersion)) && err == io.EOF) {
			t.Fatalf("%d of %d bytes: %v", n, len(whole), err)
		}
	}
}

// Damage in transit is TLS's to find; here it must only do no harm.
func TestConn_GarbageDoesNoHarm(t *testing.T) {
	push, batch := newEdits().group(16)
	whole := sent(t, push, batch, &Gap{Expected: 3})
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		b := bytes.Clone(whole)
		for range 1 + rng.IntN(4) {
			b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		}
		receiveAll(NewConn(stream{bytes.NewReader(b)}))
	}
}

func receiveAll(c *Conn) (frames []Frame, err error) {
	for {
		f, err := c.Receive()
		if err != nil {
			return frames, err
		}
		frames = append(frames, f)
	}
}

func TestConn_RefusesWiderWindow(t *testing.T) {
	plain := bytes.Repeat([]byte{1, 42}, 200<<10)
	for _, options := range [][]zstd.EOption{{zstd.WithWindowSize(2 * Window)}, {zstd.WithWindowSize(8 << 20)}} {
		_, err := NewConn(stream{bytes.NewReader(compressed(t, plain, options...))}).Receive()
		wantError(t, err, CodeFrame, "the stream is damaged")
		if !errors.Is(err, zstd.ErrWindowSizeExceeded) {
			t.Errorf("cause: %v", err)
		}
	}
	single := append(preamble(MaxVersion), 0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0x10, 0) // one segment of 1 MiB
	_, err := NewConn(stream{bytes.NewReader(single)}).Receive()
	wantError(t, err, CodeFrame, "the stream is damaged")
}

// A length of 2 MiB with nothing behind it, and a bomb that a few hundred bytes
// unpack to gigabytes, both cost little memory.
func TestConn_BoundsMemory(t *testing.T) {
	lone := compressed(t, binary.AppendUvarint(nil, MaxFrame))
	if got := allocated(func() { receiveAll(NewConn(stream{bytes.NewReader(lone)})) }); got > 2<<20 {
		t.Errorf("a lone length allocated %d bytes", got)
	}
	bomb := compressed(t, make([]byte, 64<<20))
	if got := allocated(func() { receiveAll(NewConn(stream{bytes.NewReader(bomb)})) }); got > 4<<20 {
		t.Errorf("%d bytes allocated %d", len(bomb), got)
	}
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func FuzzReceive(f *testing.F) {
	push, batch := newEdits().group(3)
	f.Add(sent(f, samples(MinVersion)...))
	f.Add(sent(f, push, batch))
	f.Add(compressed(f, binary.AppendUvarint(nil, MaxFrame)))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		frames, err := receiveAll(NewConn(stream{bytes.NewReader(b)}))
		if err == nil {
			t.Fatal("the stream has no end")
		}
		for _, frame := range frames {
			if _, err := AppendFrame(nil, MinVersion, frame); err != nil {
				t.Fatalf("received what cannot be sent: %v", err)
			}
		}
	})
}
