package store

import "github.com/tradepost-crm/tradepost/crm"

// metaLineage holds crm.AppendLineage.
const metaLineage = "lineage"

// Lineage returns what a Rev of an earlier timeline means in this file: the
// lineage of its Timeline, without forks if it was never set.
func (tx *Tx) Lineage() (crm.Lineage, error) {
	timeline, err := tx.Timeline()
	if err != nil {
		return crm.Lineage{}, err
	}
	b, err := tx.Meta(metaLineage)
	if err != nil || b == nil {
		return crm.Lineage{Timeline: timeline}, err
	}
	l, err := crm.DecodeLineage(b)
	if err != nil {
		return l, tx.f.corrupt(metaLineage, err)
	}
	if l.Timeline != timeline {
		return crm.Lineage{Timeline: timeline}, nil // SetTimeline alone says nothing of forks
	}
	return l, nil
}

// SetLineage sets what Lineage and Timeline return.
func (tx *Tx) SetLineage(l crm.Lineage) error {
	if err := tx.SetTimeline(l.Timeline); err != nil {
		return err
	}
	return tx.SetMeta(metaLineage, crm.AppendLineage(nil, l))
}

// Lineage returns the lineage of the base.
func (r *Reader) Lineage() (crm.Lineage, error) { return r.base.Lineage() }

// Token returns what somebody who reads rec here has seen of it. A token is of
// the timeline of the base, and of this node where it speaks of pending edits.
func (r *Reader) Token(rec *crm.Record) crm.Token { return rec.TokenAt(r.timeline) }

// Token returns what somebody who reads the decided rec has seen of it.
func (tx *Tx) Token(rec *crm.Record) (crm.Token, error) {
	timeline, err := tx.Timeline()
	return rec.TokenAt(timeline), err
}
