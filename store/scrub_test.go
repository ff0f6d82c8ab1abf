package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/tradepost-crm/tradepost/crm"
)

// scrubbed runs a round of Scrub in steps of a budget and returns what it found
// and how many steps it took.
func scrubbed(t testing.TB, f *file, budget int) (all []Finding, steps int) {
	t.Helper()
	var from []byte
	for {
		next, findings, err := f.Scrub(t.Context(), from, budget)
		if err != nil {
			t.Fatalf("Scrub from %x: %v", from, err)
		}
		steps, all = steps+1, append(all, findings...)
		if next == nil {
			return all, steps
		}
		if slices.Equal(next, from) {
			t.Fatalf("Scrub stands still at %x", from)
		}
		from = next
	}
}

// tradingBase holds records, tombstones and markers of three territories, and one
// of everything that stands beside them.
func tradingBase(t *testing.T) *DB {
	db := openCatalog(t)
	rnd := rand.New(rand.NewPCG(1, 7))
	for rev := crm.Rev(2); rev < 300; rev++ {
		put(t, db, randomRecord(rnd, rev, 100))
	}
	update(t, db, func(tx *Tx) error {
		return errors.Join(tx.SetRev(300), tx.SetMeta("applied", []byte{1}), tx.SetRefused(recordID(8), recordID(9)), tx.SetNode(NodeState{Node: 3}),
			tx.PutOutcome(crm.Outcome{Node: 3, Seq: 8, Rev: 6, Kind: crm.Parked, Code: crm.CodeTransition}), tx.Stage([]byte{1}, []byte("staged")))
	})
	return db
}

func tradingJournal(t *testing.T, db *DB) *Journal {
	j := openJournal(t)
	view(t, db, func(tx *Tx) error {
		updateJournal(t, j, goldenJournal(tx.Schema()))
		return nil
	})
	return j
}

// TestScrubOfSoundFiles finds nothing, whatever the budget, holds no transaction
// between steps and takes the more steps the smaller they are.
func TestScrubOfSoundFiles(t *testing.T) {
	db := tradingBase(t)
	j := tradingJournal(t, db)
	for _, f := range []*file{db.file, j.file} {
		last := 0
		for _, budget := range []int{1 << 20, 100, 7, 1, 0} {
			findings, steps := scrubbed(t, f, budget)
			if len(findings) > 0 {
				t.Errorf("budget %d: %v", budget, findings)
			}
			if steps < last || budget == 1 && steps < 10 {
				t.Errorf("%s: %d steps with a budget of %d, %d with a larger one", f.kind, steps, budget, last)
			}
			last = steps
			if n := f.Stats().OpenReads; n != 0 {
				t.Errorf("%d transactions are open after a round", n)
			}
		}
	}
}

