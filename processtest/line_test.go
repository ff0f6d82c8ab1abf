package processtest

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/faultnet"
)

// badDays befall the line between a branch and its master while clerks write,
// each after the branch has recovered from the one before. A reset follows the
// black holes, because otherwise only three silent heartbeats would tell.
var badDays = []string{
	"at 0s * up truncate 1kB 300ms",
	"at 0s * down truncate 1kB 300ms",
	"at 0s * up blackhole 300ms \n at 300ms * reset",
	"at 0s * down blackhole 300ms \n at 300ms * reset", // decided, and the branch does not hear of it
	"at 0s * delay 20ms 1s \n at 0s * jitter 20ms 1s \n at 0s * loss 10% 1s \n at 500ms * reset",
	"at 0s * cut 500ms",
	"at 0s * rate 20kB 1s \n at 500ms * reset",
}

// TestBadLine runs a branch behind a line that truncates, resets, swallows and
// stalls its sessions in the middle of frames: all edits are decided once.
func TestBadLine(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	pid := os.Getpid()
	host := fmt.Sprintf("127.77.%d.%d", pid>>8&0xff, pid&0xff|1) // loopback of this test's own
	proxy, err := faultnet.Open(faultnet.Config{Listen: host + ":7500", Target: host + ":7400", Seed: 1})
	must(t, err)
	defer func() { must(t, proxy.Close()) }()
	c := startAt(ctx, t, 1, func(name string) (Place, error) {
		if name == "m1" {
			return Place{Host: host, Prefix: []string{"env", "TRADEPOST_ADVERTISE_SYNC=" + proxy.Addr()}}, nil
		}
		return Place{}, nil
	})
	b := newBranch(ctx, t, c.Replicas[0], 2)
	for _, text := range badDays {
		script, err := faultnet.ParseScript(text)
		must(t, err)
		b.awaitDecided(ctx, t)
		must(t, script.Run(ctx, map[string]*faultnet.Proxy{"wan": proxy}))
	}
	b.stop()
	verify(ctx, t, c, b.writer, 0)
	n := proxy.Counts()
	if n.Truncated < 2 || n.Resets < 2 || n.Up.Vanished == 0 || n.Down.Vanished == 0 {
		t.Errorf("the line was not as bad as it was meant to be: %+v", n)
	}
	t.Logf("%+v", n)
}
