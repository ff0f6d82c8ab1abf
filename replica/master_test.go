package replica

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// The scripted master: it speaks real frames over net.Pipe, decides with
// crm.Decide into a real base file, and can be told to misbehave.
type scripted struct {
	tb       testing.TB
	db       *store.DB
	timeline uint64
	headNode crm.NodeID // makes the edits of head office

	mu       sync.Mutex // protects what follows
	down     bool
	conns    []net.Conn
	hellos   []*syncproto.Hello
	applied  []crm.Rev
	pushes   int     // frames
	seq      crm.Seq // of headNode
	states   map[crm.NodeID]*store.NodeState
	site     map[crm.NodeID]string
	changed  chan struct{}
	part     int    // items in a batch that is not final; 0: all in one
	proto    uint16 // version of the protocol; 0: 1
	stopAt   int    // say no more after so many parts; 0: never
	holdFeed bool
	busy     int             // pushes to answer with Busy
	gaps     int             // pushes to answer with Gap although nothing is missing
	answer   syncproto.Frame // instead of Welcome
	damage   func(*syncproto.Batch)
	mute     bool // says nothing after Welcome
	backup   crm.Rev
	now      func() time.Time
}

const (
	lisbon   = "lisbon"
	replicaN = crm.NodeID(7)
)

// newScripted returns a master with the stock catalogue, the territories north
// and south, and the site lisbon that holds both.
func newScripted(tb testing.TB) *scripted {
	tb.Helper()
	db, err := store.Open(filepath.Join(tb.TempDir(), "master.db"), store.Options{NoSync: true})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	m := &scripted{tb: tb, db: db, timeline: 1, headNode: 1, states: map[crm.NodeID]*store.NodeState{}, site: map[crm.NodeID]string{replicaN: lisbon},
		changed: make(chan struct{}), now: time.Now}
	for _, req := range catalog.Requests("setup") {
		m.edit(req.Ops...)
	}
	m.edit(create(crm.EntityTerritory, "territory north", crm.Input{Field: crm.TerritoryCode, Value: crm.TextValue("north")}, crm.Input{Field: crm.TerritoryName, Value: crm.TextValue("North")}))
	m.edit(create(crm.EntityTerritory, "territory south", crm.Input{Field: crm.TerritoryCode, Value: crm.TextValue("south")}, crm.Input{Field: crm.TerritoryName, Value: crm.TextValue("South")}))
	m.edit(create(crm.EntitySite, "site lisbon", crm.Input{Field: crm.SiteName, Value: crm.TextValue(lisbon)},
		crm.Input{Field: crm.SiteTerritories, Value: crm.ChoicesValue("north", "south")}, crm.Input{Field: crm.SiteHome, Value: crm.TextValue("north")}))
	return m
}

func (m *scripted) head() (rev crm.Rev) {
	m.view(func(tx *store.Tx) { rev, _ = tx.Rev() })
	return rev
}

func (m *scripted) view(fn func(*store.Tx)) {
	m.tb.Helper()
	if err := m.db.View(func(tx *store.Tx) error { fn(tx); return nil }); err != nil {
		m.tb.Fatal(err)
	}
}

// edit has head office make an edit, which must be accepted.
func (m *scripted) edit(ops ...crm.Op) crm.Rev {
	m.tb.Helper()
	o := m.headOffice(m.now().UnixMilli(), ops...)
	if o.Kind == crm.Rejected {
		m.tb.Fatalf("head office's edit: %s", o.Message)
	}
	return o.Rev
}

func (m *scripted) headOffice(at int64, ops ...crm.Op) crm.Outcome {
	m.tb.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seq++
	var lineage crm.Lineage
	m.view(func(tx *store.Tx) { lineage, _ = tx.Lineage() })
	mut := crm.Request{Actor: "ana", Intent: "test", Ops: ops}.Mutation(m.headNode, lineage, true)
	mut.Seq, mut.HLC = m.seq, crm.NewHLC(at)
	return m.decide(mut, crm.AppendMutation(nil, mut), true)
}

