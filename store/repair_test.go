package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/query"
)

func checked(t *testing.T, db *DB) (out []Finding) {
	t.Helper()
	view(t, db, func(tx *Tx) (err error) { out, err = tx.Check(t.Context()); return err })
	return out
}

// spoil flips a bit of the stored record.
func spoil(t *testing.T, db *DB, r *crm.Record) {
	t.Helper()
	if r.Deleted {
		stray{bucketDead, nil, RecordKey{r.Entity, r.ID}.bytes()}.flip(t, db.file)
		return
	}
	stray{bucketLive, entityKey(r.Entity), r.ID[:]}.flip(t, db.file)
}

func digestOf(t *testing.T, db *DB, territory crm.TerritoryID) (d Digest) {
	t.Helper()
	view(t, db, func(tx *Tx) (err error) { d, err = tx.Digest(territory); return err })
	return d
}

// TestPutAndDropOverDamage replaces and drops a record that cannot be read, live
// or deleted, by each kind of successor: nothing of it stays, and it is counted.
func TestPutAndDropOverDamage(t *testing.T) {
	a := account(1, 16, 2, "Häusler")
	live := deal(4, a, 3, "Lost", -150)
	dead := live.Clone()
	dead.Deleted = true
	moved := deal(4, account(2, 17, 2, "Other"), 4, "Found", 20)
	gone := moved.Clone()
	gone.Deleted = true
	for _, old := range []*crm.Record{live, dead} {
		for name, next := range map[string]*crm.Record{"same": live, "moved": moved, "moved and deleted": gone, "dropped": nil} {
			t.Run(fmt.Sprintf("deleted %v %s", old.Deleted, name), func(t *testing.T) {
				db, want := openCatalog(t), openCatalog(t)
				put(t, db, a, deal(5, a, 3, "Beside", 1), old)
				put(t, want, a, deal(5, a, 3, "Beside", 1), old)
				spoil(t, db, old)
				change := func(tx *Tx) error {
					if next != nil {
						return tx.Put(next)
					}
					ok, err := tx.Drop(old.Entity, old.ID)
					if !ok {
						t.Error("Drop says that there was none")
					}
					return err
				}
				update(t, db, change)
				update(t, want, change)
				checkBase(t, db)
				if got, want := rawDump(t, db.file), rawDump(t, want.file); got != want {
					t.Errorf("over a damaged record:\n%s\nwant\n%s", got, want)
				}
				if n := db.Stats().Lost; n != 1 {
					t.Errorf("%d records are counted as lost", n)
				}
			})
		}
	}
}

