package master

import (
	"io"
	"net"
	"testing"
)

// A master that was restored hears those of its own timeline only, but gives its
// records to one that has none and so cannot name a timeline. One without data
// hears everybody.
func TestHear_TimelinesOfMasters(t *testing.T) {
	for name, c := range map[string]struct {
		ours, theirs uint64
		empty        bool
		purpose      byte
		heard        bool
	}{
		"never restored":                     {0, 0, false, connRaft, true},
		"of one timeline":                    {7, 7, false, connRaft, true},
		"left by the restore":                {7, 5, false, connRaft, false},
		"of before the first restore":        {7, 0, false, connRaft, false},
		"a vote of before the first restore": {7, 0, false, connVote, false},
		"left, to one that was restored":     {0, 7, false, connEntry, false},
		"one that joins":                     {7, 0, false, connSeed, true},
		"to one that joins":                  {0, 7, true, connRaft, true},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := net.Pipe()
			defer to.Close()
			timeline := func(n uint64, empty bool) *stream {
				return &stream{calls: &calls{timeline: func() (uint64, bool) { return n, empty }}}
			}
			go func() {
				_, _ = from.Write(timeline(c.theirs, false).greeting(c.purpose))
				from.Close()
			}()
			purpose, err := timeline(c.ours, c.empty).hear(&tracked{Conn: to})
			if heard := err == nil; heard != c.heard || heard && purpose != c.purpose {
				t.Errorf("purpose %q, %v", purpose, err)
			}
			_, _ = io.Copy(io.Discard, to)
		})
	}
}