// decide judges one Mutation in its own transaction. It needs m.mu.
func (m *scripted) decide(mut *crm.Mutation, raw []byte, admin bool) (o crm.Outcome) {
	m.tb.Helper()
	err := m.db.Update(func(tx *store.Tx) error {
		rev, err := tx.Rev()
		if err != nil {
			return err
		}
		env := crm.Env{Rev: rev + 1, HLC: mut.HLC, Home: crm.HeadOffice, Admin: admin}
		if env.Lineage, err = tx.Lineage(); err != nil {
			return err
		}
		if !admin {
			a, err := authorOf(tx, m.site[mut.Node])
			if err != nil {
				return err
			}
			env.Home, env.Writable = a.home, a.writable
		}
		dec, err := crm.Decide(tx, mut, env)
		if err != nil {
			return err
		}
		for _, r := range dec.Writes {
			if err := tx.Put(r); err != nil {
				return err
			}
		}
		for _, r := range dec.Refused {
			if err := tx.SetRefused(r.Record, r.Attention); err != nil {
				return err
			}
		}
		o = dec.Outcome
		if o.Kind != crm.Accepted {
			if err := tx.PutOutcome(o); err != nil {
				return err
			}
		}
		if s := m.states[mut.Node]; s != nil {
			s.LastSeq, s.LastHash = mut.Seq, crm.Chain(mut.Prev, raw)
		}
		return tx.SetRev(rev + 1)
	})
	if err != nil {
		m.tb.Error(err)
	}
	close(m.changed)
	m.changed = make(chan struct{})
	return o
}

// dial is the replica's Config.Dial.
func (m *scripted) dial(context.Context, string) (net.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return nil, errors.New("the line is cut")
	}
	near, far := net.Pipe()
	m.conns = append(m.conns, far)
	go m.serve(far)
	return near, nil
}

// cut ends all sessions and lets none begin until heal.
func (m *scripted) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = true
	for _, c := range m.conns {
		_ = c.Close()
	}
	m.conns = nil
}

func (m *scripted) set(edit func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	edit()
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *scripted) heal() { m.set(func() { m.down = false }) }

func (m *scripted) lastHello() *syncproto.Hello {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.hellos) == 0 {
		return nil
	}
	return m.hellos[len(m.hellos)-1]
}

// serve is one session. The pipe's end ends it.
func (m *scripted) serve(c net.Conn) {
	conn := syncproto.NewConn(c)
	defer conn.Close()
	f, err := conn.Receive()
	if err != nil {
		return
	}
	h := f.(*syncproto.Hello)
	m.mu.Lock()
	m.hellos = append(m.hellos, h)
	first, mute := m.answer, m.mute
	if first == nil {
		first = m.welcome(h)
	}
	m.mu.Unlock()
	if err := conn.Send(first); err != nil {
		return
	}
	w, ok := first.(*syncproto.Welcome)
	if !ok {
		return
	}
	done := make(chan struct{})
	out := make(chan syncproto.Frame, 1024)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(done)
	defer c.Close()
	if !mute {
		wg.Go(func() { m.feed(conn, h, w, done) })
	}
	wg.Go(func() {
		for {
			select {
			case f := <-out:
				if conn.Send(f) != nil {
					return
				}
			case <-done:
				return
			}
		}
	})
	for {
		f, err := conn.Receive()
		if err != nil {
			return
		}
		if reply := m.react(h.Node, f); reply != nil && !mute {
			out <- reply
		}
	}
}

// welcome admits a node. It needs m.mu.
func (m *scripted) welcome(h *syncproto.Hello) *syncproto.Welcome {
	s := m.states[h.Node]
	if s == nil {
		s = &store.NodeState{Node: h.Node}
		m.states[h.Node] = s
	}
	if h.Incarnation == 0 {
		s.Incarnation++
	}
	now := m.now().UnixMilli()
	w := &syncproto.Welcome{Proto: max(1, m.proto), Timeline: m.timeline, Incarnation: s.Incarnation, LastSeq: s.LastSeq, LastHash: s.LastHash, Head: m.head(),
		Backup: m.backup, HelloSent: h.Sent, Received: now, Sent: now, Leader: true, Masters: []string{"master:1"}}
	var l crm.Lineage
	m.view(func(tx *store.Tx) { l, _ = tx.Lineage() })
	for _, f := range l.Forks {
		if w.Proto > 1 {
			w.Lineage = append(w.Lineage, syncproto.Fork(f))
		}
	}
	return w
}

