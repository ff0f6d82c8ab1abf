package sim

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
)

const description = crm.FieldID(33)

// story is a chronicle in which nothing is wrong: a value seen and replaced, a
// concurrent one kept as a conflict, a counter, a set, a deletion and a
// restore, an order with its number, a guard, and an edit that is rejected.
func story(t *testing.T) *chronicle {
	t.Helper()
	c := newChronicle()
	begin := c.m.Head()
	c.Positions = append(c.Positions, c.position(nodeR1), c.position(nodeR2))
	c.Openings = append(c.Openings, Opening{Disk: DiskID{Node: nodeR1}, Held: map[EditID]bool{}, Why: "founding"})
	one := c.ask(nodeR1, begin, setText(catalog.Account, "account/a1", description, "one"))                     // 1
	c.ask(nodeR2, begin, setText(catalog.Account, "account/a1", description, "two"))                            // 2: concurrent
	c.ask(nodeR1, c.m.Head(), setText(catalog.Account, "account/a1", description, "three"))                     // 3: saw two
	c.ask(nodeR1, begin, addPoints("contact/c1", 5))                                                            // 4
	c.ask(nodeR2, begin, addPoints("contact/c1", 7))                                                            // 5
	c.ask(nodeR1, begin, setTags("account/a1", "red", "blue"))                                                  // 6
	c.ask(nodeR2, c.m.Head(), setTags("account/a1", "blue"))                                                    // 7
	c.ask(nodeR1, c.m.Head(), crm.Op{Kind: crm.OpDelete, Entity: catalog.Contact, Record: idOf("contact/c0")})  // 8
	c.ask(nodeR1, c.m.Head(), crm.Op{Kind: crm.OpRestore, Entity: catalog.Contact, Record: idOf("contact/c0")}) // 9
	order := made(catalog.Order, "order/d1", crm.Input{Field: numberField, Value: crm.TextValue("ORD-R1-000001")},
		crm.Input{Field: 19, Value: crm.LinkValue(idOf("account/a1"))}, crm.Input{Field: 22, Value: crm.DateDays(20_000)})
	c.ask(nodeR1, begin, order.Ops...).Numbers = []string{"ORD-R1-000001"} // 10
	c.ask(nodeR2, begin, made(catalog.Contact, "contact/x", crm.Input{Field: 22, Value: crm.TextValue("x")},
		crm.Input{Field: 18, Value: crm.LinkValue(idOf("account/none"))}).Ops...) // 11: rejected
	c.guarded(nodeR2, 12) // 12
	if o := c.m.Of(11).Outcome; o.Kind != crm.Rejected {
		t.Fatalf("edit 11 is %+v", o)
	}
	if o := c.m.Of(2).Outcome; o.Kind != crm.Merged {
		t.Fatalf("edit 2 is %+v", o)
	}
	if o := c.m.Of(12).Outcome; o.Kind != crm.Accepted {
		t.Fatalf("edit 12 is %+v", o)
	}
	c.Positions = append(c.Positions, c.position(nodeR1), c.position(nodeR2))
	c.Openings = append(c.Openings, Opening{At: c.now, Disk: DiskID{Node: nodeR1}, Held: map[EditID]bool{one.ID: true}, Decided: c.next[nodeR1].Seq, Why: "a crash"})
	c.Marks = []Mark{{nodeM1, 7, 3, [32]byte{3}}, {4, 7, 3, [32]byte{3}}, {4, 7, 4, [32]byte{4}}}
	c.Rulings = []Applied{{Master: nodeM1, Index: 3, Got: []Ruling{{Outcome: c.m.Of(1).Outcome}}, Want: []Ruling{{Outcome: c.m.Of(1).Outcome}}}}
	c.look(crm.Demand{})
	c.look(crm.Demand{Level: crm.Session, Session: crm.Mark{Rev: c.m.Head(), Node: nodeR1, Seq: c.next[nodeR1].Seq}})
	c.look(crm.Demand{Level: crm.Bounded, MaxStale: time.Second}).Head = c.m.Head()
	c.look(crm.Demand{Level: crm.Leader}).Known = c.m.Head()
	c.Trims = []Trim{{Rev: 3, Needs: map[crm.NodeID]crm.Rev{nodeR1: 3, nodeR2: 9}}}
	c.Purges = []Purge{{Disk: DiskID{Node: nodeR2}, Found: []EditID{2}, May: map[EditID]bool{2: true, 5: true}}}
	c.Damages = []*Damage{{At: 1, Disk: DiskID{Node: nodeR1}, Record: recordOf(addPoints("contact/c0", 1)), Mended: 5}}
	c.Alarms = []Alarm{{At: 2, Disk: DiskID{Node: nodeR1}}}
	c.Asked = []Asked{{At: 3, Disk: DiskID{Node: nodeR1}}, {At: 4, Disk: DiskID{Node: nodeR1}, Buckets: 1}}
	c.Refusals = []Refusal{{At: c.now, Disk: DiskID{Node: nodeR1, Copy: 1}, Code: crm.CodeFenced}}
	return c.settle()
}

