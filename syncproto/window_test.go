package syncproto

import (
	"bytes"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// TestConn_AsksForASmallWindow: what a Conn writes names a window that costs the
// reader little, and the reader takes what wider ones wrote.
func TestConn_AsksForASmallWindow(t *testing.T) {
	_, batch := newEdits().group(16)
	var h zstd.Header
	if err := h.Decode(sent(t, batch)[len(preamble(MaxVersion)):]); err != nil {
		t.Fatal(err)
	}
	if h.WindowSize > sendWindow {
		t.Errorf("a window of %d bytes, want at most %d", h.WindowSize, sendWindow)
	}
	plain := bytes.Repeat([]byte{3, 17, 1, 1}, 100)
	c := NewConn(stream{bytes.NewReader(compressed(t, plain, zstd.WithWindowSize(Window)))})
	for range 100 {
		if _, err := c.Receive(); err != nil {
			t.Fatal(err)
		}
	}
}