func (m *scripted) react(node crm.NodeID, f syncproto.Frame) syncproto.Frame {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch f := f.(type) {
	case *syncproto.Push:
		return m.push(node, f)
	case *syncproto.Applied:
		m.applied = append(m.applied, f.Cursor)
	case *syncproto.Heartbeat:
		if !f.Reply {
			f.Reply, f.T2, f.T3, f.Head = true, m.now().UnixMilli(), m.now().UnixMilli(), m.head()
			return f
		}
	case *syncproto.Ask:
		return &syncproto.Answer{ID: f.ID, Rev: m.head()}
	}
	return nil
}

func (m *scripted) push(node crm.NodeID, f *syncproto.Push) syncproto.Frame {
	m.pushes++
	s := m.states[node]
	switch {
	case m.busy > 0:
		m.busy--
		return &syncproto.Busy{RetryAfterMillis: 200, Reason: "test"}
	case m.gaps > 0:
		m.gaps--
		return &syncproto.Gap{Expected: s.LastSeq + 1}
	case f.First > s.LastSeq+1:
		return &syncproto.Gap{Expected: s.LastSeq + 1}
	}
	for _, raw := range f.Mutations {
		mut, err := crm.DecodeMutation(raw)
		switch {
		case err != nil:
			m.tb.Errorf("push: %v", err)
			return nil
		case mut.Seq <= s.LastSeq:
			continue
		case mut.Prev != s.LastHash || mut.Node != node:
			return &syncproto.Frozen{Reason: "fork"}
		}
		m.decide(mut, raw, false)
	}
	return &syncproto.Pushed{Seq: s.LastSeq}
}

// feed sends batches until the session ends.
func (m *scripted) feed(conn *syncproto.Conn, h *syncproto.Hello, w *syncproto.Welcome, done <-chan struct{}) {
	f := &scriptedFeed{m: m, node: h.Node, cursor: h.Cursor, at: max(h.Cursor, h.Staged), resend: h.Resend, fresh: h.Staged == 0 && h.Cursor == 0}
	for {
		m.mu.Lock()
		changed, hold := m.changed, m.holdFeed
		m.mu.Unlock()
		var b *syncproto.Batch
		if !hold {
			b = f.next()
		}
		if b != nil {
			if conn.Send(b) != nil {
				return
			}
			if !b.Final {
				f.parts++
				m.mu.Lock()
				stop := m.stopAt > 0 && f.parts >= m.stopAt
				m.mu.Unlock()
				if stop {
					return
				}
				continue
			}
		}
		select {
		case <-changed:
		case <-done:
			return
		}
	}
}

// A scriptedFeed is a small, slow feed: a batch lists all that changed and is
// cut at a whole Rev, but for a territory that comes whole to a base in use.
type scriptedFeed struct {
	m      *scripted
	node   crm.NodeID
	cursor crm.Rev
	at     crm.Rev // all up to here was sent
	resend []crm.TerritoryID
	fresh  bool
	parts  int
	began  bool
}

type positioned struct {
	rev crm.Rev
	it  syncproto.Item
}

func (f *scriptedFeed) next() (b *syncproto.Batch) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.m.view(func(tx *store.Tx) { b = f.read(tx) })
	return b
}

func (f *scriptedFeed) read(tx *store.Tx) *syncproto.Batch {
	head, _ := tx.Rev()
	if head == f.cursor && f.began {
		return nil
	}
	granted, whole := f.grants(tx)
	b := &syncproto.Batch{Timeline: f.m.timeline, From: f.cursor, To: head, Final: true, Whole: whole}
	b.Decided, b.Upto = f.m.states[f.node].LastSeq, head
	part, damage := f.m.part, f.m.damage
	var list []positioned
	for _, t := range granted {
		since := f.at
		if slices.Contains(whole, t) && !(f.cursor == 0 && f.at > 0) {
			since = 0
		}
		list = append(list, f.items(tx, t, since, granted, slices.Contains(whole, t))...)
	}
	slices.SortStableFunc(list, func(a, b positioned) int { return int(a.rev) - int(b.rev) })
	for i, p := range list {
		if part > 0 && (len(whole) == 0 || b.From == 0) && len(b.Items) >= part && p.rev != list[i-1].rev {
			b.Final, b.Upto = false, p.rev-1
			break
		}
		b.Items = append(b.Items, p.it)
	}
	if !b.Final {
		b.Decided = 0
		f.at = b.Upto
		return b
	}
	for o, err := range tx.Outcomes(f.node, 0) {
		if err == nil && o.Rev > f.cursor {
			b.Outcomes = append(b.Outcomes, o)
		}
	}
	for _, t := range granted {
		d, _ := tx.Digest(t)
		td := syncproto.TerritoryDigest{Territory: t}
		copy(td.Sum[:], d[:])
		b.Digests = append(b.Digests, td)
	}
	f.cursor, f.at, f.resend, f.fresh, f.began = head, head, nil, false, true
	if damage != nil {
		damage(b)
	}
	return b
}

