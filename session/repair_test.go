package session_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	bolt "go.etcd.io/bbolt"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/crm/report"
	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/replica"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A mender is a world that speaks version 3, and whose branch's files can be
// damaged behind its back.
type mender struct {
	*world
	dir     string
	log     bytes.Buffer
	reg     *prometheus.Registry
	batches []*syncproto.Batch // that the master sent
	bytes   int                // of frames that the master sent
}

// newMender returns a branch with so many accounts, equal to the master.
func newMender(t *testing.T, accounts int) *mender {
	t.Helper()
	m := &mender{world: newWorld(t), dir: t.TempDir()}
	m.apply(master.ActivateEntry{Level: 3})
	m.must(m.branch.Close())
	m.open()
	m.watch()
	for n := range accounts {
		m.office(m.create(catalog.Account, accName, crm.TextValue("account"), accTerr, crm.TextValue("north"), accTags, crm.ChoicesValue(strings.Repeat("x", 1+n%40))))
	}
	m.must(m.connect())
	m.must(m.pass(time.Second))
	m.equal()
	m.forget()
	return m
}

func (m *mender) open() {
	m.t.Helper()
	m.reg = prometheus.NewRegistry()
	var err error
	m.branch, err = replica.Open(replica.Config{Dir: m.dir, ID: replica.ID{Cluster: "c1", Site: m.id.Site, Node: crm.NodeID(m.id.Node)}, Store: store.Options{NoSync: true}, Now: m.now, Rand: m.rand,
		Logger: slog.New(slog.NewTextHandler(&m.log, nil)), Metrics: replica.NewMetrics(m.reg),
		Masters: func() []string { return nil }, Dial: func(context.Context, string) (net.Conn, error) { return nil, errors.New("there is no line") }})
	m.must(err)
	m.t.Cleanup(func() { _ = m.branch.Close() })
}

// watch notes what the master sends, and lets other spoil it.
func (m *mender) watch(spoil ...func(*syncproto.Batch)) {
	m.mangle = func(f syncproto.Frame) []syncproto.Frame {
		raw, err := syncproto.AppendFrame(nil, syncproto.MaxVersion, f)
		m.must(err)
		m.bytes += len(raw)
		if b, ok := f.(*syncproto.Batch); ok {
			m.batches = append(m.batches, b)
			for _, s := range spoil {
				s(b)
			}
		}
		return []syncproto.Frame{f}
	}
}

func (m *mender) forget() {
	m.batches, m.bytes = nil, 0
	m.world.log = nil
	m.log.Reset()
}

// tamper changes the branch's base while it is closed.
func (m *mender) tamper(fn func(*bolt.Tx) error) {
	m.t.Helper()
	m.hangUp()
	m.must(m.branch.Close())
	db, err := bolt.Open(filepath.Join(m.dir, "base.db"), 0o600, nil)
	m.must(err)
	m.must(db.Update(fn))
	m.must(db.Close())
	m.open()
}

// through changes the branch's base by way of the store.
func (m *mender) through(fn func(*store.Tx) error) {
	m.t.Helper()
	m.hangUp()
	m.must(m.branch.Close())
	db, err := store.Open(filepath.Join(m.dir, "base.db"), store.Options{NoSync: true})
	m.must(err)
	m.must(db.Update(fn))
	m.must(db.Close())
	m.open()
}

// scrub does a whole round over the base.
func (m *mender) scrub() (findings int) {
	m.t.Helper()
	for at, first := []byte(nil), true; first || at != nil; first = false {
		next, n, err := m.branch.ScrubBase(m.t.Context(), at, 100)
		m.must(err)
		at, findings = next, findings+n
	}
	return findings
}

// masters reads the master's file.
func (m *mender) masters(fn func(*store.Tx) error) {
	m.t.Helper()
	m.must(m.fsm.DB().View(fn))
}

func (m *mender) north() (t crm.TerritoryID) {
	m.masters(func(tx *store.Tx) (err error) { t, _, err = tx.TerritoryByCode("north"); return err })
	return t
}

// someAccount returns the first account of the territory.
func (m *mender) someAccount() (rec *crm.Record) {
	m.masters(func(tx *store.Tx) error {
		for r, err := range tx.Scan(catalog.Account) {
			rec = r.Clone()
			return err
		}
		return nil
	})
	return rec
}

