package store

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/report"
)

// DefaultColumnBytes is the memory that Columns may hold if not told otherwise.
const DefaultColumnBytes = 256 << 20

// Columns answer reports from columns in memory, so that a report reads the
// files once and from then on only the records that changed since. They are
// derived, and made anew whenever that is simpler: after a change of the schema,
// after another file took the place of the base or the journal, or when more
// changed than is remembered. Columns may be called by any goroutine.
//
// # Consistency
//
// A report is of exactly the state that its Reader shows. For each entity that
// reports are about there is one set of columns, which is at one state of base
// and journal. A run whose Reader is at the same state shares the set with
// others. One at another state has the set to itself: it reads the records that
// differ between the two states, through its Reader, and then runs. It makes no
// difference which state is the newer one: the set goes back as well as forth.
//
// # Memory
//
// Between runs all sets together hold no more than the limit, as estimated by
// [report.Tables.Bytes]: the sets used least recently are dropped. A set that
// alone is too large is made anew with what the report at hand needs; if that is
// too large as well it serves the one run and is dropped. During a run a set
// may be larger, because what a report needs is only known once it is there.
type Columns struct {
	limit int64
	runs  atomic.Int64 // also the clock that tells which set was used last
	scans atomic.Int64
	reads atomic.Int64

	mu   sync.Mutex // protects sets
	sets map[crm.EntityID]*columnSet
}

// NewColumns returns Columns without contents that hold up to limit bytes; 0 is
// DefaultColumnBytes.
func NewColumns(limit int64) *Columns {
	if limit == 0 {
		limit = DefaultColumnBytes
	}
	return &Columns{limit: limit, sets: map[crm.EntityID]*columnSet{}}
}

// ColumnStats describe Columns.
type ColumnStats struct {
	Bytes   int64 // held now
	Runs    int64 // reports answered or failed
	Scans   int64 // times that all records of an entity were read
	Changes int64 // single records read because they had changed
}

// Stats returns the state of the columns now.
func (c *Columns) Stats() ColumnStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := ColumnStats{Runs: c.runs.Load(), Scans: c.scans.Load(), Changes: c.reads.Load()}
	for _, s := range c.sets {
		st.Bytes += s.bytes.Load()
	}
	return st
}

// Run computes def, which must have been parsed with rd.Schema(), over the
// records that rd shows. The first run of an entity, and one that needs columns
// that no run before needed, reads all records concerned; others of that entity
// wait. The error is ctx's if ctx ends meanwhile, one of the files', or one of
// [report.Tables.Run].
func (c *Columns) Run(ctx context.Context, rd *Reader, def *report.Report) (*report.Result, error) {
	now := c.runs.Add(1)
	if rd.writes() {
		return (&columnSet{owner: c}).update(ctx, rd, state{}, def)
	}
	s := c.set(def.Entity.ID)
	s.used.Store(now)
	at := rd.state()
	if result, done, err := s.run(at, def); done {
		return result, err
	}
	result, err := s.update(ctx, rd, at, def)
	c.shrink()
	return result, err
}

// A state is what a Reader of read transactions shows.
type state struct {
	base, over version
	schema     uint64 // generation of the base's schema
}

// writes reports whether what the Reader shows may change under it, so that no
// state names it.
func (r *Reader) writes() bool {
	return r.base.Writable() || r.journal != nil && r.journal.Writable()
}

func (r *Reader) state() state {
	at := state{base: r.base.version(), schema: r.base.generation}
	if r.journal != nil {
		at.over = r.journal.version()
	}
	return at
}

// between returns the records that may differ between two states; ok is false if
// that is not known, or they have not the same schema.
func (a state) between(b state) (changes []change, ok bool) {
	base, ok := a.base.between(b.base)
	if !ok || a.schema != b.schema {
		return nil, false
	}
	over, ok := a.over.between(b.over)
	return append(base, over...), ok
}

func (c *Columns) set(e crm.EntityID) *columnSet {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sets[e]
	if s == nil {
		s = &columnSet{owner: c}
		c.sets[e] = s
	}
	return s
}

// shrink drops the sets used least recently until the limit is kept.
func (c *Columns) shrink() {
	for s := c.surplus(); s != nil; s = c.surplus() {
		s.drop()
	}
}

// surplus returns the set to be dropped next, nil if the limit is kept.
func (c *Columns) surplus() *columnSet {
	c.mu.Lock()
	defer c.mu.Unlock()
	var oldest *columnSet
	sum := int64(0)
	for _, s := range c.sets {
		n := s.bytes.Load()
		sum += n
		if n > 0 && (oldest == nil || s.used.Load() < oldest.used.Load()) {
			oldest = s
		}
	}
	if sum <= c.limit {
		return nil
	}
	return oldest
}

// A columnSet holds the columns of the reports about one entity, those of the
// entities its links lead to among them.
//
// Lock order: file.swap of both files, held shared by the Reader, then
// columnSet.mu, then Columns.mu and changeLog.mu.
type columnSet struct {
	owner *Columns
	used  atomic.Int64 // Columns.runs of the last run
	bytes atomic.Int64 // held: size, or 0 without tables

	mu       sync.RWMutex   // protects the rest; runs hold it shared
	tables   *report.Tables // nil: none
	at       state          // of tables
	needs    map[need]bool  // what tables have columns for
	entities map[crm.EntityID]bool
	size     int64 // of tables, as last measured
	unsized  int   // records put since then
}