// TestScrubWhileWritten changes and compacts the file between the steps of a
// round: damage must not be seen where there is none.
func TestScrubWhileWritten(t *testing.T) {
	db, m := tradingBase(t), newModel()
	m.rev = 300
	rnd := rand.New(rand.NewPCG(1, 8))
	var from []byte
	for range 400 {
		next, findings, err := db.Scrub(t.Context(), from, 1+rnd.IntN(40))
		if err != nil || len(findings) > 0 {
			t.Fatalf("Scrub from %x: %v, %v", from, findings, err)
		}
		from = next
		m.rev++
		put(t, db, randomRecord(rnd, m.rev, 100))
		if rnd.IntN(50) == 0 {
			if err := db.Compact(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// values lists the keys of all values of a file that carry a checksum.
func values(t *testing.T, f *file) (out []stray) {
	t.Helper()
	tx, err := f.begin(false)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	for _, r := range rules[f.kind] {
		if !r.sealed {
			continue
		}
		top := tx.bolt.Bucket(r.bucket.top())
		at := func(b *bolt.Bucket, nested []byte) {
			_ = b.ForEach(func(k, v []byte) error {
				if v != nil {
					out = append(out, stray{r.bucket, nested, slices.Clone(k)})
				}
				return nil
			})
		}
		at(top, nil)
		_ = top.ForEachBucket(func(name []byte) error { at(top.Bucket(name), slices.Clone(name)); return nil })
	}
	return out
}

// A stray is a value that goes bad.
type stray struct {
	bucket      bucket
	nested, key []byte
}

// flip flips the last bit of the value, or back.
func (s stray) flip(t *testing.T, f *file) {
	t.Helper()
	tx, err := f.begin(true)
	if err != nil {
		t.Fatal(err)
	}
	b := tx.bolt.Bucket(s.bucket.top())
	if s.nested != nil {
		b = b.Bucket(s.nested)
	}
	v := slices.Clone(b.Get(s.key))
	v[len(v)-1] ^= 1
	if err := errors.Join(b.Put(s.key, v), tx.commit()); err != nil {
		t.Fatal(err)
	}
}

// TestScrubFindsEachValue spoils each value that has a checksum in turn, and the
// finding says which, and for a live record where it belongs.
func TestScrubFindsEachValue(t *testing.T) {
	db := tradingBase(t)
	j := tradingJournal(t, db)
	for _, f := range []*file{db.file, j.file} {
		all := values(t, f)
		seen := map[string]int{}
		for _, s := range all {
			if name := s.bucket.name; seen[name] > 5 {
				continue
			}
			seen[s.bucket.name]++
			s.flip(t, f)
			findings, _ := scrubbed(t, f, 50)
			s.flip(t, f)
			if !slices.ContainsFunc(findings, func(found Finding) bool { return s.isIn(t, db, found) }) {
				t.Errorf("%s %x: findings %v", s.bucket.name, s.key, findings)
			}
			if more := len(findings); more > 1 && (s.bucket != bucketLive || more > 2) {
				t.Errorf("%s %x: too many findings: %v", s.bucket.name, s.key, findings)
			}
		}
		for _, r := range rules[f.kind] {
			if r.sealed && seen[r.bucket.name] == 0 {
				t.Errorf("the fixture has no %s", r.bucket.name)
			}
		}
	}
}

// isIn reports whether the finding is about the value, in full.
func (s stray) isIn(t *testing.T, db *DB, f Finding) bool {
	if f.Bucket != string(s.bucket.top()) || f.Item == "" || f.Detail == "" {
		return false
	}
	switch s.bucket {
	case bucketLive:
		k := recordKeyAt(slices.Concat(s.nested, s.key))
		view(t, db, func(tx *Tx) error {
			r, err := tx.Record(k.Entity, k.ID)
			if err != nil || f.Territory != r.Territory || f.DigestBucket != tx.BucketOf(k.ID) {
				t.Errorf("%s of territory %d: finding %+v, %v", k, r.Territory, f, err)
			}
			return nil
		})
		return f.Record == k
	case bucketDead, bucketOverlay:
		return f.Record == recordKeyAt(s.key) && f.Territory == 0
	}
	return f.Record == RecordKey{} && f.Territory == 0
}

// TestScrubComparesDigests takes away what ties a digest to its records.
func TestScrubComparesDigests(t *testing.T) {
	a := account(1, 16, 2, "Häusler")
	k := RecordKey{a.Entity, a.ID}
	at := sumKey{16, k.digestBucket()}
	for name, damage := range map[string]func(*Tx) error{
		"sum":       func(tx *Tx) error { return tx.put(bucketDigest, at.bytes(), Bucket{Count: 1}.Append(nil)) },
		"no sum":    func(tx *Tx) error { return tx.delete(bucketDigest, at.bytes()) },
		"short sum": func(tx *Tx) error { return tx.put(bucketDigest, at.bytes(), []byte("short")) },
		"no record": func(tx *Tx) error { return tx.liveBucket(k.Entity).Delete(k.ID[:]) },
		"no row":    func(tx *Tx) error { return tx.delete(bucketFeed, feedKey(16, 2, k)) },
		"two rows":  func(tx *Tx) error { return tx.put(bucketFeed, feedKey(16, 1, k), nil) },
		"other record": func(tx *Tx) error {
			other := account(1, 16, 2, "Mayer")
			return tx.liveBucket(k.Entity).Put(k.ID[:], closeSeal(k.bytes(), crm.AppendRecord(make([]byte, sealSize), other)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			db := openCatalog(t)
			put(t, db, a, deal(2, a, 2, "D", 1), account(3, 17, 2, "Other"))
			update(t, db, damage)
			for _, budget := range []int{1, 1000} {
				findings, _ := scrubbed(t, db.file, budget)
				if !slices.ContainsFunc(findings, func(f Finding) bool { return f.Territory == 16 && f.DigestBucket == at.bucket }) {
					t.Errorf("findings: %v", findings)
				}
				if slices.ContainsFunc(findings, func(f Finding) bool { return f.Territory == 17 || f.Territory == 16 && f.DigestBucket != at.bucket }) {
					t.Errorf("findings elsewhere: %v", findings)
				}
			}
		})
	}
}

// TestScrubOfDamagedPages spoils bits in pages of an open file, as a failing disk
// does. A round ends, and if it finds nothing all records and feeds are what
// they were.
func TestScrubOfDamagedPages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "base.db")
	db := tradingBase(t)
	if err := db.Compact(); err != nil {
		t.Fatal(err)
	}
	want := records(t, db)
	copyFile(t, db.Path(), path)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	rnd := rand.New(rand.NewPCG(1, 9))
	found, pages, used := 0, 0, usedBytes(t, path)
	for range 300 {
		db := openBaseAt(t, path)
		w, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		at := 2*page + rnd.Int64N(used-2*page)
		if rnd.IntN(2) == 0 { // the head of a page, where its structure is
			at = at/page*page + rnd.Int64N(64)
		}
		if _, err := w.WriteAt([]byte{good[at] ^ 1<<rnd.IntN(8)}, at); err != nil {
			t.Fatal(err)
		}
		w.Close()
		findings, _ := scrubbed(t, db.file, 500)
		if len(findings) > 0 {
			found++
		} else if got := records(t, db); got != want {
			t.Errorf("a flip at %d went unnoticed", at)
		}
		if slices.ContainsFunc(findings, func(f Finding) bool { return f.Bucket == "page" }) {
			pages++
		}
		db.Close()
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if found < 100 || pages < 50 {
		t.Errorf("of 300 flips %d were found, %d in pages", found, pages)
	}
}

// records returns all records and tombstones, and the feeds of the live ones.
func records(t *testing.T, db *DB) string {
	t.Helper()
	var b strings.Builder
	view(t, db, func(tx *Tx) error {
		for _, e := range tx.entities() {
			for r, err := range tx.every(e) {
				if err != nil {
					return err
				}
				fmt.Fprintf(&b, "%d %s %x\n", e, r.ID, crm.AppendRecord(nil, r))
			}
		}
		for territory := range tx.Territories() {
			for k, err := range tx.feedRecords(territory) {
				if err != nil {
					return err
				}
				fmt.Fprintln(&b, territory, k)
			}
		}
		return nil
	})
	return b.String()
}

// TestScrubGoesOnBehindDamage spoils a whole page among many: what is not on it
// is looked at all the same.
func TestScrubGoesOnBehindDamage(t *testing.T) {
	db := openCatalog(t)
	var all []*crm.Record
	for n := range 2000 {
		all = append(all, account(n, 16, 2, fmt.Sprintf("Account %d", n)))
	}
	put(t, db, all...)
	last := RecordKey{entityAccount, recordID(1999)}
	update(t, db, func(tx *Tx) error { return tx.liveBucket(last.Entity).Put(last.ID[:], []byte("damaged")) })
	leaf := leafOf(t, db, RecordKey{entityAccount, recordID(1000)})
	w, err := os.OpenFile(db.Path(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteAt(make([]byte, page), leaf); err != nil {
		t.Fatal(err)
	}
	for _, budget := range []int{10, 1 << 20} {
		findings, _ := scrubbed(t, db.file, budget)
		inPage := slices.IndexFunc(findings, func(f Finding) bool { return f.Bucket == "page" })
		behind := slices.IndexFunc(findings, func(f Finding) bool { return f.Bucket == "live" && f.Record == last })
		if inPage < 0 || behind < inPage {
			t.Errorf("findings: %v", findings)
		}
	}
	if err := db.Update(func(tx *Tx) error { return tx.Put(account(1999, 16, 3, "Mended")) }); crm.CodeOf(err) != crm.CodeCorrupt {
		t.Errorf("Put over a damaged record in a file with a damaged page: %v", err)
	}
}

// leafOf returns where in the file the page with the record is.
func leafOf(t *testing.T, db *DB, k RecordKey) (at int64) {
	t.Helper()
	b, err := os.ReadFile(db.Path())
	if err != nil {
		t.Fatal(err)
	}
	view(t, db, func(tx *Tx) error {
		v := tx.liveValue(k)
		for at = page; at+page <= int64(len(b)); at += page {
			leaf := native.Uint16(b[at+8:]) == flagLeaf && native.Uint64(b[at:]) == uint64(at/page)
			if leaf && slices.Contains(chunks(b[at:at+page], len(v)), string(v)) && reachable(tx, uint64(at/page)) {
				return nil
			}
		}
		t.Fatalf("%s is on no page", k)
		return nil
	})
	return at
}

// chunks returns all substrings of a size.
func chunks(b []byte, size int) (out []string) {
	for i := 0; i+size <= len(b); i++ {
		out = append(out, string(b[i:i+size]))
	}
	return out
}

// reachable reports whether the page is part of the snapshot.
func reachable(tx *Tx, id uint64) bool {
	f, w, err := tx.walk()
	if err != nil {
		return false
	}
	defer f.Close()
	return w.run() == nil && w.seen[id/64]&(1<<(id%64)) != 0
}

func TestScrubEndsWithItsContext(t *testing.T) {
	db := tradingBase(t)
	ctx, cancel := context.WithCancel(t.Context())
	from, _, err := db.Scrub(ctx, nil, 10)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if next, _, err := db.Scrub(ctx, from, 10); !errors.Is(err, context.Canceled) || !slices.Equal(next, from) {
		t.Errorf("Scrub = %x, %v, want %x", next, err, from)
	}
	db.Close()
	if next, _, err := db.Scrub(t.Context(), from, 10); crm.CodeOf(err) != crm.CodeUnavailable || !slices.Equal(next, from) {
		t.Errorf("Scrub of a closed file = %x, %v", next, err)
	}
}

// FuzzPosition feeds Scrub positions that it never gave out.
func FuzzPosition(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte{scrubEntries, 0, 4, 'l', 'i', 'v', 'e', 0, 2, 0, 16})
	f.Add([]byte{scrubDigests, 0, 0, 0, 16, 7})
	f.Fuzz(func(t *testing.T, b []byte) {
		p := parsePosition(b)
		again := parsePosition(p.append(nil))
		if again.phase != p.phase || again.sum != p.sum || !slices.EqualFunc(again.path, p.path, slices.Equal) {
			t.Errorf("%x is %+v, again %+v", b, p, again)
		}
	})
}
