package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tradepost-crm/tradepost/crm"
)

func entry(seq crm.Seq) Entry {
	return Entry{Seq: seq, At: 1000 + int64(seq), Chain: crm.ChainHash{0: byte(seq)}, Bytes: []byte(strings.Repeat("m", int(seq)))}
}

func seqs(t *testing.T, entries []Entry, err error) (out []crm.Seq) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Seq)
	}
	return out
}

// TestQueue walks an entry through the journal: outbox, tail, gone.
func TestQueue(t *testing.T) {
	db, j := openCatalog(t), openJournal(t)
	updateJournal(t, j, func(tx *JTx) error {
		if d, err := tx.Depth(); d != (Depth{}) || err != nil {
			t.Errorf("Depth of a new journal = %+v, %v", d, err)
		}
		for seq := crm.Seq(1); seq <= 5; seq++ {
			if err := tx.Append(entry(seq)); err != nil {
				return err
			}
		}
		return nil
	})
	if err := j.Update(func(tx *JTx) error { return tx.Append(entry(5)) }); err == nil {
		t.Error("a Seq was appended twice")
	}
	rolledBack := errors.New("rolled back")
	if err := j.Update(func(tx *JTx) error { return errors.Join(tx.Append(entry(6)), rolledBack) }); !errors.Is(err, rolledBack) {
		t.Errorf("Update = %v", err)
	}
	checkJournal(t, db, j)
	updateJournal(t, j, func(tx *JTx) error {
		if d, err := tx.Depth(); d != (Depth{5, 15, 1001}) || err != nil {
			t.Errorf("Depth = %+v, %v", d, err)
		}
		all, err := collect(tx.Outbox(2))
		if got := seqs(t, all, err); !slices.Equal(got, []crm.Seq{3, 4, 5}) {
			t.Errorf("Outbox(2) = %v", got)
		}
		for _, want := range []int{3, 0} { // a repeat moves nothing
			if n, err := tx.Settle(3, 70); n != want || err != nil {
				t.Errorf("Settle = %d, %v, want %d", n, err, want)
			}
		}
		n, err := tx.Settle(4, 90)
		if n != 1 || err != nil {
			t.Errorf("Settle(4) = %d, %v", n, err)
		}
		return nil
	})
	checkJournal(t, db, j)
	updateJournal(t, j, func(tx *JTx) error {
		if d, err := tx.Depth(); d != (Depth{1, 5, 1005}) || err != nil {
			t.Errorf("Depth = %+v, %v", d, err)
		}
		all, err := collect(tx.Tail(0))
		if got := seqs(t, all, err); !slices.Equal(got, []crm.Seq{1, 2, 3, 4}) || all[0].Rev != 70 || all[3].Rev != 90 {
			t.Errorf("Tail = %v", all)
		}
		for seq, want := range map[crm.Seq]Where{2: InTail, 5: InOutbox, 9: Nowhere} {
			e, where, err := tx.Entry(seq)
			if where != want || err != nil || where != Nowhere && (e.At != 1000+int64(seq) || e.Chain != entry(seq).Chain || len(e.Bytes) != int(seq)) {
				t.Errorf("Entry(%d) = %+v, %v, %v", seq, e, where, err)
			}
		}
		if n, err := tx.TrimTail(0, 70); n != 0 || err != nil {
			t.Errorf("TrimTail up to none = %d, %v", n, err)
		}
		if n, err := tx.TrimTail(maxSeq, 70); n != 3 || err != nil {
			t.Errorf("TrimTail = %d, %v", n, err)
		}
		if err := tx.DropTail(4); err != nil {
			return err
		}
		if n, err := tx.Settle(5, 95); n != 1 || err != nil {
			t.Errorf("Settle(5) = %d, %v", n, err)
		}
		_, err = tx.TrimTail(maxSeq, 1000)
		return err
	})
	if err := j.Compact(); err != nil {
		t.Fatal(err)
	}
	if err := j.View(func(tx *JTx) error {
		highest, err := tx.HighestSeq()
		if highest != 5 {
			t.Errorf("HighestSeq of an emptied journal = %d, %v", highest, err)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	checkJournal(t, db, j)
}

func TestIdentityAndSeries(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j, err := OpenJournal(path, Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	want := Identity{Cluster: "häusler", Site: "lisbon", Node: 7, Incarnation: 2, NextSeq: 42, Chain: crm.ChainHash{1, 2, 3}, HLC: 99, Timeline: 3}
	updateJournal(t, j, func(tx *JTx) error {
		if id, err := tx.Identity(); id != (Identity{}) || err != nil {
			t.Errorf("identity of a new journal = %+v, %v", id, err)
		}
		for n := int64(1); n <= 3; n++ {
			if got, err := tx.NextInSeries("INV"); got != n || err != nil {
				t.Errorf("NextInSeries = %d, %v, want %d", got, err, n)
			}
		}
		return errors.Join(tx.SetIdentity(want), tx.SetSeries("INV", 2), tx.SetSeries("ORD", 10), tx.SetMeta("a", []byte("b")))
	})
	_ = j.Update(func(tx *JTx) error { _, _ = tx.NextInSeries("INV"); return errors.New("given back") })
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if j, err = OpenJournal(path, Options{NoSync: true}); err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	updateJournal(t, j, func(tx *JTx) error {
		if id, err := tx.Identity(); id != want || err != nil {
			t.Errorf("Identity = %+v, %v", id, err)
		}
		for series, n := range map[string]int64{"INV": 4, "ORD": 11, "CASE": 1} {
			if got, err := tx.NextInSeries(series); got != n || err != nil {
				t.Errorf("NextInSeries(%s) = %d, %v, want %d", series, got, err, n)
			}
		}
		if v, err := tx.Meta("a"); string(v) != "b" || err != nil {
			t.Errorf("Meta = %q, %v", v, err)
		}
		if err := tx.SetMeta("a", nil); err != nil {
			return err
		}
		if v, err := tx.Meta("a"); v != nil || err != nil {
			t.Errorf("Meta after removal = %q, %v", v, err)
		}
		return nil
	})
}

func TestTouch(t *testing.T) {
	db, j := openCatalog(t), openJournal(t)
	a, b := RecordKey{entityAccount, recordID(1)}, RecordKey{entityDeal, recordID(2)}
	updateJournal(t, j, func(tx *JTx) error {
		return errors.Join(tx.Touch(a, 1), tx.Touch(b, 1), tx.Touch(a, 300), tx.Touch(a, 2), tx.Touch(a, 2))
	})
	checkJournal(t, db, j)
	updateJournal(t, j, func(tx *JTx) error {
		if got := pendingFor(t, tx, a, 0); !slices.Equal(got, []crm.Seq{1, 2, 300}) {
			t.Errorf("PendingFor = %v", got)
		}
		if got := pendingFor(t, tx, a, 2); !slices.Equal(got, []crm.Seq{300}) {
			t.Errorf("PendingFor above 2 = %v", got)
		}
		got, err := tx.Untouch(1)
		if diff := cmp.Diff([]RecordKey{a, b}, got); diff != "" || err != nil {
			t.Errorf("Untouch: %v %s", err, diff)
		}
		if got, err := tx.Touched(1); len(got) != 0 || err != nil {
			t.Errorf("Touched after Untouch = %v, %v", got, err)
		}
		if got := pendingFor(t, tx, b, 0); len(got) != 0 {
			t.Errorf("PendingFor after Untouch = %v", got)
		}
		got, err = tx.Touched(300)
		if !slices.Equal(got, []RecordKey{a}) {
			t.Errorf("Touched(300) = %v, %v", got, err)
		}
		return err
	})
	checkJournal(t, db, j)
	updateJournal(t, j, func(tx *JTx) error {
		return tx.delete(bucketTouch, append(a.bytes(), seqKey(300)...)) // damage, which the first Retouch mends
	})
	updateJournal(t, j, func(tx *JTx) error {
		for _, want := range [][]RecordKey{{a}, {a, b}, {b}, {a}, nil} {
			keys := map[RecordKey]bool{}
			for _, k := range want {
				keys[k] = true
			}
			if err := tx.Retouch(300, keys); err != nil {
				return err
			}
			if got, err := tx.Touched(300); !slices.Equal(got, want) || err != nil {
				t.Errorf("Touched(300) after Retouch = %v, %v, want %v", got, err, want)
			}
			for _, k := range []RecordKey{a, b} {
				if got, want := pendingFor(t, tx, k, 2), slices.Contains(want, k); slices.Contains(got, 300) != want {
					t.Errorf("PendingFor after Retouch = %v, want 300 in it: %v", got, want)
				}
			}
		}
		return nil
	})
	checkJournal(t, db, j)
}

func pendingFor(t *testing.T, tx *JTx, k RecordKey, since crm.Seq) (out []crm.Seq) {
	t.Helper()
	for seq, err := range tx.PendingFor(k, since) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, seq)
	}
	return out
}

// TestOverlayRows applies random overlay writes under schemas that change, and
// checks the rows after each.
func TestOverlayRows(t *testing.T) {
	db, j := openCatalog(t), openJournal(t)
	var plain, richer *crm.Schema
	view(t, db, func(tx *Tx) error { plain = tx.Schema(); return nil })
	var err error
	d := dealEntity()
	d.Fields[4].Indexed, d.Fields[1].Indexed = true, true
	if richer, err = crm.NewSchema(2, accountEntity(), d); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 6))
	held := map[RecordKey]bool{}
	for step := range 80 {
		s := plain
		if step/20%2 == 1 {
			s = richer
		}
		updateJournal(t, j, func(tx *JTx) error {
			r := randomRecord(rnd, crm.Pending, 10)
			k := RecordKey{r.Entity, r.ID}
			if rnd.IntN(3) == 0 {
				delete(held, k)
				return tx.DropOverlay(s, k.Entity, k.ID)
			}
			held[k] = true
			return tx.PutOverlay(s, r)
		})
		err := j.View(func(tx *JTx) error {
			findings, err := tx.Check(t.Context(), s)
			if len(findings) > 0 {
				t.Fatalf("step %d: %v", step, findings)
			}
			if ok, ferr := tx.rowsFollow(s); !ok && len(held) > 0 && step%20 > 10 {
				t.Errorf("step %d: rows do not follow the schema: %v", step, ferr)
			}
			if got := len(slices.Collect(tx.Overlaid())); got != len(held) || tx.HasOverlay() != (got > 0) {
				t.Errorf("%d records in the overlay, want %d", got, len(held))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestJournalCheckFinds damages a journal in the ways a check must tell.
func TestJournalCheckFinds(t *testing.T) {
	for name, damage := range map[string]func(*JTx) error{
		"outbox":  func(tx *JTx) error { return tx.put(bucketOutbox, seqKey(1), []byte("damaged")) },
		"depth":   func(tx *JTx) error { return tx.addDepth(1, 0) },
		"highest": func(tx *JTx) error { return tx.setNumber(bucketSelf, "highest", 1) },
		"touch": func(tx *JTx) error {
			return tx.delete(bucketTouched, appendRecordKey(seqKey(1), RecordKey{entityAccount, recordID(1)}))
		},
		"touched": func(tx *JTx) error {
			return tx.delete(bucketTouch, append(RecordKey{entityAccount, recordID(1)}.bytes(), seqKey(1)...))
		},
		"overlay": func(tx *JTx) error {
			return tx.put(bucketOverlay, RecordKey{entityAccount, recordID(1)}.bytes(), []byte("damaged"))
		},
		"rows":   func(tx *JTx) error { return tx.empty(bucketWords) },
		"series": func(tx *JTx) error { return tx.put(bucketSeries, []byte("INV"), []byte("damaged")) },
	} {
		t.Run(name, func(t *testing.T) {
			db, j := openCatalog(t), openJournal(t)
			var s *crm.Schema
			view(t, db, func(tx *Tx) error { s = tx.Schema(); return nil })
			updateJournal(t, j, func(tx *JTx) error {
				return errors.Join(tx.Append(entry(1)), tx.Append(entry(2)), tx.Touch(RecordKey{entityAccount, recordID(1)}, 1), tx.SetSeries("INV", 4),
					tx.PutOverlay(s, account(1, 16, crm.Pending, "Häusler")))
			})
			checkJournal(t, db, j)
			updateJournal(t, j, damage)
			if err := j.View(func(tx *JTx) error {
				findings, err := tx.Check(t.Context(), s)
				if len(findings) == 0 {
					t.Error("nothing found")
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestBaseCheckFinds damages a base file in the ways a check must tell. Where
// sending a bucket of records again mends it, the finding names that bucket.
func TestBaseCheckFinds(t *testing.T) {
	a := account(1, 16, 2, "Häusler")
	k := RecordKey{a.Entity, a.ID}
	mended := []string{"record", "feed", "digest", "words", "index"}
	for name, damage := range map[string]func(*Tx) error{
		"record": func(tx *Tx) error { return tx.liveBucket(k.Entity).Put(k.ID[:], []byte("damaged")) },
		"moved record": func(tx *Tx) error {
			v := tx.liveBucket(k.Entity).Get(k.ID[:])
			id := recordID(77)
			return tx.liveBucket(k.Entity).Put(id[:], append([]byte(nil), v...))
		},
		"live and dead": func(tx *Tx) error {
			dead := a.Clone()
			dead.Deleted = true
			return tx.put(bucketDead, k.bytes(), closeSeal(k.bytes(), crm.AppendRecord(make([]byte, sealSize), dead)))
		},
		"feed":       func(tx *Tx) error { return tx.delete(bucketFeed, feedKey(16, 2, k)) },
		"feed twice": func(tx *Tx) error { return tx.put(bucketFeed, feedKey(16, 1, k), nil) },
		"gone":       func(tx *Tx) error { return tx.put(bucketGone, feedKey(16, 1, k), nil) },
		"left":       func(tx *Tx) error { return tx.put(bucketLeft, []byte("short"), nil) },
		"digest": func(tx *Tx) error {
			return tx.put(bucketDigest, sumKey{16, k.ID[15]}.bytes(), Bucket{Count: 1}.Append(nil))
		},
		"digest extra": func(tx *Tx) error { return tx.put(bucketDigest, sumKey{99, 1}.bytes(), Bucket{Count: 1}.Append(nil)) },
		"count":        func(tx *Tx) error { return tx.put(bucketCount, entityKey(k.Entity), make([]byte, 8)) },
		"count extra":  func(tx *Tx) error { return tx.put(bucketCount, entityKey(99), make([]byte, 8)) },
		"roots":        func(tx *Tx) error { return tx.empty(bucketRoots) },
		"words":        func(tx *Tx) error { return tx.empty(bucketWords) },
		"index":        func(tx *Tx) error { return tx.empty(bucketIndex) },
		"index extra": func(tx *Tx) error {
			return tx.rows.put(k.Entity, row{space: spaceIndex, index: 0x4000 + uint16(accountName), key: make([]byte, 20)})
		},
		"node":    func(tx *Tx) error { return tx.put(bucketNode, nodeKey(1), []byte("damaged")) },
		"outcome": func(tx *Tx) error { return tx.putSealed(bucketOutcome, outcomeKey(1, 1), []byte("damaged")) },
		"refused": func(tx *Tx) error { return tx.putSealed(bucketRefused, k.ID[:], []byte("damaged")) },
		"state":   func(tx *Tx) error { return tx.put(bucketState, []byte("rev"), []byte("damaged")) },
	} {
		t.Run(name, func(t *testing.T) {
			db := openCatalog(t)
			put(t, db, a, deal(2, a, 2, "D", 1))
			update(t, db, damage)
			if err := db.View(func(tx *Tx) error {
				findings, err := tx.Check(t.Context())
				if len(findings) == 0 {
					t.Error("nothing found")
				}
				for _, f := range findings {
					if f.Bucket == "" || f.Item == "" || f.Detail == "" || f.String() == "" {
						t.Errorf("an empty finding: %+v", f)
					}
				}
				named := slices.ContainsFunc(findings, func(f Finding) bool { return f.Territory == 16 && f.DigestBucket == tx.BucketOf(a.ID) })
				if slices.Contains(mended, name) && !named {
					t.Errorf("no finding names the bucket: %+v", findings)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestWithhold takes Mutations out of the tail: number, time, chain hash and Rev
// stay, and after Compact nothing of the Mutation is in the file.
func TestWithhold(t *testing.T) {
	db, j := openCatalog(t), openJournal(t)
	secret := entry(2)
	secret.Bytes = []byte("TOPSECRET")
	updateJournal(t, j, func(tx *JTx) error {
		for _, e := range []Entry{entry(1), secret, entry(3)} {
			if err := tx.Append(e); err != nil {
				return err
			}
		}
		_, err := tx.Settle(2, 6)
		return err
	})
	updateJournal(t, j, func(tx *JTx) error {
		for seq, want := range map[crm.Seq]bool{2: true, 3: false, 4: false} {
			for range 2 { // a repeat does nothing
				if ok, err := tx.Withhold(seq); ok != want || err != nil {
					t.Errorf("Withhold(%d) = %v, %v, want %v", seq, ok, err, want)
				}
			}
		}
		return nil
	})
	if err := j.Compact(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(j.Path()); err != nil || bytes.Contains(b, []byte("TOPSECRET")) {
		t.Errorf("a compacted file keeps a withheld mutation (%v)", err)
	}
	checkJournal(t, db, j)
	if findings, _ := scrubbed(t, j.file, 3); len(findings) > 0 {
		t.Error(findings)
	}
	want := []Entry{entry(1), {Seq: 2, At: secret.At, Chain: secret.Chain, Withheld: true}}
	want[0].Rev, want[1].Rev = 6, 6
	updateJournal(t, j, func(tx *JTx) error {
		got, err := collect(tx.Tail(0))
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("Tail: %v %s", err, diff)
		}
		if e, where, err := tx.Entry(2); !cmp.Equal(e, want[1]) || where != InTail || err != nil {
			t.Errorf("Entry(2) = %+v, %v, %v", e, where, err)
		}
		stored := tx.get(bucketTail, seqKey(2)) // as docs/format.md draws it
		if drawn := slices.Concat(stored[:4], binary.BigEndian.AppendUint64(nil, 1002), secret.Chain[:], binary.BigEndian.AppendUint64(nil, 6)); !bytes.Equal(stored, drawn) {
			t.Errorf("stored as %x, want %x", stored, drawn)
		}
		if err := tx.Append(Entry{Seq: 4}); err == nil {
			t.Error("an empty mutation was appended")
		}
		n, err := tx.TrimTail(maxSeq, 6)
		if n != 2 {
			t.Errorf("TrimTail = %d", n)
		}
		return err
	})
	checkJournal(t, db, j)
	updateJournal(t, j, func(tx *JTx) error { // of an edit that is not decided nothing may be missing
		e := entry(3)
		e.Bytes = nil
		return errors.Join(tx.putSealed(bucketOutbox, seqKey(3), e.encode()), tx.addDepth(0, -3))
	})
	if findings, _ := scrubbed(t, j.file, 3); len(findings) != 1 || findings[0].Bucket != "outbox" {
		t.Errorf("an outbox entry without its mutation: %v", findings)
	}
}

func TestNodesOutcomesStage(t *testing.T) {
	db := openBase(t)
	n := NodeState{Node: 7, Incarnation: 2, LastSeq: 40, LastHash: crm.ChainHash{9}, LastHLC: 5, Cursor: 30, LowBase: 20, SeenMillis: -1, Frozen: "its history forked at 38"}
	rejected := crm.Outcome{Node: 7, Seq: 300, Rev: 12, Kind: crm.Rejected, Code: crm.CodeGuard, Message: "no"}
	update(t, db, func(tx *Tx) error {
		other := rejected
		other.Node = 8
		first := rejected
		first.Seq = 2
		return errors.Join(tx.SetNode(n), tx.SetNode(NodeState{Node: 300}), tx.PutOutcome(rejected), tx.PutOutcome(first), tx.PutOutcome(other),
			tx.Stage([]byte("b"), []byte("2")), tx.Stage([]byte("a"), []byte("1")), tx.SetRefused(recordID(1), recordID(2)),
			tx.SetRev(12), tx.SetTimeline(3))
	})
	checkBase(t, db)
	update(t, db, func(tx *Tx) error {
		if got, ok, err := tx.Node(7); got != n || !ok || err != nil {
			t.Errorf("Node = %+v, %v, %v", got, ok, err)
		}
		if _, ok, err := tx.Node(1); ok || err != nil {
			t.Errorf("Node of nobody: %v, %v", ok, err)
		}
		nodes, err := collect(tx.Nodes())
		if len(nodes) != 2 || nodes[0] != n || nodes[1].Node != 300 || err != nil {
			t.Errorf("Nodes = %+v, %v", nodes, err)
		}
		outcomes, err := collect(tx.Outcomes(7, 2))
		if len(outcomes) != 1 || outcomes[0] != rejected || err != nil {
			t.Errorf("Outcomes = %+v, %v", outcomes, err)
		}
		if got, ok, err := tx.Outcome(7, 300); got != rejected || !ok || err != nil {
			t.Errorf("Outcome = %+v, %v, %v", got, ok, err)
		}
		if _, ok, err := tx.Outcome(7, 3); ok || err != nil {
			t.Errorf("an accepted Mutation has an outcome: %v, %v", ok, err)
		}
		if id, ok, err := tx.Refused(recordID(1)); id != recordID(2) || !ok || err != nil {
			t.Errorf("Refused = %v, %v, %v", id, ok, err)
		}
		staged, err := collect(tx.Staged())
		if got := fmt.Sprintf("%s", staged); got != "[{a 1} {b 2}]" || err != nil {
			t.Errorf("Staged = %s, %v", got, err)
		}
		if err := tx.ClearStage(); err != nil {
			return err
		}
		if staged, err := collect(tx.Staged()); len(staged) != 0 || err != nil {
			t.Errorf("Staged after ClearStage = %v, %v", staged, err)
		}
		rev, err := tx.Rev()
		timeline, err2 := tx.Timeline()
		if rev != 12 || timeline != 3 {
			t.Errorf("Rev, Timeline = %d, %d", rev, timeline)
		}
		return errors.Join(err, err2)
	})
}