// guarded spends points under a guard that they are there.
func (c *chronicle) guarded(n crm.NodeID, spend int64) {
	k := idOf("contact/c1")
	e := &Edit{ID: EditID(len(c.Edits) + 1), At: c.now, Node: n, Disk: DiskID{Node: n}, Acked: true, Seq: c.next[n].Seq + 1}
	c.Edits = append(c.Edits, e)
	guard := crm.Guard{Kind: crm.GuardAtLeast, Entity: catalog.Contact, Record: k, Field: counterField, Value: crm.IntegerValue(spend)}
	o := c.decideNow(n, crm.Mutation{Actor: e.ID.Actor(), Ops: []crm.Op{addPoints("contact/c1", -spend)}, Guards: []crm.Guard{guard}})
	c.Answers = append(c.Answers, Answer{Edit: e.ID, Disk: e.Disk, Seq: e.Seq, Decided: true, Outcome: o})
}

func (c *chronicle) look(d crm.Demand) *Look {
	ids := c.m.accounts(c.m.Head(), c.m.right("r1", c.m.Head()))
	c.Looks = append(c.Looks, Look{At: c.now, Disk: DiskID{Node: nodeR1}, Demand: d, Listed: slices.Clone(ids), Scanned: ids,
		Fresh: crm.Freshness{Mark: crm.Mark{Timeline: 7, Rev: c.m.Head(), Node: nodeR1, Seq: c.next[nodeR1].Seq}}})
	return &c.Looks[len(c.Looks)-1]
}

func TestInvariants_HoldInASoundHistory(t *testing.T) {
	c := story(t)
	for _, err := range Breaches(c.History) {
		t.Error(err)
	}
	for _, i := range Invariants {
		if err := newest(c.History, i.On); err != nil {
			t.Error(err)
		}
	}
}

// withCells returns a copy of the record that sets the field.
func withCell(r *crm.Record, f crm.FieldID, v crm.Value) *crm.Record {
	r = r.Clone()
	for i := range r.Cells {
		if r.Cells[i].Field == f {
			r.Cells[i].Value, r.Cells[i].Elems = v, nil
			return r
		}
	}
	panic("the record has no such field")
}

// lose removes a field.
func lose(r *crm.Record, f crm.FieldID) *crm.Record {
	r = r.Clone()
	r.Cells = slices.DeleteFunc(r.Cells, func(c crm.Cell) bool { return c.Field == f })
	return r
}

// forget removes a decision and what it wrote.
func (c *chronicle) forget(e EditID) {
	i := slices.IndexFunc(c.m.Decisions, func(d Decision) bool { return d.Edit == e })
	d := c.m.Decisions[i]
	for _, r := range d.Writes {
		k := keyOf(r)
		c.m.States[k] = slices.DeleteFunc(c.m.States[k], func(s *crm.Record) bool { return s == r })
	}
	c.m.Decisions[i].Edit, c.m.Decisions[i].Writes = 0, nil
}

// rewrite changes what a decision about an edit left of a record.
func (c *chronicle) rewrite(e EditID, entity crm.EntityID, name string, change func(*crm.Record) *crm.Record) {
	d := c.m.Of(e)
	for i, r := range d.Writes {
		if r.Entity != entity || r.ID != idOf(name) {
			continue
		}
		d.Writes[i] = change(r)
		states := c.m.States[keyOf(r)]
		states[slices.Index(states, r)] = d.Writes[i]
		return
	}
	panic("the decision does not write that record")
}

