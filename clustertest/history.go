package clustertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/devcluster"
	"github.com/tradepost-crm/tradepost/store"
)

// Size of a random history.
const (
	historyBranches = 3
	historyRecords  = 4 // shared accounts, and as many contacts with a counter
	historyVictims  = 3 // accounts that may be deleted
	historyRounds   = 250
)

// A Tale is what a history came to.
type Tale struct {
	Acked    int                     // edits acknowledged
	Outcomes map[crm.OutcomeKind]int // of those made at branches
	Kills    int                     // of leaders
	Crashes  int                     // of branches
	Cuts     int
}

// History plays a random history with its nodes' directories in dir: edits at all
// branches and at head office, cuts, crashes and dead leaders, and at the end
// every line mended and every node up. The error says which promise was broken:
//
//   - every acknowledged edit has exactly one outcome;
//   - counters are the sum of the deltas acknowledged, so nothing is lost and
//     nothing takes effect twice;
//   - every text acknowledged stands, is on the attention list, or was
//     overwritten by somebody who saw it;
//   - everything parked or rejected is on the attention list;
//   - nodes are equal.
//
// In histories of an even seed relays stand between masters and branches, and
// suffer with them.
func History(ctx context.Context, dir string, seed uint64) (tale Tale, err error) {
	h := &history{
		w: newWorld(dir, seed), rand: rand.New(rand.NewPCG(seed, 1)), sums: map[string]int64{}, unknown: map[string]int64{},
		texts: map[string]bool{}, seen: map[string]bool{}, relayed: seed%2 == 0,
	}
	defer func() { err = errors.Join(err, h.w.close()) }()
	if err := h.begin(ctx); err != nil {
		return h.tale, fmt.Errorf("begin: %w", err)
	}
	for round := range historyRounds {
		if err := h.act(ctx); err != nil {
			return h.tale, fmt.Errorf("round %d: %w", round, err)
		}
		if err := h.w.broken(); err != nil {
			return h.tale, fmt.Errorf("round %d: %w", round, err)
		}
	}
	return h.tale, h.end(ctx)
}

// A history is what was asked of the cluster so far.
type history struct {
	w       *world
	rand    *rand.Rand
	tale    Tale
	sums    map[string]int64 // by record: deltas acknowledged
	unknown map[string]int64 // by record: deltas of which nobody said whether they were taken
	texts   map[string]bool  // descriptions acknowledged
	seen    map[string]bool  // descriptions that an author had in front of them and overwrote
	made    []string         // accounts acknowledged
	written int
	relayed bool // between masters and branches stand relays
}

var historyCities = []string{"lisbon", "osaka", "quito"}

// historyRelays stand close to the branches: the second one below the first.
var historyRelays = []string{"nairobi", "cairo"}

// near puts the relays and the branches close to each other.
func near() lines {
	out := lines{}
	all := slices.Concat(historyRelays, historyCities)
	for i, a := range all {
		for _, b := range all[:i] {
			out[a+":"+b], out[b+":"+a] = 10*time.Millisecond, 10*time.Millisecond
		}
	}
	return out
}

// relays makes the relays, which hold all that the branches do. The branches find
// them within minutes.
func (h *history) relays(ctx context.Context) error {
	for _, name := range historyRelays {
		if err := join(true)(h.w, ctx, slices.Concat([]string{name}, historyCities[:historyBranches], []string{devcluster.KeyAccounts})); err != nil {
			return err
		}
	}
	if err := wait(h.w, ctx, []string{"15m"}); err != nil {
		return err
	}
	for _, name := range historyCities[:historyBranches] {
		if err := above(h.w, ctx, []string{name}); err != nil {
			return err
		}
	}
	found := h.w.printed.String()
	h.w.printed.Reset()
	if strings.Contains(found, "a master") || strings.Contains(found, "nobody") {
		return fmt.Errorf("not every branch found a relay: %q", found)
	}
	return nil
}

func (h *history) begin(ctx context.Context) error {
	var spare []string
	if h.relayed {
		h.w.lines, spare = near(), historyRelays
	}
	if err := h.w.start(ctx, devcluster.Options{Cities: historyCities[:historyBranches], Loss: 0.005, Seed: h.rand.Uint64()}, 80*time.Millisecond, spare...); err != nil {
		return err
	}
	if h.relayed {
		if err := h.relays(ctx); err != nil {
			return err
		}
	}
	for i := range historyRecords {
		account, contact := fmt.Sprintf("account/%d", i), fmt.Sprintf("contact/%d", i)
		_, err := h.w.save(ctx, "hq", nil,
			[]string{"create", account, "name=" + account, "territory=" + devcluster.KeyAccounts},
			[]string{"create", contact, "last_name=" + contact, "account=" + account, "points=0"})
		if err != nil {
			return err
		}
	}
	for i := range historyVictims {
		if _, err := h.w.save(ctx, "hq", nil, []string{"create", victim(i), "name=" + victim(i), "territory=" + devcluster.KeyAccounts}); err != nil {
			return err
		}
	}
	return h.w.c.Settle(ctx)
}

