package master

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
	"github.com/tradepost-crm/tradepost/wansim"
)

// The entities of the tests: accounts in territories, and notes under them.
const (
	entityAccount crm.EntityID = 16
	entityNote    crm.EntityID = 17

	accountName      crm.FieldID = 16
	accountTerritory crm.FieldID = 17
	accountPhone     crm.FieldID = 18
	noteText         crm.FieldID = 16
	noteAccount      crm.FieldID = 17
)

func testCatalogue() []crm.Request {
	account := &crm.Entity{ID: entityAccount, Name: "account", Label: "Account", Plural: "Accounts", Home: crm.HomeRoot, Title: []string{"name"}, Fields: []*crm.Field{
		{ID: accountName, Name: "name", Label: "Name", Kind: crm.Text, Required: true},
		{ID: accountTerritory, Name: "territory", Label: "Territory", Kind: crm.Text},
		{ID: accountPhone, Name: "phone", Label: "Phone", Kind: crm.Phone}}}
	note := &crm.Entity{ID: entityNote, Name: "note", Label: "Note", Plural: "Notes", Home: crm.HomeRoot, Parent: "account", Owned: true, Title: []string{"text"}, Fields: []*crm.Field{
		{ID: noteText, Name: "text", Label: "Text", Kind: crm.Text},
		{ID: noteAccount, Name: "account", Label: "Account", Kind: crm.Link, Target: "account", Required: true}}}
	var out []crm.Request
	for _, e := range []*crm.Entity{account, note} {
		out = append(out, crm.Request{Actor: "cluster", Intent: "entity.define", Ops: crm.MetadataOps(e)})
	}
	return out
}

// A rig is a cluster of masters and scripted replicas in a synctest bubble.
type rig struct {
	t       *testing.T
	net     *wansim.Network
	ca      *auth.CA
	masters []*rigMaster
	edit    func(n int, c *Config)
	mayFail bool // a master may stop by itself
}

// A rigMaster is one master with what survives its process.
type rigMaster struct {
	*Master
	host *wansim.Host
	dir  string
	cert *auth.Node
	dead bool
	stop func()

	crashed atomic.Bool // its ports were closed under it
}

var rigCities = []string{"Frankfurt", "Paris", "Amsterdam"}

// inRig runs fn in a bubble with a cluster of that many masters, of three
// territories, north, south and east, and of two sites that hold one each.
func inRig(t *testing.T, masters int, fn func(*testing.T, *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { fn(t, newRig(t, masters, nil)) })
}

func newRig(t *testing.T, masters int, edit func(n int, c *Config)) *rig {
	t.Helper()
	matrix, err := wansim.World().Subset("Frankfurt", "Paris", "Amsterdam", "Madrid", "Warsaw")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, net: wansim.New(wansim.Config{Matrix: matrix}), edit: edit}
	t.Cleanup(func() { r.net.Close() })
	if r.ca, err = auth.NewCA("c1", time.Now(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	cert := r.sign(auth.Identity{Cluster: "c1", Role: auth.RoleMaster, Site: "hq", Node: 1})
	m := r.start(&rigMaster{cert: cert, dir: t.TempDir()}, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err = m.Bootstrap(ctx, Initial{Catalogue: testCatalogue(),
		Territories: []InitialTerritory{{"north", "North"}, {"south", "South"}, {"east", "East"}},
		Sites: []InitialSite{{Name: "warsaw", City: "Warsaw", Territories: []string{"north"}, Home: "north"},
			{Name: "madrid", City: "Madrid", Territories: []string{"south"}, Home: "south"}}})
	if err != nil {
		t.Fatal(err)
	}
	for n := 2; n <= masters; n++ {
		r.addMaster(n)
	}
	return r
}

func syncAddress(n int) string { return fmt.Sprintf("m%d:7300", n) }

// start starts a master, again if it ran before.
func (r *rig) start(m *rigMaster, n int) *rigMaster {
	r.t.Helper()
	if m.host == nil {
		m.host = r.net.Host(rigCities[n%3], fmt.Sprintf("m%d", n))
	} else {
		m.host, m.dead = m.host.Revive(), false
		m.crashed.Store(false)
	}
	ports := map[string]string{ListenSync: "7300", ListenRaft: "7400"}
	key, err := r.ca.KeyDER()
	if err != nil {
		r.t.Fatal(err)
	}
	cfg := Config{Dir: m.dir, Node: m.cert, CA: r.ca, CAKey: key, City: rigCities[n%3], Country: "DE",
		Listen: func(kind string) (net.Listener, error) { return m.host.Listen(ports[kind]) }, Dial: m.host.Dial,
		SyncAddress: syncAddress(n), RaftAddress: raftAddress(n), LogStore: "memory"}
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(r.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("master", n)
	}
	if r.edit != nil {
		r.edit(n, &cfg)
	}
	if m.Master, err = Open(cfg); err != nil {
		r.t.Fatal(err)
	}
	r.run(m)
	if len(r.masters) < n {
		r.masters = append(r.masters, m)
	}
	return m
}

func (r *rig) run(m *rigMaster) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := m.Run(ctx); err != nil && !m.crashed.Load() && !r.mayFail {
			r.t.Errorf("run master %d: %v", m.node, err)
		}
	})
	var once sync.Once
	m.stop = func() {
		once.Do(func() {
			cancel()
			running.Wait()
			if err := m.Close(); err != nil {
				r.t.Errorf("close master %d: %v", m.node, err)
			}
		})
	}
	r.t.Cleanup(m.stop)
}