// A need is a report.Need of any schema of one generation.
type need struct {
	entity crm.EntityID
	field  crm.FieldID // 0: only which records there are
	part   string
}

func needOf(n report.Need) need {
	if n.Field == nil {
		return need{entity: n.Entity.ID}
	}
	return need{n.Entity.ID, n.Field.ID, n.Part}
}

// sizeEvery is how many records are put between two measurements of a set.
const sizeEvery = 4096

// run computes the report if the set is ready for it, together with others.
func (s *columnSet) run(at state, def *report.Report) (result *report.Result, done bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.tables == nil || s.at != at || !s.has(def.Needs()) {
		return nil, false, nil
	}
	result, err = s.tables.Run(def)
	return result, true, err
}

func (s *columnSet) has(needs []report.Need) bool {
	for _, n := range needs {
		if !s.needs[needOf(n)] {
			return false
		}
	}
	return true
}

// update brings the set to the state of the Reader and computes the report.
func (s *columnSet) update(ctx context.Context, rd *Reader, at state, def *report.Report) (*report.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	had := s.tables != nil
	if err := s.bring(ctx, rd, at, def); err != nil {
		return nil, err
	}
	if had && s.bytes.Load() > s.owner.limit {
		s.forget()
		if err := s.bring(ctx, rd, at, def); err != nil {
			return nil, err
		}
	}
	return s.tables.Run(def)
}

// bring makes the tables show the state of the Reader, with the columns that the
// report needs. While it works the set has no tables, so that an error, or a
// panic on a damaged page, leaves none that are half of one state.
func (s *columnSet) bring(ctx context.Context, rd *Reader, at state, def *report.Report) error {
	ts := s.tables
	changes, ok := s.at.between(at)
	s.forget()
	if ts == nil || !ok {
		ts, changes = report.NewTables(rd.Schema()), nil
		s.needs, s.entities = map[need]bool{}, map[crm.EntityID]bool{}
	}
	if err := s.reread(ctx, rd, ts, changes); err != nil {
		return err
	}
	if err := s.extend(ctx, rd, ts, def.Needs()); err != nil {
		return err
	}
	s.tables, s.at = ts, at
	if s.unsized >= sizeEvery {
		s.size = int64(ts.Bytes())
		s.unsized = 0
	}
	s.bytes.Store(s.size)
	return nil
}

// forget lets go of the tables.
func (s *columnSet) forget() {
	s.tables = nil
	s.bytes.Store(0)
}

func (s *columnSet) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
}

// reread puts the records that changed as the Reader shows them.
func (s *columnSet) reread(ctx context.Context, rd *Reader, ts *report.Tables, changes []change) error {
	done := map[RecordKey]bool{}
	for _, ch := range changes {
		k := ch.key
		if !s.entities[k.Entity] || done[k] {
			continue
		}
		done[k] = true
		if err := ctx.Err(); err != nil {
			return err
		}
		rec, err := rd.Record(k.Entity, k.ID)
		if err != nil {
			return err
		}
		if present(rec) == 0 {
			ts.Kill(k.Entity, k.ID)
			continue
		}
		ts.Put(k.Entity, k.ID, rec.Value)
	}
	s.unsized += len(done)
	s.owner.reads.Add(int64(len(done)))
	return nil
}

// extend adds the columns that are needed and fills them.
func (s *columnSet) extend(ctx context.Context, rd *Reader, ts *report.Tables, needs []report.Need) error {
	for _, e := range ts.Extend(needs) {
		s.entities[e.ID] = true
		s.unsized = sizeEvery
		s.owner.scans.Add(1)
		if err := rd.fill(ctx, ts, e); err != nil {
			return err
		}
	}
	for _, n := range needs {
		s.needs[needOf(n)] = true
	}
	return nil
}

// fill puts all live records of the entity.
func (r *Reader) fill(ctx context.Context, ts *report.Tables, e *crm.Entity) error {
	var raw crm.Raw
	get := raw.Value
	m := r.primary(e.ID, false, nil)
	for n := 0; m.next(); n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := r.readRaw(m, &raw); err != nil {
			return err
		}
		if raw.Deleted() {
			continue // by the overlay
		}
		ts.Put(e.ID, m.key.ID, get)
		if err := raw.Err(); err != nil {
			return r.unreadable(m.key, m.over, err)
		}
	}
	return nil
}

// readRaw makes raw read the record that a merge of primary has found.
func (r *Reader) readRaw(m *merge, raw *crm.Raw) error {
	body, err := unseal(r.base.recordKey(m.key), m.value)
	if err == nil {
		err = raw.Reset(m.key.Entity, m.key.ID, body)
	}
	if err == nil && raw.Deleted() && !m.over {
		err = errRow
	}
	if err != nil {
		return r.unreadable(m.key, m.over, err)
	}
	return nil
}
