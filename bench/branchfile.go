package main

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/replica"
	"github.com/tradepost-crm/tradepost/store"
)

// A bulk load writes growing parts in one transaction each: at least loadPart
// records, and a loadShare-th of the entity's so far. A small transaction
// rewrites a page of every index for few records; a large one into a young index
// takes time in proportion to its square, because bbolt splits pages only at the
// end of a transaction.
const (
	loadPart  = 2000
	loadShare = 8
)

const siteName = "branch"

// openBranch makes the base file that a branch which holds everything would
// have been given, and opens the replica over it. It has no WAN and is not run.
func openBranch(dir string, d *data) (*replica.Replica, error) {
	db, err := store.Open(filepath.Join(dir, "base.db"), store.Options{NoSync: true})
	if err != nil {
		return nil, err
	}
	l := &loader{db: db}
	l.cluster()
	for it := range d.items(entities()) {
		if l.put(it); l.err != nil {
			break
		}
	}
	l.flush()
	if err := errors.Join(l.err, db.Close(), emptyJournal(dir)); err != nil {
		return nil, err
	}
	return replica.Open(replica.Config{Dir: dir, ID: replica.ID{Cluster: "bench", Site: siteName, Node: 2},
		Dial:    func(context.Context, string) (net.Conn, error) { return nil, errors.New("this branch has no WAN") },
		Masters: func() []string { return nil }})
}

// emptyJournal makes the journal of a branch that has made no edits: a base
// without one is refused.
func emptyJournal(dir string) error {
	j, err := store.OpenJournal(filepath.Join(dir, "journal.db"), store.Options{})
	if err != nil {
		return err
	}
	return j.Close()
}

// A loader writes records as a master would have decided them.
type loader struct {
	db      *store.DB
	rev     crm.Rev
	part    []*crm.Record // of one entity, but definitions, which only make sense together
	written int           // of that entity, before part
	err     error
}

// cluster puts what the records depend on: the schema, the territories and the
// branch's site.
func (l *loader) cluster() {
	for _, e := range entities() {
		for _, op := range crm.MetadataOps(e) {
			l.put(item{entity: op.Entity, id: op.Record, region: -1, cells: op.Cells})
		}
	}
	var codes []string
	for n := range regions {
		codes = append(codes, territory(n))
		l.put(item{entity: crm.EntityTerritory, id: recordID(crm.EntityTerritory, n+1), region: -1, cells: []crm.Input{
			{Field: crm.TerritoryCode, Value: crm.TextValue(territory(n))}, {Field: crm.TerritoryName, Value: crm.TextValue(regions[n])},
			{Field: crm.TerritoryNumber, Value: crm.IntegerValue(int64(crm.FirstTerritory) + int64(n))}}})
	}
	l.put(item{entity: crm.EntitySite, id: recordID(crm.EntitySite, 1), region: -1, cells: []crm.Input{
		{Field: crm.SiteName, Value: crm.TextValue(siteName)}, {Field: crm.SiteTerritories, Value: crm.ChoicesValue(codes...)},
		{Field: crm.SiteHome, Value: crm.TextValue(codes[0])}}})
	l.flush() // what follows is written by this schema
}

func (l *loader) put(it item) {
	if len(l.part) > 0 && it.entity >= crm.FirstEntity && l.part[0].Entity != it.entity {
		l.flush()
		l.written = 0
	}
	l.rev++
	s := crm.Stamp{Rev: l.rev, HLC: crm.NewHLC(start.UnixMilli() + int64(l.rev)*1000), Node: 1, Seq: crm.Seq(l.rev), Actor: "bench"}
	r := &crm.Record{Entity: it.entity, ID: it.id, Territory: crm.Shared, Root: it.root, Schema: 1, Stamp: s, Entered: l.rev}
	if it.region >= 0 {
		r.Territory = crm.FirstTerritory + crm.TerritoryID(it.region)
	}
	for _, in := range it.cells {
		c := crm.Cell{Field: in.Field, Value: in.Value, Stamp: s}
		for range in.Value.Set() {
			c.Elems = append(c.Elems, s)
		}
		r.Cells = append(r.Cells, c)
	}
	l.part = append(l.part, r)
	if len(l.part) >= max(loadPart, l.written/loadShare) {
		l.flush()
	}
}

func (l *loader) flush() {
	if l.err != nil {
		return
	}
	l.err = l.db.Update(func(tx *store.Tx) error {
		for _, r := range l.part {
			if err := tx.Put(r); err != nil {
				return err
			}
		}
		return errors.Join(tx.SetRev(l.rev), tx.SetTimeline(1))
	})
	l.written += len(l.part)
	l.part = l.part[:0]
}

// makeBranch is openBranch with a note of how long it took.
func (b *bench) makeBranch(d *data) (*replica.Replica, error) {
	dir, err := b.subdir("branch")
	if err != nil {
		return nil, err
	}
	began := time.Now()
	r, err := openBranch(dir, d)
	if err == nil {
		b.note("Tradepost's base file, indexes and search words included, written in %s", span(time.Since(began)))
	}
	return r, err
}