// inBucket counts the master's records of the territory in the bucket of id.
func (m *mender) inBucket(id crm.RecordID) (n int) {
	m.masters(func(tx *store.Tx) error {
		for _, err := range tx.BucketRecords(m.north(), tx.BucketOf(id)) {
			if err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return n
}

func (m *mender) counter(name string) float64 {
	m.t.Helper()
	families, err := m.reg.Gather()
	m.must(err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	m.t.Fatalf("there is no metric %s", name)
	return 0
}

func (m *mender) alarms() int { return strings.Count(m.log.String(), "ALARM") }

// sealed is the value of a live record as the store keeps it.
func sealed(r *crm.Record) []byte {
	body := crm.AppendRecord(nil, r)
	key := append(binary.BigEndian.AppendUint16(nil, uint16(r.Entity)), r.ID[:]...)
	table := crc32.MakeTable(crc32.Castagnoli)
	return append(binary.BigEndian.AppendUint32(nil, crc32.Update(crc32.Checksum(key, table), table, body)), body...)
}

func live(tx *bolt.Tx, e crm.EntityID) *bolt.Bucket {
	return tx.Bucket([]byte("live")).Bucket(binary.BigEndian.AppendUint16(nil, uint16(e)))
}

// What may become of a base, how it is found, and that only the buckets that
// differ are sent again.
func TestRepair_MendsWhatDiffers(t *testing.T) {
	other := func(r *crm.Record) *crm.Record {
		r = r.Clone()
		r.Cell(accName).Value = crm.TextValue("not what the masters say")
		return r
	}
	for _, tt := range []struct {
		name    string
		harm    func(m *mender, r *crm.Record)
		scrub   bool // finds it; else the next batch does
		records int  // that the repair changes
		buckets int
	}{
		{"a flipped bit in a value", func(m *mender, r *crm.Record) {
			m.tamper(func(tx *bolt.Tx) error {
				v := bytes.Clone(live(tx, r.Entity).Get(r.ID[:]))
				v[len(v)-1] ^= 1
				return live(tx, r.Entity).Put(r.ID[:], v)
			})
		}, true, 1, 1},
		{"a flipped bit in a checksum", func(m *mender, r *crm.Record) {
			m.tamper(func(tx *bolt.Tx) error {
				v := bytes.Clone(live(tx, r.Entity).Get(r.ID[:]))
				v[0] ^= 1
				return live(tx, r.Entity).Put(r.ID[:], v)
			})
		}, true, 1, 1},
		{"another value with a right checksum", func(m *mender, r *crm.Record) {
			m.tamper(func(tx *bolt.Tx) error { return live(tx, r.Entity).Put(r.ID[:], sealed(other(r))) })
		}, true, 1, 1},
		{"a record is gone", func(m *mender, r *crm.Record) {
			m.tamper(func(tx *bolt.Tx) error { return live(tx, r.Entity).Delete(r.ID[:]) })
		}, true, 1, 1},
		{"another value, by way of the store", func(m *mender, r *crm.Record) {
			m.through(func(tx *store.Tx) error { return tx.Put(other(r)) })
		}, false, 1, 1},
		{"a record is dropped", func(m *mender, r *crm.Record) {
			m.through(func(tx *store.Tx) error { _, err := tx.Drop(r.Entity, r.ID); return err })
		}, false, 1, 1},
		{"a foreign record", func(m *mender, r *crm.Record) {
			m.through(func(tx *store.Tx) error {
				r := other(r)
				r.ID[3] ^= 1
				r.Root = r.ID
				return tx.Put(r)
			})
		}, false, 1, 1},
		{"a row of the digest", func(m *mender, r *crm.Record) {
			m.tamper(func(tx *bolt.Tx) error {
				key := append(binary.BigEndian.AppendUint32(nil, uint32(r.Territory)), r.ID[15])
				return tx.Bucket([]byte("digest")).Put(key, bytes.Repeat([]byte{9}, 40))
			})
		}, false, 0, 0},
		{"a row of the digest, found by the scrub", func(m *mender, r *crm.Record) {
			m.tamper(func(tx *bolt.Tx) error {
				key := append(binary.BigEndian.AppendUint32(nil, uint32(r.Territory)), r.ID[15])
				return tx.Bucket([]byte("digest")).Delete(key)
			})
		}, true, 0, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMender(t, 300)
			r := m.someAccount()
			tt.harm(m, r)
			if tt.scrub && m.scrub() == 0 {
				t.Error("the scrub found nothing")
			}
			m.must(m.connect())
			m.must(m.pass(time.Second))
			m.equal()
			if n := m.alarms(); n != 1 {
				t.Errorf("%d alarms:\n%s", n, m.log.String())
			}
			items := 0
			for _, b := range m.batches {
				for _, w := range b.Buckets {
					if w.Set.Len() != tt.buckets {
						t.Errorf("%d buckets were sent", w.Set.Len())
					}
				}
				items += len(b.Items)
			}
			if most := m.inBucket(r.ID) * tt.buckets; items != most || most > 20 {
				t.Errorf("%d records were sent, %d are in the bucket", items, most)
			}
			if n := m.counter("tradepost_state_repaired_records_total"); n != float64(tt.records) {
				t.Errorf("%v records repaired, want %d", n, tt.records)
			}
			if n := m.counter("tradepost_state_repaired_total"); n != 1 {
				t.Errorf("%v repairs", n)
			}
			m.forget()
			m.office(m.create(catalog.Account, accName, crm.TextValue("after"), accTerr, crm.TextValue("north")))
			m.must(m.pass(time.Second))
			m.equal()
			if m.count("↑repair") > 0 || m.alarms() > 0 {
				t.Errorf("a cured territory is repaired again: %v", m.world.log)
			}
		})
	}
}

// bulky makes records large, so that few of them fill a part.
var bulky = crm.Input{Field: accDescription, Value: crm.TextValue(strings.Repeat("The harbour is deep. ", 600))}

const accDescription = crm.FieldID(33)

// forge gives the branch other values of so many accounts, with right checksums.
func (m *mender) forge(count int, territories ...crm.TerritoryID) {
	m.t.Helper()
	var list []*crm.Record
	m.masters(func(tx *store.Tx) error {
		for r, err := range tx.Scan(catalog.Account) {
			if err != nil {
				return err
			}
			list = append(list, r.Clone())
		}
		return nil
	})
	m.tamper(func(tx *bolt.Tx) error {
		for _, r := range list {
			if count == 0 || len(territories) > 0 && !slices.Contains(territories, r.Territory) {
				continue
			}
			count--
			r.Cell(accName).Value = crm.TextValue("forged")
			if err := live(tx, r.Entity).Put(r.ID[:], sealed(r)); err != nil {
				return err
			}
		}
		return nil
	})
}

// A repair larger than a batch comes in parts; a session lost at any of them
// begins the repair anew, from what the base says is suspect.
func TestRepair_InPartsOverLostSessions(t *testing.T) {
	m := newMender(t, 10)
	for range 150 {
		m.office(withCell(m.create(catalog.Account, accName, crm.TextValue("bulky"), accTerr, crm.TextValue("north")), bulky))
	}
	m.must(m.pass(time.Second))
	m.equal()
	m.forge(160)
	m.forget()
	if m.scrub() == 0 {
		t.Fatal("the scrub found nothing")
	}
	parts := 0
	cut := errors.New("cut")
	for lost := 1; ; lost++ {
		m.forget()
		m.must(m.connect())
		seen := 0
		m.watch()
		notes := m.mangle
		m.mangle = func(f syncproto.Frame) []syncproto.Frame {
			if b, ok := f.(*syncproto.Batch); ok && b.Repair > 0 {
				if seen++; seen == lost {
					return []syncproto.Frame{&syncproto.Refused{Code: crm.CodeUnavailable, Message: cut.Error()}}
				}
			}
			return notes(f)
		}
		m.office(m.account("meanwhile"))
		err := m.pass(time.Second)
		if err == nil {
			parts = seen
			break
		}
		if s := m.branch.Status(); len(s.Suspect) != 1 {
			t.Fatalf("after a cut at batch %d nothing is suspect: %+v", lost, s)
		}
		if lost%2 == 0 { // and the process too
			m.hangUp()
			m.must(m.branch.Close())
			m.open()
		}
	}
	m.equal()
	if parts < 3 {
		t.Errorf("%d batches", parts)
	}
	if n := m.counter("tradepost_state_repaired_total"); n != 1 {
		t.Errorf("%v repairs", n)
	}
}

func withCell(op crm.Op, more ...crm.Input) crm.Op {
	op.Cells = append(op.Cells, more...)
	return op
}

// Several territories differ, some in several buckets, while the branch has edits
// on their way and the masters decide more.
func TestRepair_SeveralTerritories(t *testing.T) {
	m := newMender(t, 40)
	m.office(crm.Op{Kind: crm.OpPatch, Entity: crm.EntitySite, Record: m.site, Seen: crm.Token{Rev: m.fsm.Head()},
		Cells: []crm.Input{{Field: crm.SiteTerritories, Value: crm.ChoicesValue("north", "south")}}})
	for range 40 {
		m.office(m.create(catalog.Account, accName, crm.TextValue("southern"), accTerr, crm.TextValue("south")))
	}
	m.must(m.pass(time.Second))
	m.equal()
	m.forge(80)
	m.tamper(func(tx *bolt.Tx) error { // the digests differ too, or they would be right until the scrub
		digests := tx.Bucket([]byte("digest"))
		c := digests.Cursor()
		for k, _ := c.First(); k != nil; k, _ = c.Next() {
			if k[4]%16 == 0 {
				if err := digests.Put(bytes.Clone(k), make([]byte, 40)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	m.forget()
	mine := m.commit(m.account("pending"))
	m.office(m.create(catalog.Account, accName, crm.TextValue("decided meanwhile"), accTerr, crm.TextValue("south")))
	m.must(m.connect())
	m.must(m.pass(time.Second))
	m.equal()
	if o, ok, err := m.branch.Outcome(mine); err != nil || !ok || o.Kind != crm.Accepted {
		t.Errorf("outcome %+v %v %v", o, ok, err)
	}
	if n := m.counter("tradepost_state_repaired_records_total"); n != 80 {
		t.Errorf("%v records repaired, 80 were forged", n)
	}
	if m.alarms() != 1 || m.count("↑repair") != 2 {
		t.Errorf("%d alarms, %d repairs", m.alarms(), m.count("↑repair"))
	}
}

// A batch that was spoiled on its way is not kept, those behind it do not count,
// and the session goes on.
func TestRepair_DropsWhatWasOnItsWay(t *testing.T) {
	m := newMender(t, 20)
	spoil := true
	m.watch(func(b *syncproto.Batch) {
		for i := range b.Items {
			if it := &b.Items[i]; spoil && it.Entity == catalog.Account {
				r, err := crm.DecodeRecord(it.Entity, it.ID, it.Body)
				m.must(err)
				r.Cells[0].Value = crm.TextValue("spoiled")
				it.Body = crm.AppendRecord(nil, r)
			}
		}
		spoil = false
	})
	cursor := m.branch.Status().Cursor
	for range 3 { // without the branch's frames in between
		m.office(m.create(catalog.Account, accName, crm.TextValue("x"), accTerr, crm.TextValue("north")))
		act, err := m.down.Due()
		m.must(m.do(act, err))
	}
	if s := m.branch.Status(); s.Cursor != cursor || len(s.Suspect) != 1 || len(m.batches) != 3 {
		t.Errorf("after %d batches: %+v", len(m.batches), s)
	}
	m.must(m.pass(time.Second))
	m.equal()
	if m.count("↑repair") != 1 || m.alarms() != 1 || m.count("↑hello") > 0 {
		t.Errorf("%v, %d alarms", m.world.log, m.alarms())
	}
}

// Readers of a damaged record are told; all else can be read; and the read alone
// has the record fetched again. Who subscribed hears of it.
func TestRepair_OfWhatAReaderMet(t *testing.T) {
	m := newMender(t, 50)
	r := m.someAccount()
	m.tamper(func(tx *bolt.Tx) error {
		v := bytes.Clone(live(tx, r.Entity).Get(r.ID[:]))
		v[len(v)-1] ^= 1
		return live(tx, r.Entity).Put(r.ID[:], v)
	})
	m.must(m.connect())
	m.must(m.pass(time.Second))
	changes := m.branch.Subscribe(t.Context())
	read := func(id crm.RecordID) (*crm.Record, error) {
		var rec *crm.Record
		_, err := m.branch.Read(t.Context(), crm.Demand{}, func(rd *store.Reader) (err error) {
			rec, err = rd.Record(catalog.Account, id)
			return err
		})
		return rec, err
	}
	m.forget()
	if _, err := read(r.ID); crm.CodeOf(err) != crm.CodeCorrupt || !strings.Contains(err.Error(), "fetched again") || !strings.Contains(err.Error(), r.ID.String()) {
		t.Errorf("read: %v", err)
	}
	if _, err := read(r.ID); crm.CodeOf(err) != crm.CodeCorrupt {
		t.Errorf("read again: %v", err)
	}
	var second crm.RecordID
	m.masters(func(tx *store.Tx) error {
		for o, err := range tx.Scan(catalog.Account) {
			if second = o.ID; second != r.ID || err != nil {
				return err
			}
		}
		return nil
	})
	if rec, err := read(second); err != nil || rec == nil {
		t.Errorf("another record: %v", err)
	}
	if m.alarms() != 1 || m.up.Next().After(m.clock) {
		t.Errorf("%d alarms, next %v", m.alarms(), m.up.Next())
	}
	m.must(m.pass(time.Second))
	if rec, err := read(r.ID); err != nil || !bytes.Equal(crm.AppendRecord(nil, rec), crm.AppendRecord(nil, r)) {
		t.Errorf("after the repair: %v", err)
	}
	m.equal()
	select {
	case c := <-changes:
		if c.Record != r.ID || c.Left {
			t.Errorf("told of %+v", c)
		}
	default:
		t.Error("nobody was told of the change")
	}
}

// An edit that depends on a damaged record is not lost, nor does it hold up the
// node: it is folded again over what the repair brought.
func TestRepair_FoldsPendingEditsAgain(t *testing.T) {
	m := newMender(t, 20)
	r := m.someAccount()
	m.hangUp()
	mine := m.commit(crm.Op{Kind: crm.OpPatch, Entity: r.Entity, Record: r.ID, Seen: crm.Token{Rev: r.Stamp.Rev}, Cells: []crm.Input{{Field: accDescription, Value: crm.TextValue("mine")}}})
	m.tamper(func(tx *bolt.Tx) error {
		v := bytes.Clone(live(tx, r.Entity).Get(r.ID[:]))
		v[len(v)-1] ^= 1
		return live(tx, r.Entity).Put(r.ID[:], v)
	})
	m.office(m.account("meanwhile"))
	m.must(m.connect())
	m.must(m.pass(time.Second))
	m.equal()
	if o, ok, err := m.branch.Outcome(mine); err != nil || !ok || o.Kind != crm.Accepted {
		t.Errorf("outcome %+v %v %v", o, ok, err)
	}
}

// What a peer may ask for that is not a branch in need.
func TestRepair_RefusesAndSlowsDown(t *testing.T) {
	m := newMender(t, 20)
	var south crm.TerritoryID
	m.masters(func(tx *store.Tx) (err error) { south, _, err = tx.TerritoryByCode("south"); return err })
	m.office(m.create(catalog.Account, accName, crm.TextValue("not theirs"), accTerr, crm.TextValue("south")))
	m.must(m.pass(time.Second))
	m.forget()
	var sent []*syncproto.Batch
	m.mangle = func(f syncproto.Frame) []syncproto.Frame { // the branch itself hears nothing of it
		if b, ok := f.(*syncproto.Batch); ok {
			sent = append(sent, b)
		}
		return nil
	}
	ask := func(number uint32, wants ...syncproto.Want) {
		m.must(m.ascend(&syncproto.Repair{Number: number, Cursor: m.fsm.Head(), Wants: wants}))
		act, err := m.down.Due()
		m.must(m.do(act, err))
	}
	ask(1, syncproto.Want{Territory: south}, syncproto.Want{Territory: crm.HeadOffice, Buckets: syncproto.AllBuckets()}, syncproto.Want{Territory: m.north()})
	if len(sent) != 1 || len(sent[0].Sums) != 1 || sent[0].Sums[0].Territory != m.north() || len(sent[0].Buckets)+len(sent[0].Items) > 0 || sent[0].Repair != 1 {
		t.Fatalf("answered with %+v", sent)
	}
	for n := range uint32(100) {
		ask(2+n, syncproto.Want{Territory: m.north(), Buckets: syncproto.AllBuckets()})
	}
	if len(sent) != 8 {
		t.Errorf("%d of a hundred repairs were answered at once", len(sent))
	}
	for range 3 {
		m.clock = m.clock.Add(10 * time.Second)
		act, err := m.down.Due()
		m.must(m.do(act, err))
	}
	if len(sent) != 9 || sent[8].Repair != 101 {
		t.Errorf("%d were answered after half a minute, the last with number %d", len(sent), sent[len(sent)-1].Repair)
	}
}

// copied returns another branch with what the branch holds.
func (m *mender) copied() *mender {
	m.t.Helper()
	w := *m.world
	other := &mender{world: &w, dir: m.t.TempDir()}
	m.must(m.branch.Close())
	files, err := filepath.Glob(filepath.Join(m.dir, "*.db"))
	m.must(err)
	for _, f := range files {
		raw, err := os.ReadFile(f)
		m.must(err)
		m.must(os.WriteFile(filepath.Join(other.dir, filepath.Base(f)), raw, 0o600))
	}
	m.open()
	other.open()
	other.watch()
	return other
}

// A base that is damaged elsewhere than in records is fetched anew, once a master
// answers; edits stay.
func TestRepair_OfABaseDamagedElsewhere(t *testing.T) {
	m := newMender(t, 20)
	m.hangUp()
	mine := m.commit(m.account("pending"))
	m.tamper(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("outcome"))
		return b.Put(make([]byte, 12), []byte("not an outcome"))
	})
	m.forget()
	if m.scrub() == 0 {
		t.Fatal("the scrub found nothing")
	}
	if s := m.branch.Status(); !s.Ready || s.Cursor == 0 || s.Damage == "" || m.alarms() != 1 {
		t.Errorf("before a master answers: %+v, %d alarms", s, m.alarms())
	}
	m.must(m.connect())
	m.must(m.pass(time.Second))
	m.equal()
	if o, ok, err := m.branch.Outcome(mine); err != nil || !ok || o.Kind != crm.Accepted {
		t.Errorf("outcome %+v %v %v", o, ok, err)
	}
	if s := m.branch.Status(); s.Damage != "" || m.scrub() != 0 {
		t.Errorf("afterwards: %+v", s)
	}
}

// A damaged tombstone is dropped, whoever meets it.
func TestRepair_OfATombstone(t *testing.T) {
	for _, scrub := range []bool{true, false} {
		m := newMender(t, 10)
		r := m.someAccount()
		m.office(crm.Op{Kind: crm.OpDelete, Entity: r.Entity, Record: r.ID, Seen: crm.Token{Rev: m.fsm.Head()}})
		m.must(m.pass(time.Second))
		m.equal()
		m.tamper(func(tx *bolt.Tx) error {
			dead := tx.Bucket([]byte("dead"))
			key := append(binary.BigEndian.AppendUint16(nil, uint16(r.Entity)), r.ID[:]...)
			v := bytes.Clone(dead.Get(key))
			v[len(v)-1] ^= 1
			return dead.Put(key, v)
		})
		m.must(m.connect())
		m.forget()
		if scrub && m.scrub() != 1 {
			t.Error("the scrub found nothing")
		}
		if !scrub {
			_, err := m.branch.Read(t.Context(), crm.Demand{}, func(rd *store.Reader) error { _, err := rd.Record(r.Entity, r.ID); return err })
			if crm.CodeOf(err) != crm.CodeCorrupt {
				t.Errorf("read: %v", err)
			}
		}
		m.must(m.pass(time.Second))
		m.equal()
		if m.alarms() != 1 || m.count("↑repair") > 0 || m.branch.Status().Damage != "" {
			t.Errorf("%d alarms, %v, %+v", m.alarms(), m.world.log, m.branch.Status())
		}
	}
}

// A node with a damaged journal pushes what can be read in front of the damage,
// takes no more edits, and follows the masters.
func TestRepair_NotOfAJournal(t *testing.T) {
	m := newMender(t, 10)
	m.hangUp()
	first := m.commit(m.account("first"))
	second := m.commit(m.account("second"))
	m.commit(m.account("third"))
	m.must(m.branch.Close())
	db, err := bolt.Open(filepath.Join(m.dir, "journal.db"), 0o600, nil)
	m.must(err)
	m.must(db.Update(func(tx *bolt.Tx) error {
		key := binary.BigEndian.AppendUint64(nil, uint64(second))
		v := bytes.Clone(tx.Bucket([]byte("outbox")).Get(key))
		v[len(v)-1] ^= 1
		return tx.Bucket([]byte("outbox")).Put(key, v)
	}))
	m.must(db.Close())
	m.forget()
	m.open()
	for range 2 {
		m.must(m.connect())
		m.office(m.create(catalog.Account, accName, crm.TextValue("elsewhere"), accTerr, crm.TextValue("north")))
		m.must(m.pass(time.Minute))
		if s := m.branch.Status(); s.Cursor != m.fsm.Head() || s.Decided != first || !s.Connected || s.Damage == "" {
			t.Errorf("%+v, the master is at %d", s, m.fsm.Head())
		}
	}
	if o, ok, err := m.branch.Outcome(first); err != nil || !ok || o.Kind != crm.Accepted {
		t.Errorf("outcome of the first: %+v %v %v", o, ok, err)
	}
	_, err = m.branch.Commit(t.Context(), crm.Request{Actor: "bea", Intent: "test", Ops: []crm.Op{m.account("fourth")}})
	if crm.CodeOf(err) != crm.CodeCorrupt || !strings.Contains(err.Error(), "no more edits") {
		t.Errorf("commit: %v", err)
	}
	next, n, err := m.branch.ScrubJournal(t.Context(), nil, 1000)
	if next != nil || n != 1 || err != nil {
		t.Errorf("scrub: %d findings, %v", n, err)
	}
	if n := strings.Count(m.log.String(), "ALARM: the journal"); n != 1 {
		t.Errorf("%d alarms", n)
	}
}

// A master that speaks an older version is asked for the territory whole, in the
// next session.
func TestRepair_WithoutRepair(t *testing.T) {
	m := &mender{world: newWorld(t), dir: t.TempDir()}
	m.must(m.branch.Close())
	m.open()
	m.watch()
	for range 20 {
		m.office(m.create(catalog.Account, accName, crm.TextValue("account"), accTerr, crm.TextValue("north")))
	}
	m.must(m.connect())
	m.must(m.pass(time.Second))
	m.equal()
	m.forge(2)
	m.must(m.connect())
	m.must(m.pass(time.Second))
	m.forget()
	if m.scrub() == 0 {
		t.Fatal("the scrub found nothing")
	}
	if err := m.pass(time.Second); err == nil {
		t.Fatal("the session went on, which cannot ask")
	}
	m.must(m.connect())
	m.must(m.pass(time.Second))
	m.equal()
	if m.count("↑repair") > 0 || len(m.batches) == 0 || len(m.batches[0].Whole) != 1 || m.up.Version() != 1 || m.alarms() != 1 {
		t.Errorf("version %d, %v, %d alarms", m.up.Version(), m.world.log, m.alarms())
	}
	if m.scrub() != 0 {
		t.Error("damage is left")
	}
}

// serve has the world's master run from another file.
func (m *mender) serve(path string) {
	m.t.Helper()
	m.must(m.fsm.Close())
	var err error
	m.fsm, err = master.OpenFSM(master.FSMConfig{Path: path, Store: store.Options{NoSync: true}, Now: m.now})
	m.must(err)
	fsm := m.fsm
	m.t.Cleanup(func() { _ = fsm.Close() })
	m.srv = session.New(session.Config{Cluster: "c1", DB: fsm.DB(), Head: fsm.Head, Changed: fsm.Changed,
		Leader: func() (crm.NodeID, bool) { return 1, true }, Reported: func(crm.NodeID, crm.Rev, crm.Rev, int64) {},
		Now: m.now, Jitter: func(bound time.Duration) time.Duration { return bound / 2 }})
}

// A master that is wrong itself: a record of its file is not what it decided, and
// shows when the record changes. The branches that disagree with it keep what they
// have, say so, still push, and go on with a master that is right. Which master is
// wrong the masters' accumulators tell: theirs differ from then on.
func TestRepair_OfAWrongMaster(t *testing.T) {
	m := newMender(t, 40)
	r := m.someAccount()
	m.hangUp()
	wrong, right := m.fsm.DB().Path(), filepath.Join(t.TempDir(), "right.db")
	m.masters(func(tx *store.Tx) error {
		f, err := os.Create(right)
		if err != nil {
			return err
		}
		_, err = tx.WriteTo(f)
		return errors.Join(err, f.Close())
	})
	index, seq, chain := m.index, m.seq, m.chain
	m.serve(right)
	db, err := bolt.Open(wrong, 0o600, nil)
	m.must(err)
	m.must(db.Update(func(tx *bolt.Tx) error {
		w := r.Clone()
		w.Cell(accName).Value = crm.TextValue("not what was decided")
		return live(tx, w.Entity).Put(w.ID[:], sealed(w))
	}))
	m.must(db.Close())
	edit := crm.Op{Kind: crm.OpPatch, Entity: r.Entity, Record: r.ID, Seen: crm.Token{Rev: r.Stamp.Rev}, Cells: []crm.Input{{Field: accDescription, Value: crm.TextValue("news")}}}

	sound, err := m.fsm.Accumulator()
	m.must(err)
	m.office(edit)
	after, err := m.fsm.Accumulator()
	m.must(err)
	m.index, m.seq, m.chain = index, seq, chain
	m.serve(wrong)
	if sum, err := m.fsm.Accumulator(); err != nil || sum != sound {
		t.Error("the masters differ before anything is decided")
	}
	m.office(edit)
	if sum, err := m.fsm.Accumulator(); err != nil || sum == after {
		t.Error("the masters' accumulators do not tell which is wrong")
	}

	other := m.copied()
	for _, b := range []*mender{m, other} {
		cursor := b.branch.Status().Cursor
		b.forget()
		for n := range 3 {
			b.must(b.connect())
			err := b.pass(time.Second)
			if crm.CodeOf(err) != replica.CodeDiverged {
				t.Fatalf("session %d: %v", n, err)
			}
		}
		s := b.branch.Status()
		if s.Cursor != cursor || !s.Stuck || len(s.Suspect) != 1 {
			t.Errorf("%+v", s)
		}
		if n := b.alarms(); n != 2 {
			t.Errorf("%d alarms, want that it differs and that repairs do not cure it:\n%s", n, b.log.String())
		}
		if n := b.count("↑repair"); n > 6+2*2 {
			t.Errorf("%d repairs in three sessions", n)
		}
		if found, err := b.branch.Check(t.Context()); err != nil || len(found) > 0 {
			t.Errorf("check: %v %v", found, err)
		}
	}
	m.serve(right)
	m.forget()
	m.must(m.connect())
	m.must(m.pass(time.Second))
	m.equal()
	if m.branch.Status().Stuck || m.alarms() > 0 {
		t.Errorf("%+v\n%s", m.branch.Status(), m.log.String())
	}
}

// A check of a running branch names the bucket, and has it fetched again.
func TestRepair_OfWhatACheckFound(t *testing.T) {
	m := newMender(t, 50)
	r := m.someAccount()
	m.forge(1)
	found, err := m.branch.Check(t.Context())
	m.must(err)
	if len(found) == 0 {
		t.Fatal("the check found nothing")
	}
	for _, f := range found {
		if f.File == "base" && f.Territory == r.Territory && f.DigestBucket == r.ID[15] {
			continue
		}
		if f.Territory != 0 { // rows of indexes are not of a bucket
			t.Errorf("found %+v", f)
		}
	}
	m.must(m.connect())
	m.must(m.pass(time.Second))
	m.equal()
	if n := m.counter("tradepost_state_repaired_records_total"); n != 1 {
		t.Errorf("%v records repaired", n)
	}
}

// Damage of every kind, edits on both sides, cuts and restarts in any order: in the
// end the branch is the master's equal, and nothing is lost.
func TestRepair_InAnyOrder(t *testing.T) {
	repairs := 0
	for seed := range byte(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			m := newMender(t, 60)
			m.rand = rand.NewChaCha8([32]byte{seed, 1})
			pick := rand.New(rand.NewChaCha8([32]byte{seed, 2}))
			var mine []crm.Seq
			for range 25 {
				switch pick.IntN(8) {
				case 0, 1:
					m.office(withCell(m.create(catalog.Account, accName, crm.TextValue("office"), accTerr, crm.TextValue("north")), bulky))
				case 2:
					r := m.anAccount(pick)
					m.office(crm.Op{Kind: crm.OpPatch, Entity: r.Entity, Record: r.ID, Seen: crm.Token{Rev: m.fsm.Head()}, Cells: []crm.Input{{Field: accName, Value: crm.TextValue("renamed")}}})
				case 3:
					mine = append(mine, m.commit(m.account("branch")))
				case 4:
					m.scrub()
				case 5:
					m.hangUp()
				default:
					m.rot(pick)
				}
				if m.up == nil && pick.IntN(2) == 0 {
					m.must(m.connect())
				}
				if m.up != nil {
					if err := m.pass(time.Duration(pick.IntN(1000)) * time.Millisecond); err != nil {
						m.hangUp()
					}
				}
			}
			m.scrub()
			m.must(m.connect())
			m.must(m.pass(time.Minute))
			if n := m.scrub(); n > 0 {
				t.Errorf("%d findings are left", n)
			}
			m.equal()
			for _, seq := range mine {
				if o, ok, err := m.branch.Outcome(seq); err != nil || !ok || o.Kind != crm.Accepted {
					t.Errorf("edit %d: %+v %v %v", seq, o, ok, err)
				}
			}
			repairs += strings.Count(m.log.String(), "is the masters' again")
		})
	}
	if t.Logf("%d repairs", repairs); repairs < 6 {
		t.Errorf("only %d repairs", repairs)
	}
}

func (m *mender) anAccount(pick *rand.Rand) *crm.Record {
	var list []*crm.Record
	m.masters(func(tx *store.Tx) error {
		for r, err := range tx.Scan(catalog.Account) {
			if err != nil {
				return err
			}
			list = append(list, r.Clone())
		}
		return nil
	})
	return list[pick.IntN(len(list))]
}

// rot damages some records and digests of the branch.
func (m *mender) rot(pick *rand.Rand) {
	m.tamper(func(tx *bolt.Tx) error {
		for range 1 + pick.IntN(4) {
			r := m.anAccount(pick)
			v := bytes.Clone(live(tx, r.Entity).Get(r.ID[:]))
			if v == nil {
				continue // not here yet
			}
			var err error
			switch pick.IntN(4) {
			case 0:
				v[pick.IntN(len(v))] ^= 1 << pick.IntN(8)
				err = live(tx, r.Entity).Put(r.ID[:], v)
			case 1:
				if r, err = crm.DecodeRecord(r.Entity, r.ID, v[4:]); err == nil {
					r.Stamp.Actor += "!"
					err = live(tx, r.Entity).Put(r.ID[:], sealed(r))
				} else {
					err = nil // rotten already
				}
			case 2:
				err = live(tx, r.Entity).Delete(r.ID[:])
			case 3:
				err = tx.Bucket([]byte("digest")).Put(append(binary.BigEndian.AppendUint32(nil, uint32(r.Territory)), r.ID[15]), bytes.Repeat([]byte{byte(pick.IntN(256))}, 40))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Reports follow a repair, though nobody edited what it changed.
func TestRepair_ReportsFollow(t *testing.T) {
	m := newMender(t, 50)
	r := m.someAccount()
	m.tamper(func(tx *bolt.Tx) error {
		w := r.Clone()
		w.Cell(accName).Value = crm.TextValue("forged")
		return live(tx, w.Entity).Put(w.ID[:], sealed(w))
	})
	columns := store.NewColumns(0)
	forged := func() (n int) {
		_, err := m.branch.Read(t.Context(), crm.Demand{}, func(rd *store.Reader) error {
			def, err := report.Parse(rd.Schema(), rd.Schema().Entity("account"), "name", "count", "", "", 0)
			if err != nil {
				return err
			}
			res, err := columns.Run(t.Context(), rd, def)
			if err != nil {
				return err
			}
			for _, row := range res.Rows {
				if row[0].String() == "forged" {
					n++
				}
			}
			return nil
		})
		m.must(err)
		return n
	}
	if forged() != 1 {
		t.Fatal("the report does not show what was forged")
	}
	m.scrub()
	m.must(m.connect())
	m.must(m.pass(time.Second))
	m.equal()
	if forged() != 0 {
		t.Error("the report shows what the repair has taken away")
	}
}
