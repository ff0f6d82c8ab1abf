package replica

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/store"
)

// conflicts returns how many conflicts about descriptions this node shows.
func (b *branch) conflicts() (n int) {
	b.t.Helper()
	b.read(func(r *store.Reader) {
		for rec, err := range r.Scan(r.Schema().EntityByID(crm.EntityAttention)) {
			if err != nil {
				b.t.Fatal(err)
			}
			if rec.Value(crm.AttentionKind).Str() == "conflict" {
				n++
			}
		}
	})
	return n
}

// A token that another node gave may name a Seq that this node has given to an
// edit which the token's reader never saw.
func TestCommit_ATokenOfAnotherNodeVouchesForNothingPendingHere(t *testing.T) {
	for name, c := range map[string]struct {
		node      crm.NodeID
		outcome   string
		conflicts int
	}{
		"of this node": {replicaN, "accepted", 0},
		"of another":   {replicaN + 1, "merged", 1},
		"of no node":   {0, "merged", 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				m := newScripted(t)
				m.edit(account("acme", text(accTerritory, "north"), text(accDescription, "start")))
				b := start(t, m, t.TempDir())
				m.set(func() { m.holdFeed = true })
				seen := b.token("acme")
				pending := b.commit(patch(catalog.Account, "acme", seen, text(accDescription, "ann's")))
				seen.Node, seen.Seq = c.node, pending
				seq := b.commit(patch(catalog.Account, "acme", seen, text(accDescription, "bob's")))
				b.want(b.conflicts(), c.conflicts)
				m.set(func() { m.holdFeed = false })
				_, err := b.Await(t.Context(), seq)
				b.want(err, nil)
				b.want(b.outcome(seq), c.outcome)
				b.want(b.field("acme", accDescription), "bob's")
				b.want(b.conflicts(), c.conflicts)
				b.same(m)
				b.sound()
			})
		})
	}
}

// outboxTimelines returns the timeline of each edit that no master has decided.
func (b *branch) outboxTimelines() (out []uint64) {
	b.t.Helper()
	entries, err := b.Outbox(b.t.Context())
	b.want(err, nil)
	for _, e := range entries {
		out = append(out, e.Mutation.Timeline)
	}
	return out
}

func (b *branch) speak(version uint64) {
	b.t.Helper()
	b.want(b.journal.Update(func(j *store.JTx) error { return setNumber(j, metaSpoken, version) }), nil)
}

// An edit names its timeline once the masters were heard to read that, also when
// they are out of reach again. What was written before stays as it is.
func TestCommit_NamesTheTimelineOnceTheMastersReadIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		b := start(t, m, t.TempDir())
		m.cut()
		b.commit(account("one", text(accTerritory, "north")))
		b.speak(1)
		b.commit(account("two", text(accTerritory, "north")))
		b.speak(spokenNamed)
		seq := b.commit(account("three", text(accTerritory, "north")))
		b.want(b.outboxTimelines(), []uint64{0, 0, 1})
		b.sound()
		b.stop()
		b.want(b.Close(), nil)

		b = open(t, m, b.dir)
		b.commit(patch(catalog.Account, "three", b.token("three"), text(accDescription, "after a restart")))
		b.want(b.outboxTimelines(), []uint64{0, 0, 1, 1})
		b.want(m.db.Update(func(tx *store.Tx) error { return tx.SetTimeline(1) }), nil)
		m.heal()
		b.run(m)
		b.want(b.outcome(seq), "accepted")
		b.want(b.outcome(seq+1), "accepted")
		b.same(m)
		b.sound()
	})
}

// restored has the masters go on from a backup that lacks the last edit of acme,
// and decide another under its Rev. Meanwhile is called before the masters are
// gone. It returns the lineage that they have then.
func restored(t *testing.T, m *scripted, b *branch, meanwhile func()) crm.Lineage {
	t.Helper()
	backup := filepath.Join(t.TempDir(), "backup.db")
	raw, err := os.ReadFile(m.db.Path())
	if err == nil {
		err = os.WriteFile(backup, raw, 0o600)
	}
	b.want(err, nil)
	state, fork := *m.states[replicaN], m.head()
	m.edit(patch(catalog.Account, "acme", b.token("acme"), text(accDescription, "lost with the masters")))
	synctest.Wait()
	b.want(b.token("acme").Rev, fork+1)
	meanwhile()
	m.cut()
	synctest.Wait()
	l := crm.Lineage{Timeline: 2, Forks: []crm.Fork{{Timeline: 1, Rev: fork}}}
	b.want(m.db.Replace(backup), nil)
	b.want(m.db.Update(func(tx *store.Tx) error { return tx.SetLineage(l) }), nil)
	m.set(func() { m.states[replicaN], m.timeline, m.busy = &state, 2, 0 })
	b.want(m.edit(patch(catalog.Account, "acme", crm.Token{Timeline: 2, Rev: fork}, text(accDescription, "made since"))), fork+1)
	m.heal()
	time.Sleep(time.Minute)
	synctest.Wait()
	return l
}