// kill ends a master's process at once.
func (r *rig) kill(m *rigMaster) {
	m.crashed.Store(true)
	m.host.Crash()
	m.stop()
	m.dead = true
}

// sign makes a certificate for id without asking any master.
func (r *rig) sign(id auth.Identity) *auth.Node {
	r.t.Helper()
	key, err := auth.NewKey()
	if err != nil {
		r.t.Fatal(err)
	}
	csr, err := auth.NewRequest(key)
	if err != nil {
		r.t.Fatal(err)
	}
	der, err := r.ca.Sign(csr, id, time.Now(), auth.NodeCertTTL)
	if err != nil {
		r.t.Fatal(err)
	}
	n, err := auth.NewNode(der, key)
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// addMaster lets a master join and waits until it votes.
func (r *rig) addMaster(n int) *rigMaster {
	r.t.Helper()
	m := r.joinMaster(n)
	r.waitFor(fmt.Sprintf("master %d to vote", n), func() bool {
		peers, err := r.leader().ListPeers(r.t.Context())
		return err == nil && len(peers) == n && peers[n-1].Suffrage == "voter"
	})
	r.waitFor("the new master to catch up", func() bool { return m.ledger.head() == r.leader().ledger.head() })
	return m
}

// joinMaster lets a master join and starts it.
func (r *rig) joinMaster(n int) *rigMaster {
	r.t.Helper()
	joined, cert, err := r.join(r.token("hq", auth.RoleMaster), auth.RoleMaster, func(j *syncproto.Join) {
		j.Sync, j.Raft = syncAddress(n), raftAddress(n)
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if joined.Node != crm.NodeID(n) || len(joined.CAKey) == 0 {
		r.t.Fatalf("joined as node %d with a key of %d bytes", joined.Node, len(joined.CAKey))
	}
	return r.start(&rigMaster{cert: cert, dir: r.t.TempDir()}, n)
}

// leader waits for a master that leads.
func (r *rig) leader() *rigMaster {
	r.t.Helper()
	var found *rigMaster
	r.waitFor("a leader", func() bool {
		for _, m := range r.masters {
			if !m.dead && m.Leading() {
				found = m
			}
		}
		return found != nil
	})
	return found
}

// follower returns a master that does not lead.
func (r *rig) follower() *rigMaster {
	r.t.Helper()
	leader := r.leader()
	for _, m := range r.masters {
		if m != leader && !m.dead {
			return m
		}
	}
	r.t.Fatal("there is no other master")
	return nil
}

// waitFor waits up to two virtual minutes for cond.
func (r *rig) waitFor(what string, cond func() bool) {
	r.t.Helper()
	for range 12000 {
		if cond() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.t.Fatalf("waited two minutes in vain: %s", what)
}

// commit has an edit decided by a master and wants it accepted.
func (r *rig) commit(m *rigMaster, ops ...crm.Op) crm.Rev {
	r.t.Helper()
	got, err := m.Commit(r.t.Context(), crm.Request{Actor: "boss", Intent: "test", Ops: ops})
	if err != nil {
		r.t.Fatal(err)
	}
	if got.Outcome.Kind != crm.Accepted {
		r.t.Fatalf("outcome %+v", got.Outcome)
	}
	return got.Outcome.Rev
}

func newID() crm.RecordID { return crm.NewRecordID(time.Now(), rand.Reader) }

func createAccount(id crm.RecordID, name, territory string) crm.Op {
	return crm.Op{Kind: crm.OpCreate, Entity: entityAccount, Record: id, Cells: []crm.Input{
		{Field: accountName, Value: crm.TextValue(name)}, {Field: accountTerritory, Value: crm.TextValue(territory)}}}
}

func createNote(id, account crm.RecordID, text string) crm.Op {
	return crm.Op{Kind: crm.OpCreate, Entity: entityNote, Record: id, Cells: []crm.Input{
		{Field: noteText, Value: crm.TextValue(text)}, {Field: noteAccount, Value: crm.LinkValue(account)}}}
}

// patch sets a field whatever stands there.
func patch(e crm.EntityID, id crm.RecordID, f crm.FieldID, v crm.Value) crm.Op {
	return crm.Op{Kind: crm.OpPatch, Entity: e, Record: id, Seen: crm.Token{Rev: crm.Pending - 1}, Cells: []crm.Input{{Field: f, Value: v}}}
}

// grants sets what a site holds.
func (r *rig) setGrants(m *rigMaster, name string, codes ...string) crm.Rev {
	r.t.Helper()
	var id crm.RecordID
	r.read(m, func(tx *store.Tx) error {
		e := tx.Schema().EntityByID(crm.EntitySite)
		var err error
		id, _, err = tx.Lookup(e, e.FieldByID(crm.SiteName), crm.TextValue(name))
		return err
	})
	return r.commit(m, patch(crm.EntitySite, id, crm.SiteTerritories, crm.ChoicesValue(codes...)))
}

func (r *rig) read(m *rigMaster, fn func(*store.Tx) error) {
	r.t.Helper()
	if err := m.ledger.db().View(fn); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) token(site string, role auth.Role) auth.JoinString {
	r.t.Helper()
	js, err := r.leader().CreateToken(r.t.Context(), "admin", site, role, time.Hour)
	if err != nil {
		r.t.Fatal(err)
	}
	return js
}

// join asks the first endpoint of js for admission. edit may change the request.
func (r *rig) join(js auth.JoinString, role auth.Role, edit func(*syncproto.Join)) (*syncproto.Joined, *auth.Node, error) {
	r.t.Helper()
	key, err := auth.NewKey()
	if err != nil {
		r.t.Fatal(err)
	}
	csr, err := auth.NewRequest(key)
	if err != nil {
		r.t.Fatal(err)
	}
	raw, err := r.net.Host("Warsaw", "joiner").Dial(r.t.Context(), js.Endpoints[0])
	if err != nil {
		r.t.Fatal(err)
	}
	conn := syncproto.NewConn(tls.Client(raw, auth.PinnedTLS(js.CAPin, time.Now, auth.ALPNJoin)))
	defer conn.Close()
	ask := &syncproto.Join{TokenID: js.Token.ID, Secret: js.Token.Secret, CSR: csr, Role: string(role), City: "Warsaw"}
	if edit != nil {
		edit(ask)
	}
	if err := conn.Send(ask); err != nil {
		return nil, nil, err
	}
	f, err := conn.Receive()
	if err != nil {
		return nil, nil, err
	}
	switch f := f.(type) {
	case *syncproto.Refused:
		return nil, nil, &crm.Error{Code: f.Code, Message: f.Message}
	case *syncproto.Joined:
		n, err := auth.NewNode(f.Cert, key)
		return f, n, err
	}
	return nil, nil, fmt.Errorf("answered with %s", f.Kind())
}

// A branch is a scripted replica: it speaks real frames and keeps its base in
// memory.
type branch struct {
	r    *rig
	host *wansim.Host
	cert *auth.Node

	incarnation crm.Incarnation
	next        crm.Seq
	chain       crm.ChainHash
	timeline    uint64
	cursor      crm.Rev
	base        map[store.RecordKey]*crm.Record // live and deleted
	staged      []syncproto.Item
	whole       map[crm.TerritoryID]bool
	sentEdits   [][]byte // by Seq-1
	decided     crm.Seq
	outcomes    []crm.Outcome
	sums        map[crm.TerritoryID][16]byte

	conn    *syncproto.Conn
	frames  chan syncproto.Frame // what the master sent, without heartbeats; closed at the end
	mute    bool                 // heartbeats go unanswered
	welcome *syncproto.Welcome
	reading sync.WaitGroup
}

// branch lets a site's replica join.
func (r *rig) branch(site, city string) *branch {
	r.t.Helper()
	_, cert, err := r.join(r.token(site, auth.RoleReplica), auth.RoleReplica, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	b := &branch{r: r, host: r.net.Host(city, site), cert: cert, next: 1, base: map[store.RecordKey]*crm.Record{}, whole: map[crm.TerritoryID]bool{}, sums: map[crm.TerritoryID][16]byte{}}
	r.t.Cleanup(b.hangUp)
	return b
}

func (b *branch) hello() *syncproto.Hello {
	return &syncproto.Hello{ProtoMin: syncproto.MinVersion, ProtoMax: syncproto.MaxVersion, Cluster: "c1", Node: crm.NodeID(b.cert.Identity.Node), Incarnation: b.incarnation,
		NextSeq: b.next, Chain: b.chain, Timeline: b.timeline, Cursor: b.cursor, Bootstrap: b.cursor == 0, Sent: time.Now().UnixMilli()}
}

// dial opens a connection and sends h; it returns the answer.
func (b *branch) dial(m *rigMaster, h *syncproto.Hello) (syncproto.Frame, error) {
	b.r.t.Helper()
	b.hangUp()
	raw, err := b.host.Dial(b.r.t.Context(), m.cfg.SyncAddress)
	if err != nil {
		b.r.t.Fatal(err)
	}
	b.conn = syncproto.NewConn(tls.Client(raw, auth.ClientTLS(b.cert, b.r.ca.Cert, time.Now, auth.ExpectMaster, auth.ALPNSync)))
	if err := b.conn.Send(h); err != nil {
		return nil, err
	}
	f, err := b.conn.Receive()
	if w, ok := f.(*syncproto.Welcome); ok {
		b.conn.Speak(w.Proto)
	}
	return f, err
}

// connect opens a session and wants a welcome.
func (b *branch) connect(m *rigMaster) {
	b.r.t.Helper()
	f, err := b.dial(m, b.hello())
	if err != nil {
		b.r.t.Fatal(err)
	}
	w, ok := f.(*syncproto.Welcome)
	if !ok {
		b.r.t.Fatalf("answered with %s: %+v", f.Kind(), f)
	}
	b.welcome, b.incarnation, b.timeline = w, w.Incarnation, w.Timeline
	b.listen()
}

// listen reads the session's frames until it ends.
func (b *branch) listen() {
	b.frames = make(chan syncproto.Frame, 4096)
	conn, frames := b.conn, b.frames
	b.reading.Go(func() {
		defer close(frames)
		for {
			f, err := conn.Receive()
			if err != nil {
				return
			}
			if h, ok := f.(*syncproto.Heartbeat); ok {
				if !h.Reply && !b.mute {
					h.T2, h.T3, h.Reply = time.Now().UnixMilli(), time.Now().UnixMilli(), true
					conn.Send(h)
				}
				continue
			}
			frames <- f
		}
	})
}

func (b *branch) hangUp() {
	if b.conn != nil {
		b.conn.Close()
		b.conn = nil
	}
	b.reading.Wait()
}

// frame returns the next frame; nil if the session ended. It fails after three
// virtual minutes.
func (b *branch) frame() syncproto.Frame {
	b.r.t.Helper()
	select {
	case f := <-b.frames:
		return f
	case <-time.After(3 * time.Minute):
		b.r.t.Fatal("the master said nothing for three minutes")
		return nil
	}
}

// want applies batches until a frame of another kind comes, which it returns.
func want[F syncproto.Frame](b *branch) F {
	b.r.t.Helper()
	for {
		f := b.frame()
		if got, ok := f.(F); ok {
			return got
		}
		batch, ok := f.(*syncproto.Batch)
		if !ok {
			b.r.t.Fatalf("got %v (%T), want %T", f, f, *new(F))
		}
		b.apply(batch)
	}
}

// until applies batches until the branch has rev; other frames are dropped.
func (b *branch) until(rev crm.Rev) {
	b.r.t.Helper()
	for b.cursor < rev {
		f := b.frame()
		if f == nil {
			b.r.t.Fatal("the session ended")
		}
		if batch, ok := f.(*syncproto.Batch); ok {
			b.apply(batch)
		}
	}
}

func (b *branch) apply(batch *syncproto.Batch) {
	b.r.t.Helper()
	if batch.From != b.cursor || batch.Timeline != b.timeline {
		b.r.t.Fatalf("batch from %d of timeline %d, cursor %d of %d", batch.From, batch.Timeline, b.cursor, b.timeline)
	}
	b.staged = append(b.staged, batch.Items...)
	for _, t := range batch.Whole {
		b.whole[t] = true
	}
	if !batch.Final {
		return
	}
	for k, rec := range b.base {
		if b.whole[rec.Territory] {
			delete(b.base, k)
		}
	}
	for _, it := range b.staged {
		b.put(it)
	}
	for _, d := range batch.Digests {
		b.sums[d.Territory] = d.Sum
	}
	b.staged, b.cursor, b.decided = nil, batch.To, batch.Decided
	clear(b.whole)
	b.outcomes = append(b.outcomes, batch.Outcomes...)
	if err := b.conn.Send(&syncproto.Applied{Cursor: b.cursor}); err != nil && b.r.t.Context().Err() == nil {
		b.r.t.Logf("applied: %v", err)
	}
}

func (b *branch) put(it syncproto.Item) {
	b.r.t.Helper()
	k := store.RecordKey{Entity: it.Entity, ID: it.ID}
	if it.Kind == syncproto.ItemLeft {
		delete(b.base, k)
		return
	}
	rec, err := crm.DecodeRecord(it.Entity, it.ID, it.Body)
	if err != nil {
		b.r.t.Fatal(err)
	}
	if it.Partial {
		if rec = syncproto.MergePartial(b.base[k], rec); rec == nil {
			b.r.t.Fatalf("a part of record %s came, and it is not here", it.ID)
		}
	}
	b.base[k] = rec
}

// mutation makes the branch's next edit.
func (b *branch) mutation(ops ...crm.Op) []byte {
	m := &crm.Mutation{Node: crm.NodeID(b.cert.Identity.Node), Incarnation: b.incarnation, Seq: b.next, Prev: b.chain, HLC: crm.NewHLC(time.Now().UnixMilli()), Actor: "clerk", Intent: "test", Ops: ops}
	raw := crm.AppendMutation(nil, m)
	b.next++
	b.chain = crm.Chain(b.chain, raw)
	b.sentEdits = append(b.sentEdits, raw)
	return raw
}

// repush sends again what was not decided.
func (b *branch) repush() {
	b.r.t.Helper()
	b.push(b.decided+1, b.sentEdits[b.decided:]...)
}

// push sends edits, the first with the given number.
func (b *branch) push(first crm.Seq, raw ...[]byte) {
	b.r.t.Helper()
	if err := b.conn.Send(&syncproto.Push{First: first, Mutations: raw}); err != nil {
		b.r.t.Fatal(err)
	}
}

// equals compares the branch with the master: the live records of the
// territories, byte for byte, and none beside.
func (b *branch) equals(m *rigMaster, territories ...crm.TerritoryID) {
	b.r.t.Helper()
	b.r.read(m, func(tx *store.Tx) error {
		head, err := tx.Rev()
		if err != nil || head != b.cursor {
			return errors.Join(err, fmt.Errorf("the branch is at %d, the master at %d", b.cursor, head))
		}
		live := map[store.RecordKey]bool{}
		for _, t := range territories {
			for e, err := range tx.Feed(t, 0) {
				if err != nil {
					return err
				}
				rec, err := tx.Record(e.Entity, e.ID)
				if err != nil {
					return err
				}
				if e.Left || rec.Deleted {
					continue
				}
				k := store.RecordKey{Entity: e.Entity, ID: e.ID}
				live[k] = true
				got := b.base[k]
				if got == nil || !bytes.Equal(crm.AppendRecord(nil, got), crm.AppendRecord(nil, rec)) {
					b.r.t.Errorf("%s: the branch has %s", brief(rec), brief(got))
				}
			}
		}
		for k, rec := range b.base {
			if !live[k] && !rec.Deleted {
				b.r.t.Errorf("the branch holds %s, which is not the master's in %v", brief(rec), territories)
			}
		}
		return nil
	})
}

// brief names a record in an error.
func brief(r *crm.Record) string {
	if r == nil {
		return "nothing"
	}
	return fmt.Sprintf("record %s of entity %d in territory %d at rev %d, entered at %d", r.ID, r.Entity, r.Territory, r.Stamp.Rev, r.Entered)
}

func territory(r *rig, code string) (id crm.TerritoryID) {
	r.t.Helper()
	r.read(r.leader(), func(tx *store.Tx) (err error) {
		id, _, err = tx.TerritoryByCode(code)
		return err
	})
	return id
}

func wantCode(t *testing.T, err error, code crm.Code) {
	t.Helper()
	if got := crm.CodeOf(err); got != code {
		t.Errorf("got code %q (%v), want %q", got, err, code)
	}
}
