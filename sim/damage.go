package sim

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
)

// A Damage is a record of a replica's base that is not any more what the masters
// have sent.
type Damage struct {
	At        time.Duration
	Disk      DiskID
	Record    store.RecordKey
	Territory crm.TerritoryID
	Rev       crm.Rev       // that last set the record
	Mended    time.Duration // when the base held again what was decided; 0: never
	Base      crm.Rev       // of the base at that time
	Anew      bool          // by what was decided since, with a territory granted since, or with a base fetched anew
}

// An Alarm is something that a replica's status shows to those who watch it.
type Alarm struct {
	At      time.Duration
	Disk    DiskID
	Suspect []crm.TerritoryID
	Beyond  string // what a repair of some buckets cannot cure; "" if nothing
}

// An Asked is what a replica asked a master for in order to be repaired.
type Asked struct {
	At        time.Duration
	Disk      DiskID
	Territory crm.TerritoryID
	Buckets   int // 0: their sums
}

// flip changes a bit of a record in a replica's base.
func (w *world) flip(words []string) error {
	return w.damage(words, func(b *branchNode, r *crm.Record) error {
		file, err := os.ReadFile(b.path("base.db"))
		if err != nil {
			return err
		}
		was := slices.Clone(file)
		flip(file, crm.AppendRecord(nil, r), b.disk.rand)
		return writeChanged(b.path("base.db"), was, file)
	})
}

// tamper changes a record behind the replica's back, with everything that the
// store keeps about it.
func (w *world) tamper(words []string) error {
	return w.damage(words, func(b *branchNode, r *crm.Record) error {
		changed := r.Clone()
		i := slices.IndexFunc(changed.Cells, func(c crm.Cell) bool { return c.Field >= crm.FirstField && c.Value.Str() != "" })
		if i < 0 {
			return nil
		}
		changed.Cells[i].Value = crm.TextValue("made up")
		_, base := b.rep.Files()
		return base.Update(func(tx *store.Tx) error { return tx.Put(changed) })
	})
}

// drop removes a record behind the replica's back.
func (w *world) drop(words []string) error {
	return w.damage(words, func(b *branchNode, r *crm.Record) error {
		_, base := b.rep.Files()
		return base.Update(func(tx *store.Tx) error {
			_, err := tx.Drop(r.Entity, r.ID)
			return err
		})
	})
}

// damage does something to a live record of a replica that is up and has it.
func (w *world) damage(words []string, do func(*branchNode, *crm.Record) error) error {
	return onBranch(func(b *branchNode) error {
		r, err := b.decided(words[1])
		if err != nil || r == nil {
			return nil // it is not there, or damaged already
		}
		d := &Damage{At: w.agenda.now, Disk: b.diskID, Record: keyOf(r), Territory: r.Territory, Rev: r.Stamp.Rev, Base: b.rep.Status().Cursor}
		if err := do(b, r); crm.CodeOf(err) == crm.CodeDiskFull {
			return nil
		} else if err != nil {
			return err
		}
		if b.mended(d) {
			return nil // nothing was changed
		}
		b.note("has damage in %s", d.Record)
		w.record.Damages = append(w.record.Damages, d)
		return nil
	})(w, words)
}

// decided returns a live record of the base, nil if it is not there.
func (b *branchNode) decided(name string) (r *crm.Record, err error) {
	_, base := b.rep.Files()
	err = base.View(func(tx *store.Tx) error {
		e, err := entityOf(tx.Schema(), name)
		if err != nil {
			return err
		}
		r, err = tx.Record(e.ID, idOf(name))
		return err
	})
	if r != nil && r.Deleted {
		r = nil
	}
	return r, err
}

// writeChanged writes the sectors that differ into a file that is open elsewhere.
func writeChanged(path string, was, now []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	data, meta := changedSectors(was, now, os.Getpagesize())
	for _, s := range slices.Concat(data, meta) {
		if _, err := f.WriteAt(now[s*sectorSize:min(len(now), (s+1)*sectorSize)], int64(s*sectorSize)); err != nil {
			return err
		}
	}
	return f.Close()
}

// damages returns what is not mended on the node's disk.
func (b *branchNode) damages() (out []*Damage) {
	for _, d := range b.w.record.Damages {
		if d.Disk == b.diskID && d.Mended == 0 {
			out = append(out, d)
		}
	}
	return out
}

// watch records what the node's status shows, and what has been mended.
func (b *branchNode) watch() {
	s := b.rep.Status()
	beyond := s.Damage
	if s.Stuck {
		beyond = fmt.Sprintf("repairs do not cure territories %v", s.Suspect)
	}
	if alarmed := len(s.Suspect) > 0 || beyond != ""; alarmed && (!b.alarmed || beyond != "") {
		b.w.record.Alarms = append(b.w.record.Alarms, Alarm{b.w.agenda.now, b.diskID, s.Suspect, beyond})
		b.note("alarms: territories %v %s", s.Suspect, beyond)
		b.w.count("error alarm")
	}
	b.alarmed = len(s.Suspect) > 0 || beyond != ""
	for _, d := range b.damages() {
		if !slices.Contains(s.Suspect, d.Territory) && b.mended(d) {
			d.Mended = b.w.agenda.now
			b.note("has mended %s", d.Record)
		}
	}
}

// mended compares the record and its territory with what was decided.
func (b *branchNode) mended(d *Damage) (same bool) {
	_, base := b.rep.Files()
	err := base.View(func(tx *store.Tx) error {
		rev, err := tx.Rev()
		if err != nil || rev == 0 {
			return err
		}
		id, err := tx.Timeline()
		if err != nil {
			return err
		}
		t := b.w.record.Timeline(id)
		held := t.right(b.site, rev).holds
		r, err := tx.Record(d.Record.Entity, d.Record.ID)
		if err != nil {
			return err
		}
		digest, err := tx.Digest(d.Territory)
		if err != nil {
			return err
		}
		want := t.State(d.Record, rev)
		if want != nil && (want.Deleted || !held(want.Territory)) {
			want = nil
		}
		if r != nil && r.Deleted {
			r = nil
		}
		ros, err := b.rosters.At(tx)
		if err != nil {
			return err
		}
		granted := slices.ContainsFunc(ros.Sites[b.site].Grants, func(g session.Grant) bool { return g.Territory == d.Territory && g.Rev > d.Base })
		d.Anew = want == nil || want.Stamp.Rev > d.Rev || granted || b.anew > d.At
		same = (r == nil) == (want == nil) && (r == nil || bytes.Equal(crm.AppendRecord(nil, r), crm.AppendRecord(nil, want))) &&
			(!held(d.Territory) || digest == t.Digest(d.Territory, rev))
		return nil
	})
	return err == nil && same
}

// How a replica verifies its files.
const (
	scrubPace   = 10 * time.Second
	scrubBudget = 1000 // entries, as in package node
)

// scrub verifies a part of each file, and the next part a while later.
func (b *branchNode) scrub() {
	b.after(scrubPace, b.scrub)
	for i, step := range []func(context.Context, []byte, int) ([]byte, int, error){b.rep.ScrubBase, b.rep.ScrubJournal} {
		next, found, err := step(context.Background(), b.scrubbed[i], scrubBudget)
		b.scrubbed[i] = next
		if err != nil {
			b.failed("scrub", err)
		}
		if found > 0 {
			b.note("finds %d things in a scrub", found)
		}
	}
	b.moved()
	b.pump()
}