// TestReadsNameTheDamagedRecord meets one damaged record on every way of reading:
// the error says which it is, so that nothing else need be fetched again.
func TestReadsNameTheDamagedRecord(t *testing.T) {
	db := openCatalog(t)
	a := someDeals(t, db, 10)
	spoil(t, db, deal(105, a, 2, "Deal 5", 5))
	e := schemaOf(t, db).EntityByID(entityDeal)
	reads := map[string]func(*Reader) error{
		"record": func(r *Reader) error { _, err := r.Record(entityDeal, recordID(105)); return err },
		"scan": func(r *Reader) error {
			for _, err := range r.Scan(e) {
				if err != nil {
					return err
				}
			}
			return nil
		},
		"report": func(r *Reader) error {
			def, err := parseReport(r.Schema(), 0)
			if err != nil {
				return err
			}
			_, err = NewColumns(0).Run(t.Context(), r, def)
			return err
		},
	}
	for _, f := range e.Fields {
		if f.ID >= crm.FirstField && f.Kind != crm.Choices {
			reads["list by "+f.Name] = func(r *Reader) error {
				_, err := r.List(query.List{Entity: e, Sort: []query.Key{{Field: f}}, Limit: 100})
				return err
			}
		}
	}
	for name, read := range reads {
		err := db.View(func(tx *Tx) error {
			r, err := NewReader(tx, nil)
			if err != nil {
				return err
			}
			return read(r)
		})
		d, ok := errors.AsType[*Damage](err)
		if !ok || d.Record != (RecordKey{entityDeal, recordID(105)}) || crm.CodeOf(err) != crm.CodeCorrupt {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPutOverTwoDamaged mends two records of one digest bucket, one after the other.
func TestPutOverTwoDamaged(t *testing.T) {
	db := openCatalog(t)
	a, b := account(1, 16, 2, "A"), account(257, 16, 3, "B")
	if a.ID[15] != b.ID[15] {
		t.Fatal("the fixture's records are not of one bucket")
	}
	put(t, db, a, b)
	want := digestOf(t, db, 16)
	spoil(t, db, a)
	spoil(t, db, b)
	put(t, db, a)
	if len(checked(t, db)) == 0 {
		t.Error("the other record cannot be read, and nothing is found")
	}
	put(t, db, b)
	checkBase(t, db)
	if digestOf(t, db, 16) != want {
		t.Error("another digest")
	}
}

func TestOverlayOverDamage(t *testing.T) {
	db := openCatalog(t)
	j := tradingJournal(t, db)
	k := RecordKey{entityAccount, recordID(1)}
	view(t, db, func(tx *Tx) error {
		for _, change := range []func(*JTx) error{
			func(j *JTx) error { return j.PutOverlay(tx.Schema(), account(1, 16, crm.Pending, "Mayer")) },
			func(j *JTx) error { return j.DropOverlay(tx.Schema(), k.Entity, k.ID) },
		} {
			stray{bucketOverlay, nil, k.bytes()}.flip(t, j.file)
			updateJournal(t, j, change)
			checkJournal(t, db, j)
		}
		return nil
	})
	if n := j.Stats().Lost; n != 2 {
		t.Errorf("%d records are counted as lost", n)
	}
}

// liveRecords returns all live records of a file.
func liveRecords(t *testing.T, db *DB) map[RecordKey]*crm.Record {
	t.Helper()
	out := map[RecordKey]*crm.Record{}
	view(t, db, func(tx *Tx) error {
		for _, e := range tx.entities() {
			for r, err := range tx.Scan(e) {
				if err != nil {
					return err
				}
				out[RecordKey{r.Entity, r.ID}] = r.Clone()
			}
		}
		return nil
	})
	return out
}

func TestBucketRecords(t *testing.T) {
	db := tradingBase(t)
	want := map[sumKey][]RecordKey{}
	for k, r := range liveRecords(t, db) {
		at := sumKey{r.Territory, r.ID[15]}
		want[at] = append(want[at], k)
	}
	view(t, db, func(tx *Tx) error {
		for territory := range tx.Territories() {
			for b := range DigestBuckets {
				var got []RecordKey
				for k, err := range tx.BucketRecords(territory, byte(b)) {
					if err != nil {
						return err
					}
					if tx.BucketOf(k.ID) != byte(b) {
						t.Errorf("%s is not in bucket %d", k, b)
					}
					got = append(got, k)
				}
				byKey := cmpopts.SortSlices(func(a, b RecordKey) bool { return string(a.bytes()) < string(b.bytes()) })
				if diff := cmp.Diff(want[sumKey{territory, byte(b)}], got, byKey, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("territory %d bucket %d:\n%s", territory, b, diff)
				}
			}
		}
		return nil
	})
}

// TestRepairByBuckets damages files in all ways that a bucket of records mends,
// several at once, and then does what the findings of a scrub say: drop the
// bucket and put its records as somebody else has them. The file is then what it
// was.
func TestRepairByBuckets(t *testing.T) {
	damage := map[string]func(t *testing.T, db *DB, r *crm.Record){
		"value": func(t *testing.T, db *DB, r *crm.Record) { spoil(t, db, r) },
		"cut value": func(t *testing.T, db *DB, r *crm.Record) {
			raw(t, db, func(tx *Tx) error { return tx.liveBucket(r.Entity).Put(r.ID[:], []byte{1}) })
		},
		"lost record": func(t *testing.T, db *DB, r *crm.Record) {
			raw(t, db, func(tx *Tx) error { return tx.liveBucket(r.Entity).Delete(r.ID[:]) })
		},
		"lost row": func(t *testing.T, db *DB, r *crm.Record) {
			raw(t, db, func(tx *Tx) error {
				return tx.delete(bucketFeed, feedKey(r.Territory, r.Stamp.Rev, RecordKey{r.Entity, r.ID}))
			})
		},
		"extra row": func(t *testing.T, db *DB, r *crm.Record) {
			raw(t, db, func(tx *Tx) error {
				return tx.put(bucketFeed, feedKey(r.Territory, 1, RecordKey{r.Entity, r.ID}), nil)
			})
		},
		"sum": func(t *testing.T, db *DB, r *crm.Record) {
			raw(t, db, func(tx *Tx) error {
				return tx.put(bucketDigest, sumKey{r.Territory, r.ID[15]}.bytes(), Bucket{Count: 9}.Append(nil))
			})
		},
		"lost sum": func(t *testing.T, db *DB, r *crm.Record) {
			raw(t, db, func(tx *Tx) error {
				return tx.put(bucketDigest, sumKey{r.Territory, r.ID[15]}.bytes(), []byte("short"))
			})
		},
		"lost index rows": func(t *testing.T, db *DB, r *crm.Record) { // which only Check tells
			raw(t, db, func(tx *Tx) error {
				return tx.rows.deleteLost(map[RecordKey]bool{{r.Entity, r.ID}: true})
			})
		},
		"lost record and count": func(t *testing.T, db *DB, r *crm.Record) {
			raw(t, db, func(tx *Tx) error {
				return errors.Join(tx.liveBucket(r.Entity).Delete(r.ID[:]), tx.put(bucketCount, entityKey(r.Entity), []byte("short")))
			})
		},
		"other content": func(t *testing.T, db *DB, r *crm.Record) {
			raw(t, db, func(tx *Tx) error {
				other, key := r.Clone(), RecordKey{r.Entity, r.ID}.bytes()
				other.Cells[0].Value = crm.TextValue("Somebody else")
				if r.Entity == entityDeal {
					other.Cells[1].Value = crm.TextValue("Something else")
					other.Cells[0].Value = r.Cells[0].Value
				}
				return tx.liveBucket(r.Entity).Put(r.ID[:], closeSeal(key, crm.AppendRecord(make([]byte, sealSize), other)))
			})
		},
	}
	for name, spoil := range damage {
		t.Run(name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, 11))
			db := tradingBase(t)
			good, want := liveRecords(t, db), rawDump(t, db.file)
			var keys []RecordKey
			for k := range good {
				if k.Entity >= 16 {
					keys = append(keys, k)
				}
			}
			slices.SortFunc(keys, func(a, b RecordKey) int { return slices.Compare(a.bytes(), b.bytes()) })
			for range 5 {
				i := rnd.IntN(len(keys))
				spoil(t, db, good[keys[i]])
				keys = slices.Delete(keys, i, i+1)
			}
			if len(checked(t, db)) == 0 {
				t.Fatal("nothing is damaged")
			}
			findings, _ := scrubbed(t, db.file, 100)
			if name == "lost index rows" {
				findings = checked(t, db)
			}
			mend(t, db, findings, good)
			checkBase(t, db)
			if got := rawDump(t, db.file); got != want {
				t.Error(cmp.Diff(want, got))
			}
		})
	}
}

