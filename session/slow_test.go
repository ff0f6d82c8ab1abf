package session_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// TestSlowConsumer: a replica stops reading while edits are decided. It is hung
// up on when it has taken nothing for long enough, another one sees every edit at
// once meanwhile, and when it comes back it is sent everything from its Cursor on:
// each record once, none left out.
func TestSlowConsumer(t *testing.T) {
	const seconds = 200 // an edit each
	synctest.Test(t, func(t *testing.T) {
		s := newStorm(t, 2, 500)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		head := s.fsm.Head()
		slow, err := s.come(ctx, &wg, s.nodes[0], &syncproto.Hello{Bootstrap: true})
		s.must(err)
		_, err = slow.until(head)
		s.must(err)
		live, err := s.come(ctx, &wg, s.nodes[1], &syncproto.Hello{Bootstrap: true})
		s.must(err)
		_, err = live.until(head)
		s.must(err)

		start, ended, latest := time.Now(), time.Duration(0), time.Duration(0)
		for i := range seconds {
			time.Sleep(time.Second)
			decided := time.Now()
			s.office(inTerritory(s.account(fmt.Sprint("edit ", i)), "north"))
			_, err := live.until(s.fsm.Head())
			s.must(err)
			latest = max(latest, time.Since(decided))
			s.must(live.conn.Send(&syncproto.Applied{Cursor: s.fsm.Head()}))
			if ended == 0 && len(s.srv.Sessions()) == 1 {
				ended = time.Since(start)
			}
		}
		t.Logf("the slow replica was hung up on after %v; a live one waited %v at most for an edit", ended, latest)
		if ended < 90*time.Second || ended > 140*time.Second { // looked at four times in the 90 s
			t.Errorf("the slow replica was hung up on after %v", ended)
		}
		if latest > 100*time.Millisecond {
			t.Errorf("the live replica waited %v for an edit", latest)
		}

		back, err := s.come(ctx, &wg, s.nodes[0], &syncproto.Hello{Incarnation: 1, Timeline: slow.welcome.Timeline, Cursor: head})
		s.must(err)
		got := map[crm.RecordID]int{}
		for b := range back.batches {
			if b.From != head {
				t.Errorf("a batch from rev %d, the replica is at %d", b.From, head)
			}
			for _, it := range b.Items {
				got[it.ID]++
			}
			if b.Final {
				break
			}
		}
		for id, n := range got {
			if n != 1 {
				t.Errorf("record %s came %d times", id, n)
			}
		}
		if len(got) != seconds {
			t.Errorf("%d records came, want %d", len(got), seconds)
		}
	})
}