// act does one thing; faults are rarer than edits.
func (h *history) act(ctx context.Context) error {
	switch n := h.rand.IntN(100); {
	case n < 75:
		return h.edit(ctx)
	case n < 85:
		return wait(h.w, ctx, []string{fmt.Sprintf("%dms", 100+h.rand.IntN(8000))})
	case n < 90:
		return h.cut()
	case n < 94:
		return h.w.c.Heal("")
	case n < 96:
		return h.killLeader(ctx)
	case n < 98:
		h.tale.Crashes++
		return h.branch().Crash()
	}
	return restart(h.w, ctx, nil)
}

func (h *history) branch() *devcluster.Member {
	branches := h.w.c.Branches()
	return branches[h.rand.IntN(len(branches))]
}

func (h *history) cut() error {
	h.tale.Cuts++
	b, n := h.branch(), h.w.c.Network()
	switch masters := h.w.c.Masters(); h.rand.IntN(4) {
	case 0:
		return h.w.c.Between(b.Name, masters[h.rand.IntN(len(masters))].Name, n.CutOneWay)
	case 1:
		return h.w.c.Between(masters[h.rand.IntN(len(masters))].Name, b.Name, n.CutOneWay)
	}
	return h.w.c.Cut(b.Name)
}

// killLeader needs all masters up, or no majority would be left.
func (h *history) killLeader(ctx context.Context) error {
	for _, m := range h.w.c.Masters() {
		if !m.Up() {
			return m.Start()
		}
	}
	h.tale.Kills++
	_, err := h.w.c.KillLeader(ctx)
	return err
}

// edit makes a random edit at a branch that is up, or at head office.
func (h *history) edit(ctx context.Context) error {
	at := "hq"
	if b := h.branch(); h.rand.IntN(8) > 0 && b.Up() {
		at = b.Name
	}
	h.written++
	i := h.rand.IntN(historyRecords)
	account, contact := fmt.Sprintf("account/%d", i), fmt.Sprintf("contact/%d", i)
	switch h.rand.IntN(11) {
	case 0, 1, 2, 3:
		return h.count(ctx, at, contact, int64(1+h.rand.IntN(9)))
	case 4, 5, 6:
		return h.describe(ctx, at, account, fmt.Sprintf("text %d", h.written))
	case 7, 8:
		return h.doom(ctx, at)
	case 9:
		_, err := h.save(ctx, at, nil, "edit", account, fmt.Sprintf("tags+=tag%d", h.rand.IntN(5)))
		return err
	case 10:
		name := fmt.Sprintf("account/new%d", h.written)
		ok, err := h.save(ctx, at, nil, "create", name, "name="+name, "territory="+devcluster.KeyAccounts)
		if ok {
			h.made = append(h.made, name)
		}
		return err
	}
	return nil
}

// save makes one edit and reports whether it was acknowledged. That a node does
// not take an edit is no failure.
func (h *history) save(ctx context.Context, at string, look func(*store.Reader) error, words ...string) (bool, error) {
	soon, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	receipt, err := h.w.save(soon, at, look, words)
	if err != nil {
		if ctx.Err() != nil || crm.CodeOf(err) == crm.CodeInternal && soon.Err() == nil {
			return false, err
		}
		return false, nil
	}
	h.tale.Acked++
	return receipt.Outcome == nil || receipt.Outcome.Kind != crm.Rejected, nil
}

func (h *history) count(ctx context.Context, at, contact string, n int64) error {
	ok, err := h.save(ctx, at, nil, "edit", contact, fmt.Sprintf("points+=%d", n))
	if ok {
		h.sums[contact] += n
	} else {
		h.unknown[contact] += n
	}
	return err
}

// describe remembers what the author saw when they wrote over it.
func (h *history) describe(ctx context.Context, at, account, text string) error {
	var over string
	ok, err := h.save(ctx, at, func(r *store.Reader) error {
		e, err := h.w.entity(r, account)
		if err != nil {
			return err
		}
		rec, err := r.Record(e.ID, h.w.id(account))
		if rec != nil {
			over = rec.Value(e.Field("description").ID).Str()
		}
		return err
	}, "edit", account, "description="+text)
	if ok {
		h.texts[text], h.seen[over] = true, true
	}
	return err
}

// doom deletes, restores or edits an account that others do too, so that
// deletions meet edits.
func (h *history) doom(ctx context.Context, at string) error {
	name := victim(h.rand.IntN(historyVictims))
	words := [][]string{{"edit", name, fmt.Sprintf("description=victim %d", h.written)}, {"delete", name}, {"restore", name}}
	_, err := h.save(ctx, at, nil, words[h.rand.IntN(len(words))]...)
	return err
}

func victim(i int) string { return fmt.Sprintf("account/victim%d", i) }

