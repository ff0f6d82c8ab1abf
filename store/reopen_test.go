package store

import (
	"path/filepath"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
)

// What the masters have lost is pending again, in its order and place, also an
// entry whose content is gone; what a backup covers is told by the new dates.
func TestJournal_ReopensWhatIsNotDecided(t *testing.T) {
	j, err := OpenJournal(filepath.Join(t.TempDir(), "journal.db"), Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	step := func(fn func(*JTx) error) {
		t.Helper()
		if err := j.Update(fn); err != nil {
			t.Fatal(err)
		}
	}
	step(func(tx *JTx) error {
		for seq := crm.Seq(1); seq <= 5; seq++ {
			if err := tx.Append(Entry{Seq: seq, At: int64(seq), Chain: crm.ChainHash{byte(seq)}, Bytes: []byte{1, byte(seq)}}); err != nil {
				return err
			}
			if seq == 5 {
				break
			}
			if _, err := tx.Settle(seq, crm.Rev(100+seq)); err != nil {
				return err
			}
		}
		_, err := tx.Withhold(3)
		return err
	})
	step(func(tx *JTx) error {
		if n, err := tx.Redate(101, crm.Pending-1); n != 3 || err != nil {
			t.Errorf("%d are dated anew, %v", n, err)
		}
		if n, err := tx.TrimTail(maxSeq, 1000); n != 1 || err != nil {
			t.Errorf("%d are trimmed, %v: only the first was decided where the backup is of", n, err)
		}
		for _, want := range []int{2, 0} { // a repeat does nothing
			if n, err := tx.Reopen(2); n != want || err != nil {
				t.Errorf("%d are open again, %v, want %d", n, err, want)
			}
		}
		d, err := tx.Depth()
		if d.Entries != 3 || d.Bytes != 4 || d.Oldest != 3 {
			t.Errorf("the outbox is %+v", d)
		}
		return err
	})
	step(func(tx *JTx) error {
		var seqs []crm.Seq
		for e, err := range tx.Outbox(0) {
			if err != nil {
				return err
			}
			seqs = append(seqs, e.Seq)
			if (e.Rev != 0) != e.Withheld || e.Chain != (crm.ChainHash{byte(e.Seq)}) || e.Withheld != (e.Seq == 3) {
				t.Errorf("entry %+v", e)
			}
		}
		if len(seqs) != 3 || seqs[0] != 3 || seqs[2] != 5 {
			t.Errorf("open: %v", seqs)
		}
		found, err := tx.Check(t.Context(), nil)
		if len(found) > 0 {
			t.Errorf("check: %v", found)
		}
		if n, err := tx.Settle(5, 200); n != 3 || err != nil {
			t.Errorf("%d are decided, %v", n, err)
		}
		if n, err := tx.TrimTail(maxSeq, 200); n != 3 || err != nil { // 2 is undated still
			t.Errorf("%d are trimmed, %v", n, err)
		}
		return err
	})
}