func (f *scriptedFeed) grants(tx *store.Tx) (granted, whole []crm.TerritoryID) {
	a, _ := authorOf(tx, f.m.site[f.node])
	e := tx.Schema().EntityByID(crm.EntitySite)
	id, _, _ := tx.Lookup(e, e.FieldByID(crm.SiteName), crm.TextValue(f.m.site[f.node]))
	rec, _ := tx.Record(crm.EntitySite, id)
	since := map[crm.TerritoryID]crm.Rev{}
	if rec == nil || rec.Deleted {
		return a.holds, nil
	}
	if c := rec.Cell(crm.SiteTerritories); c != nil {
		for i, code := range c.Value.Set() {
			t, _, _ := tx.TerritoryByCode(code)
			since[t] = c.Elems[i].Rev
		}
	}
	for _, t := range a.holds {
		granted = append(granted, t)
		if f.cursor == 0 || since[t] > f.cursor || slices.Contains(f.resend, t) {
			whole = append(whole, t)
		}
	}
	return granted, whole
}

func (f *scriptedFeed) items(tx *store.Tx, t crm.TerritoryID, since crm.Rev, granted []crm.TerritoryID, whole bool) (out []positioned) {
	for e, err := range tx.Feed(t, since) {
		if err != nil {
			f.m.tb.Error(err)
			return nil
		}
		rec, _ := tx.Record(e.Entity, e.ID)
		it := syncproto.Item{Kind: syncproto.ItemRecord, Entity: e.Entity, ID: e.ID}
		switch {
		case e.Left && (f.fresh || rec != nil && slices.Contains(granted, rec.Territory)):
			continue
		case e.Left:
			it.Kind, it.Rev = syncproto.ItemLeft, e.Rev
		case rec.Deleted && f.fresh:
			continue
		case rec.Deleted:
			it.Kind = syncproto.ItemDeleted
		}
		if it.Kind != syncproto.ItemLeft {
			part, partial := rec, false
			if !whole {
				part, partial = syncproto.Delta(rec, f.cursor)
			}
			it.Partial, it.Body = partial, crm.AppendRecord(nil, part)
		}
		out = append(out, positioned{e.Rev, it})
	}
	return out
}

// ids gives names to records, so that tests can speak of them.
var idsMu sync.Mutex
var ids = map[string]crm.RecordID{}
var idStart = time.UnixMilli(1_700_000_000_000)

type zeros struct{ n byte }

func (z *zeros) Read(p []byte) (int, error) {
	for i := range p {
		z.n = z.n*37 + 11
		p[i] = z.n
	}
	return len(p), nil
}

var idSource io.Reader = &zeros{}

func id(name string) crm.RecordID {
	idsMu.Lock()
	defer idsMu.Unlock()
	if _, ok := ids[name]; !ok {
		idStart = idStart.Add(time.Millisecond)
		ids[name] = crm.NewRecordID(idStart, idSource)
	}
	return ids[name]
}

func create(e crm.EntityID, name string, cells ...crm.Input) crm.Op {
	return crm.Op{Kind: crm.OpCreate, Entity: e, Record: id(name), Cells: cells}
}

// Fields of an account, by their numbers in the catalogue.
const (
	accName        = crm.FieldID(18)
	accLegal       = crm.FieldID(20)
	accEmployees   = crm.FieldID(24)
	accDescription = crm.FieldID(33)
	accTags        = crm.FieldID(34)
	accTerritory   = crm.FieldID(35)
)

func account(name string, cells ...crm.Input) crm.Op {
	return create(catalog.Account, name, append([]crm.Input{{Field: accName, Value: crm.TextValue(name)}}, cells...)...)
}

func text(f crm.FieldID, s string) crm.Input { return crm.Input{Field: f, Value: crm.TextValue(s)} }

func patch(e crm.EntityID, name string, seen crm.Token, cells ...crm.Input) crm.Op {
	return crm.Op{Kind: crm.OpPatch, Entity: e, Record: id(name), Seen: seen, Cells: cells}
}
