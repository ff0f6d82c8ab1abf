package wansim

import (
	"io"
	"testing"
	"time"
)

// In real time a ping takes its round trip, and not much more.
func TestRealTime_RoundTrip(t *testing.T) {
	n := New(Config{Matrix: Uniform(20*ms, "oslo", "pune")})
	defer n.Close()
	client, server := connected(t, n)
	go io.Copy(server, server)
	best := time.Hour
	for range 10 {
		start := time.Now()
		write(t, client, "x")
		read(t, client, "x")
		took := time.Since(start)
		if took < 20*ms {
			t.Fatalf("a ping took %v, less than its 20 ms", took)
		}
		best = min(best, took)
	}
	if best > 25*ms {
		t.Errorf("the best of ten pings took %v, want 20 ms", best)
	}
}

// BenchmarkConn_NoDelay is the ceiling of a connection in real time.
func BenchmarkConn_NoDelay(b *testing.B) {
	n := New(Config{Matrix: Uniform(0, "oslo", "pune")})
	defer n.Close()
	client, server := connected(b, n)
	go io.Copy(io.Discard, server)
	buf := make([]byte, 64<<10)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if _, err := client.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
}
