package sim

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// recordsIn returns all records of a base file: live ones and tombstones, each by
// entity and id.
func recordsIn(tx *store.Tx) (live, dead []*crm.Record, err error) {
	for _, t := range slices.Collect(tx.Territories()) {
		for e, err := range tx.Feed(t, 0) {
			if err != nil {
				return nil, nil, err
			}
			if e.Left {
				continue
			}
			r, err := tx.Record(e.Entity, e.ID)
			if err != nil {
				return nil, nil, err
			}
			if r.Deleted {
				dead = append(dead, r)
			} else {
				live = append(live, r)
			}
		}
	}
	for _, list := range [][]*crm.Record{live, dead} {
		slices.SortFunc(list, func(a, b *crm.Record) int { return compareKeys(keyOf(a), keyOf(b)) })
	}
	return live, dead, nil
}

// take records what a replica holds and shows. With check its files are checked
// as well, which costs as much as reading them several times.
func (b *branchNode) take(last, check bool) error {
	if b.rep.Status().Cursor == 0 || len(b.damages()) > 0 && !last {
		return nil // there is nothing to be seen, or something that cannot be read
	}
	s := &Stock{At: b.w.agenda.now, Disk: b.diskID, Last: last, Role: roleReplica}
	journal, base := b.rep.Files()
	err := journal.View(func(j *store.JTx) error {
		return base.View(func(tx *store.Tx) (err error) {
			if s.Base, s.Dead, err = recordsIn(tx); err != nil {
				return err
			}
			if s.Rev, err = tx.Rev(); err != nil {
				return err
			}
			if s.Timeline, err = tx.Timeline(); err != nil {
				return err
			}
			if s.Lineage, err = tx.Lineage(); err != nil {
				return err
			}
			return s.pending(j)
		})
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", b.name, err)
	}
	if check {
		findings, err := b.rep.Check(context.Background())
		if err != nil {
			return fmt.Errorf("check %s: %w", b.name, err)
		}
		for _, f := range findings {
			s.Findings = append(s.Findings, f.File+" "+f.String())
		}
	}
	b.w.record.Stocks = append(b.w.record.Stocks, s)
	return nil
}

// pending reads what no master has decided, and what readers are shown of it.
func (s *Stock) pending(j *store.JTx) error {
	for e, err := range j.Outbox(0) {
		if err != nil {
			return err
		}
		if e.Withheld {
			continue // nothing of it can be shown
		}
		m, err := crm.DecodeMutation(e.Bytes)
		if err != nil {
			return err
		}
		s.Pending = append(s.Pending, m)
	}
	for _, k := range slices.Collect(j.Overlaid()) {
		r, err := j.Overlay(k.Entity, k.ID)
		if err != nil {
			return err
		}
		s.Shown = append(s.Shown, r)
	}
	return nil
}

// stock records what a master holds.
func (m *masterNode) stock(last, check bool) error {
	s := &Stock{At: m.w.agenda.now, Disk: DiskID{Node: m.id}, Last: last, Role: roleMaster}
	err := m.fsm.DB().View(func(tx *store.Tx) (err error) {
		if s.Base, s.Dead, err = recordsIn(tx); err != nil {
			return err
		}
		if s.Rev, err = tx.Rev(); err != nil {
			return err
		}
		if s.Timeline, err = tx.Timeline(); err != nil || !check {
			return err
		}
		findings, err := tx.Check(context.Background())
		for _, f := range findings {
			s.Findings = append(s.Findings, f.String())
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read %s: %w", m.name, err)
	}
	m.w.record.Stocks = append(m.w.record.Stocks, s)
	return nil
}

// answers asks each branch what became of the edits it has taken.
func (w *world) answers() {
	for e := range w.record.acked() {
		b := w.holder(e)
		if b == nil || !b.up {
			continue
		}
		a := Answer{Edit: e.ID, Disk: b.diskID, Seq: e.Seq}
		seq, ok := b.seqs[e.ID]
		if ok {
			a.Seq = seq
		}
		o, decided, err := b.rep.Outcome(a.Seq)
		if err != nil {
			b.failed(fmt.Sprintf("tell of edit %d", e.ID), err)
			continue
		}
		a.Decided, a.Outcome = decided, o
		w.record.Answers = append(w.record.Answers, a)
	}
}

// holder returns the branch that an edit is to be asked of: the one on the disk
// that took it, or that was put back in place of it.
func (w *world) holder(e *Edit) *branchNode {
	for _, b := range w.branches {
		if b.diskID.Node == e.Disk.Node && b.diskID.Copy == e.Disk.Copy {
			return b
		}
	}
	return nil
}

// search looks for canaries in a node's files, free pages and all.
func (b *branchNode) search() (found map[EditID]string, err error) {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return nil, err
	}
	found = map[EditID]string{}
	for _, entry := range entries {
		data, err := os.ReadFile(filepath.Join(b.dir, entry.Name()))
		if err != nil {
			return nil, err
		}
		for e := range canariesIn(string(data)) {
			found[e] = entry.Name()
		}
	}
	return found, nil
}

// canariesIn yields the edits whose canary is in the text, with repeats.
func canariesIn(text string) func(func(EditID) bool) {
	return func(yield func(EditID) bool) {
		for {
			at := strings.Index(text, canaryBegin)
			if at < 0 {
				return
			}
			text = text[at+len(canaryBegin):]
			n, digits := EditID(0), 0
			for digits < len(text) && digits < 6 && text[digits] >= '0' && text[digits] <= '9' {
				n = 10*n + EditID(text[digits]-'0')
				digits++
			}
			if digits > 0 && strings.HasPrefix(text[digits:], canaryEnd) && !yield(n) {
				return
			}
		}
	}
}

// purged searches the files of a node that has proven its purges, for what edits
// wrote into records that it may not hold.
func (b *branchNode) purged() error {
	found, err := b.search()
	if err != nil {
		return err
	}
	p := Purge{At: b.w.agenda.now, Disk: b.diskID, Found: slices.Sorted(maps.Keys(found)), In: found, May: map[EditID]bool{}}
	t := b.w.record.Timeline(b.shown.Timeline)
	held := t.Held(b.shown.Rev, t.right(b.site, b.shown.Rev).holds)
	for _, r := range held {
		for e := range canariesIn(string(crm.AppendRecord(nil, r))) {
			p.May[e] = true
		}
	}
	for _, e := range b.w.record.Edits {
		if e == nil {
			continue
		}
		for _, op := range e.Ops {
			if held[recordOf(op)] != nil {
				p.May[e.ID] = true
			}
		}
		if !e.Acked && b.w.record.Decided(e.ID) == nil {
			p.May[e.ID] = true // the disk died on it, and it is part of nothing
		}
	}
	b.w.record.Purges = append(b.w.record.Purges, p)
	b.w.judge(onPurge)
	return nil
}