// A screen from before a restore of the masters has not seen what was decided
// since, though its Rev is as high.
func TestCommit_ATokenOfAnEarlierTimeline(t *testing.T) {
	for name, c := range map[string]struct {
		version uint64
		told    bool // the branch knows the lineage
		late    bool // the screen was opened after the backup
		field   crm.FieldID
		outcome string
	}{
		"of the lost edit":                       {spokenNamed, true, true, accDescription, "merged"},
		"of the lost edit, another field":        {spokenNamed, true, true, accName, "accepted"},
		"before the backup":                      {spokenNamed, true, false, accName, "accepted"},
		"before the backup, the changed field":   {spokenNamed, true, false, accDescription, "merged"},
		"where the lineage is not known":         {spokenNamed, false, true, accDescription, "merged"},
		"where the lineage is not known, before": {spokenNamed, false, false, accName, "merged"},
		"version 1":                              {1, true, true, accDescription, "merged"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				m := newScripted(t)
				m.edit(account("acme", text(accTerritory, "north"), text(accDescription, "start")))
				b := start(t, m, t.TempDir())
				seen := b.token("acme")
				lineage := restored(t, m, b, func() {
					if c.late {
						seen = b.token("acme")
					}
				})
				b.want(b.field("acme", accDescription), "made since")
				if c.told {
					b.want(b.base.Update(func(tx *store.Tx) error { return tx.SetLineage(lineage) }), nil)
				}
				b.speak(c.version)
				seq := b.commit(patch(catalog.Account, "acme", seen, text(c.field, "mine")))
				_, err := b.Await(t.Context(), seq)
				b.want(err, nil)
				b.want(b.outcome(seq), c.outcome)
				b.want(b.field("acme", c.field), "mine")
				b.same(m)
				b.sound()
			})
		})
	}
}

// An edit made before a restore of the masters and pushed after it is judged by
// the history that both have.
func TestCommit_AnEditThatCrossesARestore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.edit(account("acme", text(accTerritory, "north"), text(accDescription, "start")))
		b := start(t, m, t.TempDir())
		b.speak(spokenNamed)
		m.set(func() { m.busy = 1 << 20 })
		var made, other crm.Seq
		restored(t, m, b, func() {
			made = b.commit(patch(catalog.Account, "acme", b.token("acme"), text(accDescription, "mine")))
			other = b.commit(patch(catalog.Account, "acme", b.token("acme"), text(accName, "mine too")))
		})
		b.want(b.outcome(made), "merged")
		b.want(b.outcome(other), "accepted")
		b.want(b.field("acme", accName), "mine too")
		b.want(b.conflicts(), 1)
		b.same(m)
		b.sound()
	})
}

// Who saw a record as it stands saw the edits of this node in it, and the Mutation
// says so by their number: restored masters may not know their Revs. An older
// screen vouches for none.
func TestCommit_VouchesForOwnEditsByNumber(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		b := start(t, m, t.TempDir())
		b.commit(account("one", text(accTerritory, "north")))
		synctest.Wait()
		old := b.token("one")
		last := b.commit(patch(catalog.Account, "one", old, text(accDescription, "decided")))
		synctest.Wait()
		m.cut()
		for name, c := range map[string]struct {
			seen crm.Token
			want crm.Seq
		}{"current": {b.token("one"), last}, "old": {old, 0}} {
			seq := b.commit(patch(catalog.Account, "one", c.seen, text(accName, name)))
			made, err := crm.DecodeMutation(tailEntry(t, b, seq).Bytes)
			b.want(err, nil)
			b.want(made.Ops[0].Seen.Seq, c.want)
		}
		b.sound()
	})
}
