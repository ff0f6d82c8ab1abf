package session

import (
	"bytes"
	"cmp"
	"iter"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// A place is a position in the merged feed of some territories, exclusive.
type place struct {
	rev       crm.Rev
	entity    crm.EntityID
	id        crm.RecordID
	territory crm.TerritoryID
}

// atEnd is the place after everything at rev.
func atEnd(rev crm.Rev) place {
	p := place{rev: rev, entity: 1<<16 - 1, territory: 1<<32 - 1}
	for i := range p.id {
		p.id[i] = 0xff
	}
	return p
}

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.rev, q.rev), cmp.Compare(p.entity, q.entity), bytes.Compare(p.id[:], q.id[:]), cmp.Compare(p.territory, q.territory))
}

// A merger yields the feeds of several territories as one, in order of place.
type merger struct{ runs []*run }

// A run is the rest of one territory's feed.
type run struct {
	territory crm.TerritoryID
	pull      func() (store.FeedEntry, error, bool)
	stop      func()
	entry     store.FeedEntry
	at        place
}

func (p *packer) merge() (*merger, error) {
	m := &merger{}
	for _, t := range sortedKeys(p.ways) {
		from := p.ways[t].at
		since := from.rev
		if since > 0 && from != atEnd(since) {
			since-- // the place lies amid the entries of its Rev
		}
		r := &run{territory: t}
		r.pull, r.stop = iter.Pull2(p.tx.Feed(t, since))
		m.runs = append(m.runs, r)
		for first := true; first || r.pull != nil && r.at.compare(from) <= 0; first = false {
			if err := r.advance(); err != nil {
				m.stop()
				return nil, err
			}
		}
	}
	m.drop()
	return m, nil
}

// advance reads the run's next entry; pull is nil when there is none.
func (r *run) advance() error {
	e, err, ok := r.pull()
	if err != nil {
		return err
	}
	if !ok {
		r.pull = nil
		return nil
	}
	r.entry, r.at = e, place{e.Rev, e.Entity, e.ID, r.territory}
	return nil
}

// drop forgets the runs that have ended and puts the first in front.
func (m *merger) drop() {
	rest := m.runs[:0]
	for _, r := range m.runs {
		if r.pull == nil {
			r.stop()
			continue
		}
		rest = append(rest, r)
		if n := len(rest) - 1; rest[n].at.compare(rest[0].at) < 0 {
			rest[0], rest[n] = rest[n], rest[0]
		}
	}
	m.runs = rest
}

func (m *merger) more() bool { return len(m.runs) > 0 }

func (m *merger) head() (place, store.FeedEntry) { return m.runs[0].at, m.runs[0].entry }

func (m *merger) next() error {
	if err := m.runs[0].advance(); err != nil {
		return err
	}
	m.drop()
	return nil
}

func (m *merger) stop() {
	for _, r := range m.runs {
		r.stop()
	}
}