// TestInvariants_FindWhatIsBroken breaks one thing at a time and wants the
// invariant that is about it to say so, in words that name it.
func TestInvariants_FindWhatIsBroken(t *testing.T) {
	for _, tc := range []struct {
		name, want string
		wreck      func(*chronicle)
	}{
		{"I01", "edit 1, acknowledged by r1", func(c *chronicle) {
			c.forget(1)
			clear(c.Openings[1].Held)
		}},
		{"I02", "edit 4 is decided again", func(c *chronicle) { c.m.Of(5).Edit = 4 }},
		{"I02", "counts 11, and the edits that stand add up to 10", func(c *chronicle) {
			s := c.Stocks[0]
			i := slices.IndexFunc(s.Base, func(r *crm.Record) bool { return r.ID == idOf("contact/c1") })
			s.Base[i] = withCell(s.Base[i], counterField, crm.IntegerValue(11))
		}},
		{"I03", "is decided at rev", func(c *chronicle) { c.m.Of(4).Seq++ }},
		{"I04", "edit 12, acknowledged by r2", func(c *chronicle) { c.forget(12) }},
		{"I04", "its node says that it is pending", func(c *chronicle) { c.Answers[0].Decided = false }},
		{"I04", "its node says accepted", func(c *chronicle) { c.Answers[1].Outcome.Kind = crm.Accepted }},
		{"I04", "is not on the attention list", func(c *chronicle) {
			for _, n := range c.m.Of(11).notes() {
				delete(c.m.States, keyOf(n))
			}
		}},
		{"I05", "does not hold territory", func(c *chronicle) {
			p := &c.Positions[3]
			sum := p.Digests[crm.Shared]
			sum[0]++
			p.Digests[crm.Shared] = sum
		}},
		{"I05", "holds nothing of territory 1", func(c *chronicle) { delete(c.Positions[3].Digests, crm.Shared) }},
		{"I05", "granted: false", func(c *chronicle) {
			c.Positions[3].Digests[crm.FirstTerritory] = c.m.Digest(crm.FirstTerritory, c.m.Head())
		}},
		{"I05", "and it was decided otherwise", func(c *chronicle) {
			c.Stocks[2].Base[0] = withCell(c.Stocks[2].Base[0], crm.FieldCreatedBy, crm.TextValue("x"))
		}},
		{"I05", "lacks 1 records", func(c *chronicle) { c.Stocks[1].Base = c.Stocks[1].Base[1:] }},
		{"I05", "which is not decided so", func(c *chronicle) {
			c.Stocks[2].Base = append(c.Stocks[2].Base, c.m.State(recordOf(addPoints("contact/c0", 1)), c.m.Head()))
		}},
		{"I05", "has a tombstone", func(c *chronicle) {
			dead := c.Stocks[1].Base[0].Clone()
			dead.Deleted = true
			c.Stocks[1].Dead = []*crm.Record{dead}
		}},
		{"I06", "and no pending edit changes it", func(c *chronicle) { c.Stocks[1].Shown = c.Stocks[1].Base[:1] }},
		{"I06", "shows nothing of what pending edits do", func(c *chronicle) {
			c.Stocks[1].Pending = []*crm.Mutation{{Node: nodeR1, Seq: 90, Ops: []crm.Op{setText(catalog.Account, "account/a1", description, "new")}}}
			c.Stocks[1].Last = false
		}},
		{"I06", "as its 1 pending edits leave it", func(c *chronicle) {
			s := c.Stocks[1]
			s.Pending = []*crm.Mutation{{Node: nodeR1, Seq: 90, Ops: []crm.Op{setText(catalog.Account, "account/a0", description, "new")}}}
			s.Shown = []*crm.Record{c.m.State(recordOf(s.Pending[0].Ops[0]), s.Rev)}
			s.Last = false
		}},
		{"I07", "the Cursor went back", func(c *chronicle) { c.Positions[2].Rev = c.Positions[0].Rev - 1; c.Positions[2].Digests = nil }},
		{"I07", "the decided Seq went back", func(c *chronicle) { c.Positions[0].Decided = 99 }},
		{"I07", "the newest edit went back", func(c *chronicle) { c.Positions[0].Last, c.Positions[0].Rebased = 99, true }},
		{"I08", "answered a session that has seen rev", func(c *chronicle) { c.Looks[1].Demand.Session.Rev++ }},
		{"I08", "answered a session that has written", func(c *chronicle) { c.Looks[1].Demand.Session.Seq++ }},
		{"I08", "answered a session of timeline 6", func(c *chronicle) { c.Looks[1].Demand.Session.Timeline = 6 }},
		{"I08", "before every master showed", func(c *chronicle) { c.Looks[2].Head++ }},
		{"I09", "was known before it was asked", func(c *chronicle) { c.Looks[3].Known++ }},
		{"I10", "after entry 3 master 1 has", func(c *chronicle) { c.Marks[1].Sum[0]++ }},
		{"I10", "and the model", func(c *chronicle) { c.Rulings[0].Got[0].Outcome.Kind = crm.Parked }},
		{"I10", "forbidden", func(c *chronicle) { c.Rulings[0].GotNo = crm.CodeForbidden }},
		{"I11", "1 findings, first rot", func(c *chronicle) { c.Stocks[1].Findings = []string{"rot"} }},
		{"I11", "and is not mended", func(c *chronicle) { c.Damages[0].Mended = 0 }},
		{"I11", "without an alarm", func(c *chronicle) {
			c.Alarms[0].Disk.Copy = 1
			c.Damages = append(c.Damages, &Damage{At: 1, Disk: c.Alarms[0].Disk})
		}},
		{"I11", "and nothing is damaged", func(c *chronicle) { c.Alarms = append(c.Alarms, Alarm{At: 6, Disk: DiskID{Node: nodeR1}}) }},
		{"I11", "does not cure", func(c *chronicle) { c.Alarms[0].Beyond = "the page of the root" }},
		{"I11", "asks for 2 buckets", func(c *chronicle) { c.Asked[1].Buckets = 2 }},
		{"I12", "instead of", func(c *chronicle) {
			c.rewrite(3, catalog.Account, "account/a1", func(r *crm.Record) *crm.Record { return withCell(r, description, crm.TextValue("two")) })
		}},
		{"I13", "is kept nowhere", func(c *chronicle) {
			d := c.m.Of(2)
			d.Writes = slices.DeleteFunc(d.Writes, func(r *crm.Record) bool { return r.Entity == crm.EntityAttention })
		}},
		{"I13", "had not seen it there", func(c *chronicle) {
			for k, s := range c.Edits[6].Screens {
				s.Elems = nil
				c.Edits[6].Screens[k] = s
			}
		}},
		{"I14", "lives again at rev", func(c *chronicle) { c.m.Of(9).Mutation.Ops[0].Kind = crm.OpPatch }},
		{"I15", "is given to edits", func(c *chronicle) { c.Edits[0].Numbers = []string{"ORD-R1-000001"} }},
		{"I15", "has numbers up to 3 and no ORD-R1-000002", func(c *chronicle) { c.Edits[0].Numbers = []string{"ORD-R1-000003"} }},
		{"I16", "its guard on", func(c *chronicle) { c.m.Of(12).Mutation.Guards[0].Value = crm.IntegerValue(1000) }},
		{"I16", "points left", func(c *chronicle) {
			c.rewrite(12, catalog.Contact, "contact/c1", func(r *crm.Record) *crm.Record { return withCell(r, counterField, crm.IntegerValue(-1)) })
		}},
		{"I17", "has proven a purge", func(c *chronicle) { c.Purges[0].Found = []EditID{2, 3} }},
		{"I18", "twice", func(c *chronicle) { c.Looks[0].Listed[1] = c.Looks[0].Listed[0] }},
		{"I18", "lists 2 accounts and scans 3", func(c *chronicle) { c.Looks[0].Listed = c.Looks[0].Listed[1:] }},
		{"I18", "is listed false and held true", func(c *chronicle) {
			c.Looks[0].Listed, c.Looks[0].Scanned = c.Looks[0].Listed[1:], c.Looks[0].Scanned[1:]
		}},
		{"I19", "as one of node 3", func(c *chronicle) { c.m.Of(1).Node = nodeR2 }},
		{"I19", "forged in the name of node 2", func(c *chronicle) { c.Edits[0].Forged = true }},
		{"I19", "and edit 12 that it took", func(c *chronicle) {
			c.Refusals = append(c.Refusals, Refusal{At: c.Edits[11].At, Disk: c.Edits[11].Disk, Code: crm.CodeFrozen})
		}},
		{"I20", "and it never was", func(c *chronicle) { c.forget(6) }},
		{"I21", "r1 needs what is above 3", func(c *chronicle) { c.Trims[0].Rev = 4 }},
		{"I22", "is not decided by", func(c *chronicle) { c.m.Of(12).At += time.Hour }},
		{"I23", "was never decided", func(c *chronicle) {
			c.forget(10)
			c.Positions[2].Rebased = true
		}},
		{"I23", "made under schema 1, was rejected", func(c *chronicle) { c.m.Of(11).Outcome.Code = crm.CodeUnknownField }},
		{"I24", "does not name field", func(c *chronicle) {
			c.rewrite(3, catalog.Account, "account/a1", func(r *crm.Record) *crm.Record { return lose(r, 18) })
		}},
		{"I24", "does not name field", func(c *chronicle) {
			c.rewrite(3, catalog.Account, "account/a1", func(r *crm.Record) *crm.Record { return withCell(r, 18, crm.TextValue("other")) })
		}},
		{"I25", "nodes still differ: r1 is slow", func(c *chronicle) { c.Settled, c.Unsettled = 0, "r1 is slow" }},
		{"I25", "it took", func(c *chronicle) { c.Settled += time.Hour }},
		{"I25", "ends at rev", func(c *chronicle) { c.Stocks[1].Rev-- }},
		{"I25", "frames were under way", func(c *chronicle) { c.Usage.Frames = mostFrames + 1 }},
		{"I25", "the files of a node", func(c *chronicle) { c.Usage.Bytes = mostBytes + 1 }},
		{"I26", "it was not decided again", func(c *chronicle) {
			c.Timelines = append(c.Timelines, c.m.fork(8, c.now, c.m.Of(9).Rev))
		}},
	} {
		t.Run(tc.name+" "+tc.want, func(t *testing.T) {
			c := story(t)
			tc.wreck(c)
			for _, err := range Breaches(c.History) {
				if strings.HasPrefix(err.Error(), tc.name) {
					if !strings.Contains(err.Error(), tc.want) {
						t.Errorf("%v, want a word of %q", err, tc.want)
					}
					return
				}
			}
			t.Errorf("%s finds nothing; %v", tc.name, Breaches(c.History))
		})
	}
}

