package faultnet

// Counts are what a proxy has seen since it was opened.
type Counts struct {
	Connections int // accepted TCP connections, or UDP sessions
	Open        int // of them, not over yet
	Refused     int // could not be passed on to the target
	Resets      int // connections that the proxy reset, faults and refusals together
	Truncated   int // connections that a Truncate ended
	Up, Down    LineCounts
}

// LineCounts are those of one direction.
type LineCounts struct {
	Bytes      int64 // passed on
	Vanished   int64 // bytes swallowed by a black hole, or after a truncation
	Lost       int64 // datagrams lost to Loss, a cut or a black hole; TCP segments lost, retransmissions included
	Overflowed int64 // datagrams lost because Config.Window was full
	Reordered  int64 // datagrams held back
	Duplicated int64 // datagrams that arrived twice
}

func (c *Counts) line(w way) *LineCounts {
	if w == up {
		return &c.Up
	}
	return &c.Down
}
