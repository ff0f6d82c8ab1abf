package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/crm/query"
	"github.com/tradepost-crm/tradepost/store"
)

const (
	opPoint     = "point read by id, in process, a view each"
	opPointView = "point read by id, in process, within one view"
	opPlace     = "list of 50 of 100 k accounts: industry and region, by name; index covers it"
	opSize      = "list of 50 of 100 k accounts: region and size, by name; size is no part of an index"
	opList      = "list of 50 contacts of an account by last, first name"
	opPage      = "record page: account, 20 newest activities with contact, open orders"
)

// points reads contacts by id.
func (k *desk) points(ctx context.Context) error {
	theirs := func(ctx context.Context, p peer, client int) error {
		n, err := p.query(ctx, client, pointSQL, nil, 1+rand.IntN(k.size.contacts))
		return expect(n, 1, err)
	}
	mine := func(ctx context.Context, _ int) error {
		return k.read(ctx, func(r *store.Reader) error { return k.point(r) })
	}
	if err := k.contest(ctx, opPoint, 1, within(5*time.Microsecond), k.sides(mine, theirs)...); err != nil || !k.wants(opPointView) {
		return err
	}
	return k.read(ctx, func(r *store.Reader) error {
		open := func(context.Context, int) error { return k.point(r) }
		return k.contest(ctx, opPointView, 1, within(5*time.Microsecond), k.sides(open, theirs)...)
	})
}

func (k *desk) point(r *store.Reader) error {
	rec, err := r.Record(catalog.Contact, recordID(catalog.Contact, 1+rand.IntN(k.size.contacts)))
	if err == nil && rec == nil {
		err = fmt.Errorf("a contact is missing")
	}
	return err
}

// expect refuses a wrong number of rows.
func expect(n, want int, err error) error {
	if err == nil && n != want {
		err = fmt.Errorf("%d rows, want %d", n, want)
	}
	return err
}

// lists measures lists of 50. Filters are parsed every time, as the API does.
func (k *desk) lists(ctx context.Context) error {
	want := within(60 * time.Microsecond)
	ours := func(entity, sort string, filter func() string) func(context.Context, int) error {
		return func(ctx context.Context, _ int) error {
			return k.read(ctx, func(r *store.Reader) error {
				_, err := list(r, entity, filter(), sort, 50)
				return err
			})
		}
	}
	byPlace := ours("account", "name", func() string {
		return fmt.Sprintf("industry == %q && territory == %q", industries[rand.IntN(len(industries))], territory(rand.IntN(len(regions))))
	})
	err := k.contest(ctx, opPlace, 1, want, k.sides(byPlace, func(ctx context.Context, p peer, client int) error {
		_, err := p.query(ctx, client, placeSQL, nil, industries[rand.IntN(len(industries))], regions[rand.IntN(len(regions))])
		return err
	})...)
	if err != nil {
		return err
	}
	bySize := ours("account", "name", func() string {
		return fmt.Sprintf("territory == %q && number_of_employees > 10000", territory(rand.IntN(len(regions))))
	})
	err = k.contest(ctx, opSize, 1, want, k.sides(bySize, func(ctx context.Context, p peer, client int) error {
		_, err := p.query(ctx, client, sizeSQL, nil, regions[rand.IntN(len(regions))], 10000)
		return err
	})...)
	if err != nil {
		return err
	}
	contacts := ours("contact", "last_name,first_name", func() string {
		return fmt.Sprintf("account == %q", recordID(catalog.Account, k.bigAccount()))
	})
	return k.contest(ctx, opList, 1, want, k.sides(contacts, func(ctx context.Context, p peer, client int) error {
		_, err := p.query(ctx, client, listSQL, nil, k.bigAccount())
		return err
	})...)
}

func list(r *store.Reader, entity, filter, sort string, limit int) ([]*crm.Record, error) {
	s := r.Schema()
	q := query.List{Entity: s.Entity(entity), Limit: limit}
	var err error
	if q.Where, err = query.Parse(s, q.Entity, filter); err != nil {
		return nil, err
	}
	if q.Sort, err = query.ParseSort(q.Entity, sort); err != nil {
		return nil, err
	}
	page, err := r.List(q)
	return page.Records, err
}

// pages measures what a user opens most.
func (k *desk) pages(ctx context.Context) error {
	mine := func(ctx context.Context, _ int) error {
		return k.read(ctx, func(r *store.Reader) error { return page(r, recordID(catalog.Account, k.bigAccount())) })
	}
	return k.contest(ctx, opPage, 1, within(200*time.Microsecond), k.sides(mine, func(ctx context.Context, p peer, client int) error {
		id := k.bigAccount()
		if n, err := p.query(ctx, client, accountSQL, nil, id); err != nil || n != 1 {
			return expect(n, 1, err)
		}
		if _, err := p.query(ctx, client, timelineSQL, nil, id); err != nil {
			return err
		}
		_, err := p.query(ctx, client, openSQL, nil, id)
		return err
	})...)
}

func page(r *store.Reader, id crm.RecordID) error {
	account, err := r.Record(catalog.Account, id)
	if err != nil || account == nil {
		return fmt.Errorf("account %s: %w", id, err)
	}
	ofAccount := fmt.Sprintf("account == %q", id)
	timeline, err := list(r, "activity", ofAccount, "-at", 20)
	if err != nil {
		return err
	}
	contact := r.Schema().Entity("activity").Field("contact").ID
	for _, a := range timeline {
		if to := a.Value(contact); !to.IsNull() {
			if _, err := r.Record(catalog.Contact, to.Link()); err != nil {
				return err
			}
		}
	}
	_, err = list(r, "order", ofAccount+` && status in ["open", "confirmed"]`, "-order_date", 50)
	return err
}
