package devcluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
)

// How often a read is repeated for a median.
const (
	readsHere  = 15
	readsThere = 5
)

// A read is something that people look at all day.
type read struct {
	what string
	do   func(context.Context, *httpapi.Client) error
}

func (s *story) kinds() []read {
	return []read{
		{"a record", func(ctx context.Context, c *httpapi.Client) error {
			_, _, err := c.Get(ctx, "account", s.shared, httpapi.Asked{})
			return err
		}},
		{"a list of 50", func(ctx context.Context, c *httpapi.Client) error {
			_, _, err := c.Page(ctx, "order", httpapi.Query{Filter: `status == "invoiced"`, Sort: "-order_date", Limit: 50})
			return err
		}},
		{"a search", func(ctx context.Context, c *httpapi.Client) error {
			_, err := c.Search(ctx, "meridian", nil, 20)
			return err
		}},
		{"a report", func(ctx context.Context, c *httpapi.Client) error {
			_, _, err := c.Report(ctx, httpapi.Summary{Entity: "order", Group: "status", Measure: "count"})
			return err
		}},
	}
}

// reads is step 1: each branch's people read at their own node, and then the same
// at the master that leads, over the WAN and over a connection that is open.
func (s *story) reads(ctx context.Context) error {
	leader, err := s.c.Leader(ctx)
	if err != nil {
		return err
	}
	branches := []*Member{s.out, s.second, s.third}
	there := make([][]time.Duration, len(branches))
	errs := make([]error, len(branches))
	var wg sync.WaitGroup
	for i, b := range branches {
		client, err := s.client(b, leader)
		if err != nil {
			return err
		}
		wg.Go(func() { there[i], errs[i] = s.medians(ctx, client, readsThere) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for i, b := range branches {
		if err := s.compareReads(ctx, b, leader, there[i]); err != nil {
			return err
		}
	}
	return s.visible(ctx, leader)
}

func (s *story) compareReads(ctx context.Context, b, leader *Member, there []time.Duration) error {
	client, err := s.own(b)
	if err != nil {
		return err
	}
	here, err := s.medians(ctx, client, readsHere)
	if err != nil {
		return err
	}
	for i, k := range s.kinds() {
		s.row(here[i] < there[i], fmt.Sprintf("%s reads %s", b.Name, k.what), "p50 "+ms(here[i]),
			fmt.Sprintf("less than at head office, %s away: %s", ms(s.c.net.Matrix().RTT(b.Place.Name, leader.Place.Name)), ms(there[i])))
	}
	return nil
}

// medians returns the median latency of each kind of read, after one that opens
// the connection.
func (s *story) medians(ctx context.Context, c *httpapi.Client, times int) ([]time.Duration, error) {
	var out []time.Duration
	for _, k := range s.kinds() {
		var took []time.Duration
		for i := range times + 1 {
			start := time.Now()
			if err := k.do(ctx, c); err != nil {
				return nil, fmt.Errorf("%s: %w", k.what, err)
			}
			if i > 0 {
				took = append(took, time.Since(start))
			}
		}
		out = append(out, median(took))
	}
	return out, nil
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// visible measures how long an edit of one branch takes to show at another.
func (s *story) visible(ctx context.Context, leader *Member) error {
	client, err := s.own(s.second)
	if err != nil {
		return err
	}
	id, err := crm.ParseRecordID(s.shared)
	if err != nil {
		return err
	}
	var took []time.Duration
	for i := range 5 {
		d, err := s.travel(ctx, client, id, fmt.Sprintf("Visit %d agreed", i+1))
		if err != nil {
			return err
		}
		took = append(took, d)
	}
	m := s.c.net.Matrix()
	budget := m.RTT(s.second.Place.Name, leader.Place.Name) + m.RTT(leader.Place.Name, s.third.Place.Name) + 20*time.Millisecond
	p50 := median(took)
	s.row(p50 <= budget, fmt.Sprintf("an edit at %s shows at %s", s.second.Name, s.third.Name), "p50 "+ms(p50), "within both round trips and 20 ms: "+ms(budget))
	return s.calm(ctx)
}

// travel returns the time from asking for an edit until the third branch shows it.
func (s *story) travel(ctx context.Context, client *httpapi.Client, id crm.RecordID, text string) (time.Duration, error) {
	api, err := s.third.API()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes := api.Subscribe(ctx)
	start := time.Now()
	if _, err := client.Patch(ctx, "account", s.shared, "", httpapi.Fields{"description": text}, 0); err != nil {
		return 0, err
	}
	for change := range changes {
		if change.Record == id && change.Rev != crm.Pending {
			return time.Since(start), nil
		}
	}
	return 0, fmt.Errorf("%s was not told of the edit: %w", s.third.Name, context.Cause(ctx))
}