// end mends everything and checks the promises.
func (h *history) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := errors.Join(h.w.c.Heal(""), restart(h.w, ctx, nil)); err != nil {
		return err
	}
	if err := h.w.c.Settle(ctx); err != nil {
		return err
	}
	verdicts, err := h.verdicts(ctx)
	if err != nil {
		return err
	}
	return h.w.read(ctx, "hq", func(r *store.Reader) error {
		noted, lost, err := attentionOf(r)
		if err != nil {
			return err
		}
		return errors.Join(h.checkCounters(r), h.checkTexts(r, lost), h.checkMade(r), checkNoted(verdicts, noted))
	})
}

// verdicts returns the outcome of each edit acknowledged at a branch.
func (h *history) verdicts(ctx context.Context) ([]crm.Outcome, error) {
	h.tale.Outcomes = map[crm.OutcomeKind]int{}
	var out []crm.Outcome
	for _, b := range h.w.c.Branches() {
		api, err := b.API()
		if err != nil {
			return nil, err
		}
		for i, seq := range h.w.edits[b.Name] {
			if seq != crm.Seq(i+1) {
				return nil, fmt.Errorf("edit %d at %s has number %d", i+1, b.Name, seq)
			}
			o, err := api.Await(ctx, seq)
			if err != nil {
				return nil, fmt.Errorf("edit %d at %s has no outcome: %w", seq, b.Name, err)
			}
			if o.Kind < crm.Accepted || o.Kind > crm.Rejected || o.Seq != seq {
				return nil, fmt.Errorf("edit %d at %s has the outcome %+v", seq, b.Name, o)
			}
			h.tale.Outcomes[o.Kind]++
			out = append(out, o)
		}
	}
	return out, nil
}

// A note names an edit that is on the attention list.
type note struct {
	kind string
	node crm.NodeID
	seq  crm.Seq
}

// attentionOf returns which edits are noted, and the texts that lost.
func attentionOf(r *store.Reader) (noted map[note]bool, lost map[string]bool, err error) {
	noted, lost = map[note]bool{}, map[string]bool{}
	for rec, err := range r.Scan(r.Schema().EntityByID(crm.EntityAttention)) {
		if err != nil {
			return nil, nil, err
		}
		noted[note{rec.Value(crm.AttentionKind).Str(), crm.NodeID(rec.Value(crm.AttentionNode).Int()), crm.Seq(rec.Value(crm.AttentionSeq).Int())}] = true
		var s crm.Side
		var text string
		if json.Unmarshal([]byte(rec.Value(crm.AttentionLost).Str()), &s) == nil && json.Unmarshal(s.Value, &text) == nil {
			lost[text] = true
		}
	}
	return noted, lost, nil
}

func checkNoted(verdicts []crm.Outcome, noted map[note]bool) error {
	for _, o := range verdicts {
		n := note{o.Kind.String(), o.Node, o.Seq}
		if (o.Kind == crm.Parked || o.Kind == crm.Rejected) && !noted[n] {
			return fmt.Errorf("edit %d of node %d was %s (%s) and is not on the attention list", o.Seq, o.Node, o.Kind, o.Message)
		}
	}
	return nil
}

func (h *history) checkCounters(r *store.Reader) error {
	for _, name := range slices.Sorted(maps.Keys(h.sums)) {
		got, err := h.value(r, name, "points")
		if err != nil {
			return err
		}
		if n, sum := got.Int(), h.sums[name]; n < sum || n > sum+h.unknown[name] {
			return fmt.Errorf("%s counts %d, and %d were acknowledged (and %d perhaps)", name, n, sum, h.unknown[name])
		}
	}
	return nil
}

func (h *history) checkTexts(r *store.Reader, lost map[string]bool) error {
	stands := map[string]bool{}
	for i := range historyRecords {
		v, err := h.value(r, fmt.Sprintf("account/%d", i), "description")
		if err != nil {
			return err
		}
		stands[v.Str()] = true
	}
	for _, text := range slices.Sorted(maps.Keys(h.texts)) {
		if !stands[text] && !lost[text] && !h.seen[text] {
			return fmt.Errorf("%q was acknowledged and overwritten in silence", text)
		}
	}
	return nil
}

func (h *history) checkMade(r *store.Reader) error {
	for _, name := range h.made {
		v, err := h.value(r, name, "name")
		if err != nil {
			return err
		}
		if v.Str() != name {
			return fmt.Errorf("%s was acknowledged and is called %q", name, v.Str())
		}
	}
	return nil
}

// value returns a field of a record, Null if there is no such record.
func (h *history) value(r *store.Reader, name, field string) (crm.Value, error) {
	e, err := h.w.entity(r, name)
	if err != nil {
		return crm.Value{}, err
	}
	rec, err := r.Record(e.ID, h.w.id(name))
	if rec == nil || err != nil {
		return crm.Value{}, err
	}
	return rec.Value(e.Field(field).ID), nil
}
