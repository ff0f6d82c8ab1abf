package main

import (
	"context"
	"crypto/rand"
	"sync/atomic"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
)

const opCommit = "local durable write of an activity of 250 B"

const body120 = "customer asked for renewal pricing and a delivery date, follow up on site visit next week, legal review still waiting x"

// commits writes activities, each durable before the next of its client.
func (k *desk) commits(ctx context.Context) error {
	if !k.wants(opCommit) {
		return nil
	}
	mine := func(ctx context.Context, _ int) error {
		_, err := k.branch.Commit(ctx, newActivity(k.bigAccount(), body120))
		return err
	}
	var last atomic.Int64
	last.Store(10_000_000)
	theirs := func(ctx context.Context, p peer, client int) error {
		return p.exec(ctx, client, insertSQL, last.Add(1), k.bigAccount(), 17, 4711, "call", "quarterly renewal pricing question", body120, 1, "2026-01-31T10:00:00Z", 0)
	}
	want := budget{"≥ PostgreSQL's rate", func(r result) bool { return r.figures[ours].rate >= r.figures[postgres].rate }}
	for _, clients := range []int{1, 16, 64} {
		if err := k.contest(ctx, opCommit, clients, want, k.sides(mine, theirs)...); err != nil {
			return err
		}
	}
	k.note("the branch's outbox held %d edits at the end of the local writes, no master having decided any", k.branch.Status().Outbox.Entries)
	return nil
}

// newActivity asks for an activity of an account of the data set. All but body
// takes about 130 B.
func newActivity(account int, body string) crm.Request {
	return crm.Request{Actor: "bench", Intent: "activity.create", Ops: []crm.Op{{Kind: crm.OpCreate, Entity: catalog.Activity,
		Record: crm.NewRecordID(time.Now(), rand.Reader), Cells: []crm.Input{
			{Field: 17, Value: crm.LinkValue(recordID(catalog.User, 1))}, {Field: 18, Value: crm.ChoiceValue("call")},
			{Field: 19, Value: crm.TextValue("quarterly renewal pricing question")}, {Field: 20, Value: crm.TextValue(body)},
			{Field: 21, Value: crm.InstantMillis(1_769_853_600_000)}, {Field: 22, Value: crm.LinkValue(recordID(catalog.Account, account))},
			{Field: 23, Value: crm.LinkValue(recordID(catalog.Contact, 1))}, {Field: 26, Value: crm.BoolValue(false)}}}}}
}
