package faultnet

import (
	"fmt"
	"time"
)

// Faults are what a proxy does to the traffic in each direction. The zero value
// passes everything on unchanged.
type Faults struct {
	Up   Line // from those who connect to the proxy to the target
	Down Line // from the target back
}

// A Line is what one direction suffers. Shares are probabilities from 0 to 1.
type Line struct {
	Delay  time.Duration // each segment or datagram is late by this much
	Jitter time.Duration // and by up to this much more, uniformly drawn

	Rate  int // bytes a second that the line carries; 0: no limit
	Burst int // bytes that pass at once after a pause (token bucket); 0: 16 KiB

	Loss float64       // share of datagrams that vanish, or of TCP segments that stall the stream for RTO
	RTO  time.Duration // first retransmission timeout; 0: 200 ms, Linux's least

	Reorder   float64 // UDP: share of datagrams held back for ReorderBy, so that later ones pass them
	ReorderBy time.Duration
	Duplicate float64 // UDP: share of datagrams that arrive twice

	Flow Flow

	End   End   // what happens once After bytes have passed
	After int64 // counted by connection from the change of the faults, or from its start if that is later
}

// Flow says whether a line carries anything.
type Flow int

const (
	// Clear lines carry.
	Clear Flow = iota
	// Cut lines hold a stream's bytes until they are clear again, as TCP's
	// retransmissions do; datagrams are lost.
	Cut
	// BlackHole lines swallow: bytes are taken and vanish, and neither an end nor
	// a reset comes through. A connection that lost bytes so stays a black hole in
	// that direction when the line is clear again, because a stream cannot have a
	// gap. A black hole one way only is a half-open connection.
	BlackHole
)

// End says how a connection ends by itself.
type End int

const (
	// Endless connections end when a peer ends them.
	Endless End = iota
	// Reset: both peers get a reset, and what waits in the proxy is lost.
	Reset
	// Truncate: the receiver reads After bytes and then the end of the stream; the
	// sender reads the end of its stream too, and what it still sends is ignored.
	Truncate
)

const (
	defaultBurst = 16 << 10
	defaultRTO   = 200 * time.Millisecond
	segmentSize  = 1448 // bytes of a TCP segment on Ethernet with timestamps
)

// check says what is wrong with the values of a line.
func (l Line) check() error {
	for name, share := range map[string]float64{"Loss": l.Loss, "Reorder": l.Reorder, "Duplicate": l.Duplicate} {
		if !(share >= 0 && share <= 1) {
			return fmt.Errorf("%s is %v; give a share from 0 to 1", name, share)
		}
	}
	for name, v := range map[string]int64{
		"Delay": int64(l.Delay), "Jitter": int64(l.Jitter), "Rate": int64(l.Rate), "Burst": int64(l.Burst),
		"RTO": int64(l.RTO), "ReorderBy": int64(l.ReorderBy), "After": l.After,
	} {
		if v < 0 {
			return fmt.Errorf("%s is negative; give 0 or more", name)
		}
	}
	if l.Flow < Clear || l.Flow > BlackHole || l.End < Endless || l.End > Truncate {
		return fmt.Errorf("flow %d or end %d does not exist", l.Flow, l.End)
	}
	return nil
}

// A way is one of the two directions.
type way int

const (
	up way = iota
	down
)

func (f Faults) line(w way) Line {
	if w == up {
		return f.Up
	}
	return f.Down
}
