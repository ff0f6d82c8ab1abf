package replica

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/store"
)

// A story is a random history of one branch and its master: edits on both
// sides, cuts, crashes, lost grants. At its end nothing acknowledged is missing
// and both sides are equal.
type story struct {
	t     *testing.T
	rnd   *rand.Rand
	m     *scripted
	b     *branch
	n     int                // accounts made
	made  map[crm.Seq]string // accounts whose creation was acknowledged at the branch
	seqs  int
	south bool // the branch holds it
}

func TestReplica_RandomStories(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := &story{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), m: newScripted(t), made: map[crm.Seq]string{}, south: true}
				s.b = start(t, s.m, t.TempDir())
				for range 80 {
					s.step()
				}
				s.end()
			})
		})
	}
}

func (s *story) step() {
	switch k := s.rnd.IntN(100); {
	case k < 20:
		s.create()
	case k < 45:
		s.patch()
	case k < 65:
		s.elsewhere()
	case k < 72:
		s.m.set(func() { s.m.holdFeed = !s.m.holdFeed })
	case k < 78:
		s.m.set(func() { s.m.busy, s.m.gaps, s.m.part = s.rnd.IntN(3), s.rnd.IntN(2), s.rnd.IntN(2)*7 })
	case k < 84:
		s.m.cut()
	case k < 92:
		s.m.heal()
	case k < 94:
		s.crash()
	case k < 96:
		s.regrant()
	default:
		time.Sleep(time.Duration(s.rnd.IntN(20)) * time.Second)
	}
	if s.rnd.IntN(4) == 0 {
		synctest.Wait()
	}
	if s.rnd.IntN(10) == 0 {
		s.b.sound()
	}
}

func (s *story) name(i int) string { return "story " + strconv.Itoa(i) }

func (s *story) territory() crm.Input {
	if s.south && s.rnd.IntN(2) == 0 {
		return text(accTerritory, "south")
	}
	return text(accTerritory, "north")
}

func (s *story) create() {
	s.n++
	name := s.name(s.n)
	cells := []crm.Input{s.territory()}
	if s.rnd.IntN(3) == 0 {
		cells = append(cells, text(16, strconv.Itoa(s.rnd.IntN(8))))
	}
	r, err := s.b.Commit(s.t.Context(), crm.Request{Actor: "bea", Ops: []crm.Op{account(name, cells...)}})
	if err != nil {
		s.expect(err, crm.CodeDuplicateKey, crm.CodeTerritory, crm.CodeExists)
		return
	}
	s.made[r.Seq] = name
	s.seqs++
}

// patch edits what the screen shows now, or a while ago.
func (s *story) patch() {
	if s.n == 0 {
		return
	}
	name := s.name(1 + s.rnd.IntN(s.n))
	rec := s.b.record(catalog.Account, name)
	if rec == nil {
		return
	}
	seen := s.b.token(name)
	op := patch(catalog.Account, name, seen, text(accDescription, strconv.Itoa(s.rnd.IntN(1000))))
	switch s.rnd.IntN(6) {
	case 0:
		op.Cells = append(op.Cells, s.territory())
	case 1:
		op = crm.Op{Kind: crm.OpDelete, Entity: catalog.Account, Record: id(name), Seen: seen}
	case 2:
		op = crm.Op{Kind: crm.OpSetAdd, Entity: catalog.Account, Record: id(name), Seen: seen, Cells: []crm.Input{{Field: accTags, Value: crm.ChoicesValue(strconv.Itoa(s.rnd.IntN(5)))}}}
	}
	if _, err := s.b.Commit(s.t.Context(), crm.Request{Actor: "bea", Ops: []crm.Op{op}}); err != nil {
		s.expect(err, crm.CodeDeleted, crm.CodeTerritory)
		return
	}
	s.seqs++
}

// elsewhere is an edit of head office.
func (s *story) elsewhere() {
	if s.n == 0 || s.rnd.IntN(3) == 0 {
		s.n++
		s.m.headOffice(time.Now().UnixMilli(), account(s.name(s.n), s.territory()))
		return
	}
	name := s.name(1 + s.rnd.IntN(s.n))
	op := patch(catalog.Account, name, crm.Token{Rev: s.m.head() - crm.Rev(s.rnd.IntN(5))}, text(accDescription, "head "+strconv.Itoa(s.rnd.IntN(1000))))
	switch s.rnd.IntN(8) {
	case 0:
		op.Cells = []crm.Input{text(accTerritory, []string{"north", "south"}[s.rnd.IntN(2)])}
	case 1:
		op = crm.Op{Kind: crm.OpDelete, Entity: catalog.Account, Record: id(name), Seen: op.Seen}
	case 2:
		op = crm.Op{Kind: crm.OpRestore, Entity: catalog.Account, Record: id(name)}
	}
	s.m.headOffice(time.Now().UnixMilli(), op)
}

// crash goes on from copies of the files as they are.
func (s *story) crash() {
	dir := copyFiles(s.t, s.b.dir)
	s.b.stop()
	s.b = start(s.t, s.m, dir)
}

func (s *story) regrant() {
	kind := crm.OpSetRemove
	if !s.south {
		kind = crm.OpSetAdd
	}
	s.south = !s.south
	s.m.edit(crm.Op{Kind: kind, Entity: crm.EntitySite, Record: id("site lisbon"), Seen: crm.Token{Rev: s.m.head()},
		Cells: []crm.Input{{Field: crm.SiteTerritories, Value: crm.ChoicesValue("south")}}})
}

func (s *story) expect(err error, codes ...crm.Code) {
	s.t.Helper()
	for _, c := range codes {
		if crm.CodeOf(err) == c {
			return
		}
	}
	s.t.Errorf("commit: %v", err)
}

// end heals everything and compares.
func (s *story) end() {
	s.m.set(func() { s.m.down, s.m.holdFeed, s.m.busy, s.m.gaps, s.m.part = false, false, 0, 0, 0 })
	time.Sleep(5 * time.Minute)
	synctest.Wait()
	s.b.want(s.b.Status().Outbox.Entries, 0)
	s.b.want(s.b.Status().Cursor, s.m.head())
	s.b.same(s.m)
	s.b.sound()
	s.m.view(func(tx *store.Tx) {
		for seq, name := range s.made {
			rec, err := tx.Record(catalog.Account, id(name))
			if err != nil {
				s.t.Error(err)
			}
			accepted := s.b.outcome(seq) == "accepted"
			if accepted != (rec != nil && rec.Cell(accName).Stamp.Seq == seq) {
				s.t.Errorf("%s, made by edit %d: %s, and the master has %v", name, seq, s.b.outcome(seq), rec)
			}
		}
	})
}