// TestInvariants_NewestFindsTheLast breaks what is judged after every event.
func TestInvariants_NewestFindsTheLast(t *testing.T) {
	for _, tc := range []struct {
		name  string
		wreck func(*chronicle)
	}{
		{"I01", func(c *chronicle) { c.forget(1); clear(c.Openings[1].Held) }},
		{"I03", func(c *chronicle) { c.m.Decisions[len(c.m.Decisions)-1].Seq++ }},
		{"I05", func(c *chronicle) { delete(c.Positions[len(c.Positions)-1].Digests, crm.Shared) }},
		{"I07", func(c *chronicle) {
			p := c.Positions[len(c.Positions)-1]
			p.Rev, p.Digests = 1, nil
			c.Positions = append(c.Positions, p)
		}},
		{"I09", func(c *chronicle) { c.Looks[3].Known++ }},
		{"I10", func(c *chronicle) { c.Marks = append(c.Marks, Mark{nodeM1, 7, 4, [32]byte{5}}) }},
		{"I17", func(c *chronicle) { c.Purges[0].Found = []EditID{3} }},
		{"I18", func(c *chronicle) { c.Looks[3].Listed = c.Looks[3].Listed[1:] }},
		{"I21", func(c *chronicle) { c.Trims[0].Rev = 4 }},
	} {
		c := story(t)
		tc.wreck(c)
		i := slices.IndexFunc(Invariants, func(i Invariant) bool { return i.Name == tc.name })
		if err := newest(c.History, Invariants[i].On); err == nil || !strings.HasPrefix(err.Error(), tc.name) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestInvariants_AreNumbered(t *testing.T) {
	for i, inv := range Invariants {
		if want := "I" + string(rune('0'+(i+1)/10)) + string(rune('0'+(i+1)%10)); inv.Name != want || inv.Says == "" || inv.Breach == nil {
			t.Errorf("invariant %d is %q: %q", i+1, inv.Name, inv.Says)
		}
	}
}
