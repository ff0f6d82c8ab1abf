package main

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"sync"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/master"
)

const (
	fillers  = 8        // requests under way while a cluster is filled
	fillSize = 48 << 10 // bytes of values in one request
)

// fill has items decided, many in one request. Items of one entity do not
// depend on each other, so they go together; the next entity waits for them.
func fill(ctx context.Context, m *master.Master, items iter.Seq[item]) (int, error) {
	f := &filling{ctx: ctx, m: m, slots: make(chan struct{}, fillers)}
	for it := range items {
		if it.entity != f.entity {
			f.flush()
			f.wg.Wait()
			f.entity = it.entity
		}
		if f.add(it); f.failed() != nil {
			break
		}
	}
	f.flush()
	f.wg.Wait()
	return f.records, f.failed()
}

type filling struct {
	ctx     context.Context
	m       *master.Master
	entity  crm.EntityID
	ops     []crm.Op
	bytes   int
	records int
	slots   chan struct{}
	wg      sync.WaitGroup

	mu  sync.Mutex // protects err
	err error
}

func (f *filling) failed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

func (f *filling) add(it item) {
	f.ops = append(f.ops, crm.Op{Kind: crm.OpCreate, Entity: it.entity, Record: it.id, Cells: it.cells})
	f.bytes += 32
	for _, c := range it.cells {
		f.bytes += len(crm.AppendValue(nil, c.Value)) + 4
	}
	if f.records++; f.bytes >= fillSize {
		f.flush()
	}
}

func (f *filling) flush() {
	if len(f.ops) == 0 {
		return
	}
	req := crm.Request{Actor: "bench", Intent: "import", Ops: f.ops}
	f.ops, f.bytes = nil, 0
	f.slots <- struct{}{}
	f.wg.Go(func() {
		defer func() { <-f.slots }()
		if _, err := commit(f.ctx, f.m, req); err != nil {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.err = cmp.Or(f.err, fmt.Errorf("fill: %w", err)) // the first says why the others failed
		}
	})
}

// few are the records that activities refer to: sellers, the big accounts and
// their contacts. With home they live in head office's territory and need no other.
func (d *data) few(home bool) iter.Seq[item] {
	return func(yield func(item) bool) {
		for it := range d.items(stock()) {
			if it.entity == catalog.Product {
				continue
			}
			if home && it.entity == catalog.Account {
				it.cells = without(it.cells, territoryField)
			}
			if it.entity > catalog.Contact && it.entity != catalog.User || !yield(it) {
				return
			}
		}
	}
}

// territoryField is the field of an account that says where it lives.
const territoryField crm.FieldID = 35

func without(cells []crm.Input, f crm.FieldID) (out []crm.Input) {
	for _, c := range cells {
		if c.Field != f {
			out = append(out, c)
		}
	}
	return out
}
