package clustertest

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
)

// play runs script lines whose output does not matter.
func (w *world) play(ctx context.Context, lines ...string) error {
	for _, line := range lines {
		words, err := split(line)
		if err == nil {
			err = Commands[words[0]].run(w, ctx, words[1:])
		}
		if err != nil {
			return errors.Join(errors.New(line), err)
		}
	}
	return nil
}

// An ETag that a branch gave names that branch's pending edits. At another
// branch, whose edits bear the same numbers, it vouches for none of them: the
// value that its reader never saw is kept.
func TestETag_OfAnotherBranchVouchesForNothingPendingHere(t *testing.T) {
	for name, c := range map[string]struct {
		from      string
		outcome   string
		conflicts int
	}{
		"of another branch": {"lisbon", "merged", 1},
		"of this branch":    {"porto", "accepted", 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			inBubble(t, func(t *testing.T, ctx context.Context) {
				w := newWorld(dir, 1)
				must := func(err error) {
					t.Helper()
					if err != nil {
						t.Fatal(errors.Join(err, w.close()))
					}
				}
				must(w.play(ctx, "cluster branches=lisbon,porto rtt=80ms", `create hq account/acme name="Acme" territory=key-accounts phone="+351 21 000 0000"`, "settle",
					"cut lisbon", "cut porto",
					"edit porto account/acme phone=\"+351 22 111 1111\"",    // porto's edit 1
					"create porto account/two name=Two territory=porto",     // 2
					"create porto account/three name=Three territory=porto", // 3
					"edit lisbon account/acme description=one",              // lisbon's edit 1
					"edit lisbon account/acme description=two"))             // 2
				there, err := w.client(ctx, c.from)
				must(err)
				here, err := w.client(ctx, "porto")
				must(err)
				id := w.id("account/acme").String()
				page, _, err := there.Get(ctx, "account", id, httpapi.Asked{})
				must(err)
				if !strings.Contains(page.Token, ".") {
					t.Errorf("token %s names no pending edit", page.Token)
				}
				saved, err := here.Patch(ctx, "account", id, page.Token, httpapi.Fields{"phone": "+351 22 222 2222"}, 0)
				must(err)
				must(w.play(ctx, "wait 1s", "heal", "settle"))
				api, err := w.api(ctx, "porto")
				must(err)
				o, err := api.Await(ctx, saved.Seq)
				must(err)
				if o.Kind.String() != c.outcome {
					t.Errorf("with %s: %v, want %s", page.Token, o.Kind, c.outcome)
				}
				for _, node := range []string{"porto", "lisbon", "hq"} {
					client, err := w.client(ctx, node)
					must(err)
					list, err := client.Attention(ctx, httpapi.Watch{Kind: "conflict", Record: id})
					must(err)
					if len(list.Items) != c.conflicts {
						t.Errorf("%s shows %d conflicts, want %d", node, len(list.Items), c.conflicts)
					}
					for _, a := range list.Items {
						if string(a.Lost.Value) != `"+351 22 111 1111"` || string(a.Kept.Value) != `"+351 22 222 2222"` || a.Code != crm.CodeConflict {
							t.Errorf("%s keeps %+v", node, a)
						}
					}
				}
				must(w.broken())
				if err := w.close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
