package sim

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"
)

var (
	seed  = flag.Uint64("seed", 1, "first seed of the simulated histories")
	seeds = flag.Int("seeds", 5, "how many are played")
	trace = flag.Bool("events", false, "print every event")
	nodes = flag.Bool("nodelog", false, "print what nodes log")
)

func TestSeeds(t *testing.T) {
	tpl := mustTemplate(t)
	for i := range *seeds {
		n := *seed + uint64(i)
		t.Run(fmt.Sprintf("seed=%d", n), func(t *testing.T) {
			var o Options
			if *trace {
				o.Trace = os.Stdout
			}
			if *nodes {
				o.Log = os.Stdout
			}
			if *trace {
				fmt.Print(Generate(n, DefaultSize))
			}
			start := time.Now()
			r, err := tpl.Play(Generate(n, DefaultSize), o)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("acked %d, events %d, frames %d, virtual %v, real %v, %s, %v", r.Acked, r.Events, r.Frames, r.Virtual, time.Since(start), r.Hash[:8], shares(r.Counts))
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		})
	}
}