// raw changes buckets of a file behind the back of the digest and of all rows.
func raw(t *testing.T, db *DB, fn func(*Tx) error) {
	t.Helper()
	tx, err := db.Begin(true)
	if err == nil {
		err = errors.Join(fn(tx), tx.rows.flush(), tx.commit())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// mend drops the buckets that the findings name and puts the good records.
func mend(t *testing.T, db *DB, findings []Finding, good map[RecordKey]*crm.Record) {
	t.Helper()
	done := map[sumKey]bool{}
	for _, f := range findings {
		at := sumKey{f.Territory, f.DigestBucket}
		if f.Territory == 0 || done[at] {
			continue
		}
		done[at] = true
		update(t, db, func(tx *Tx) error {
			if _, err := tx.DropBucket(at.territory, at.bucket); err != nil {
				return err
			}
			for _, err := range tx.BucketRecords(at.territory, at.bucket) {
				t.Errorf("%s is not empty: %v", at, err)
			}
			for k, r := range good {
				if (sumKey{r.Territory, k.digestBucket()}) == at {
					if err := tx.Put(r); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	if len(done) == 0 {
		t.Errorf("the findings name no bucket: %v", findings)
	}
}

// TestDropBucket drops buckets of a sound file and of one with damaged records:
// Check finds nothing, and the count is right.
func TestDropBucket(t *testing.T) {
	for _, damaged := range []bool{false, true} {
		db := tradingBase(t)
		good := liveRecords(t, db)
		for k, r := range good {
			if damaged && k.Entity >= 16 {
				spoil(t, db, r)
			}
		}
		want := map[sumKey]int{}
		for k, r := range good {
			want[sumKey{r.Territory, k.digestBucket()}]++
		}
		for at, n := range want {
			if at.territory < 16 {
				continue
			}
			update(t, db, func(tx *Tx) error {
				got, err := tx.DropBucket(at.territory, at.bucket)
				if got != n {
					t.Errorf("DropBucket of %s = %d, want %d", at, got, n)
				}
				return err
			})
		}
		checkBase(t, db)
		if empty := DigestOf(new([DigestBuckets]Bucket)); digestOf(t, db, 16) != empty {
			t.Error("the digest is not that of no records")
		}
	}
}

// TestMendSchema replaces the records that define an entity, one of which cannot
// be read, in one transaction.
func TestMendSchema(t *testing.T) {
	db := tradingBase(t)
	good, want := liveRecords(t, db), records(t, db)
	var findings []Finding
	for k, r := range good {
		if k.Entity == crm.EntityField {
			spoil(t, db, r)
			findings, _ = scrubbed(t, db.file, 1000)
			break
		}
	}
	mend(t, db, findings, good)
	checkBase(t, db)
	if got := records(t, db); got != want {
		t.Error(cmp.Diff(want, got))
	}
}

func TestRecomputeDigests(t *testing.T) {
	db := tradingBase(t)
	want := rawDump(t, db.file)
	raw(t, db, func(tx *Tx) error {
		if err := tx.empty(bucketDigest); err != nil {
			return err
		}
		return errors.Join(tx.put(bucketDigest, sumKey{16, 3}.bytes(), Bucket{Count: 4}.Append(nil)), tx.put(bucketDigest, sumKey{17, 3}.bytes(), []byte("short")))
	})
	update(t, db, func(tx *Tx) error {
		for territory := range tx.Territories() {
			if err := tx.RecomputeDigests(territory); err != nil {
				return err
			}
		}
		return nil
	})
	checkBase(t, db)
	if got := rawDump(t, db.file); got != want {
		t.Error(cmp.Diff(want, got))
	}
	for k, r := range liveRecords(t, db) {
		if k.Entity == entityAccount {
			spoil(t, db, r)
			if err := db.Update(func(tx *Tx) error { return tx.RecomputeDigests(r.Territory) }); crm.CodeOf(err) != crm.CodeCorrupt {
				t.Errorf("RecomputeDigests over a damaged record: %v", err)
			}
			return
		}
	}
}
