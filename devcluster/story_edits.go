package devcluster

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
)

// What the story's people write.
const (
	phoneHere    = "+81 3 5555 0101" // by the branch; loses
	phoneOffice  = "+44 20 7946 0199"
	website      = "https://meridian.example"
	descOffice   = "Framework contract signed"
	rareWord     = "quillfeather"
	storyRegion  = "Storyland"
	stageOffice  = "Closed Won"
	stageHere    = "Closed Lost"
	noteInstant  = "2026-01-31T09:00:00Z"
	orderDay     = "2026-01-31"
	linesOfFirst = 3
)

// edits is step 3: the branch edits, and meanwhile head office and another branch
// touch the same records.
func (s *story) edits(ctx context.Context) error {
	client, err := s.own(s.out)
	if err != nil {
		return err
	}
	w := &clerk{s: s, c: client}
	w.patch(ctx, "account", s.shared, httpapi.Fields{"phone": phoneHere})
	w.patch(ctx, "account", s.shared, httpapi.Fields{"website": website})
	w.order(ctx, s.shared, linesOfFirst)
	w.note(ctx, s.shared)
	w.patch(ctx, "opportunity", s.deal, httpapi.Fields{"stage": stageHere})
	w.delete(ctx, "account", s.doomed)
	s.mine = w.create(ctx, "account", httpapi.Fields{"name": "Harbour Lane Optics"})
	for i := 0; w.err == nil && len(s.seqs) < storyEdits; i++ {
		switch i % 3 {
		case 0:
			w.note(ctx, s.mine)
		case 1:
			w.order(ctx, s.mine, 1)
		case 2:
			w.patch(ctx, "account", s.mine, httpapi.Fields{"description": fmt.Sprintf("Visited %d times", i)})
		}
	}
	if w.err != nil {
		return fmt.Errorf("edit %d at %s: %w", len(s.seqs)+1, s.out.Name, w.err)
	}
	s.row(len(s.seqs) == storyEdits, fmt.Sprintf("%s makes %d edits while cut off", s.out.Name, storyEdits),
		fmt.Sprintf("%d saved here, p50 %s", len(s.seqs), ms(median(w.took))), "each saved on its own disk")
	return s.elsewhere(ctx)
}

// elsewhere is what the others do meanwhile.
func (s *story) elsewhere(ctx context.Context) error {
	office, err := s.office(ctx)
	if err != nil {
		return err
	}
	if _, err := office.Patch(ctx, "account", s.shared, "", httpapi.Fields{"phone": phoneOffice, "description": descOffice}, decided); err != nil {
		return err
	}
	if _, err := office.Patch(ctx, "opportunity", s.deal, "", httpapi.Fields{"stage": stageOffice}, decided); err != nil {
		return err
	}
	second, err := s.own(s.second)
	if err != nil {
		return err
	}
	got, err := second.Patch(ctx, "account", s.doomed, "", httpapi.Fields{"description": "Wants to order again"}, decided)
	s.row(err == nil && got.Saved == "everywhere", "head office and "+s.second.Name+" edit the same records meanwhile", "decided", "decided without "+s.out.Name)
	return err
}

// A clerk makes edits one after the other until one fails, and counts them.
type clerk struct {
	s    *story
	c    *httpapi.Client
	took []time.Duration
	err  error
}

// saved counts an edit that was asked for at start. Everything else than "saved
// here" is a failure: nobody can have decided it.
func (w *clerk) saved(start time.Time, got httpapi.Written, err error) bool {
	switch {
	case w.err != nil:
	case err != nil:
		w.err = err
	case got.Saved != "here":
		w.err = fmt.Errorf("edit %d is saved %s", got.Seq, got.Saved)
	default:
		w.took = append(w.took, time.Since(start))
		w.s.seqs = append(w.s.seqs, got.Seq)
	}
	return w.err == nil
}

func (w *clerk) patch(ctx context.Context, entity, id string, fields httpapi.Fields) {
	if w.err != nil {
		return
	}
	start := time.Now()
	got, err := w.c.Patch(ctx, entity, id, "", fields, 0)
	w.saved(start, got.Written, err)
}

func (w *clerk) delete(ctx context.Context, entity, id string) {
	if w.err != nil {
		return
	}
	start := time.Now()
	got, err := w.c.Delete(ctx, entity, id, "", 0)
	w.saved(start, got.Written, err)
}

func (w *clerk) create(ctx context.Context, entity string, fields httpapi.Fields) (id string) {
	if w.err != nil {
		return ""
	}
	start := time.Now()
	got, err := w.c.Create(ctx, entity, fields, 0)
	if !w.saved(start, got.Written, err) || got.Item == nil {
		return ""
	}
	return got.Item.ID
}

func (w *clerk) note(ctx context.Context, account string) {
	w.s.tally.notes++
	w.create(ctx, "activity", httpapi.Fields{"kind": "note", "subject": fmt.Sprintf("%s call %d", rareWord, w.s.tally.notes), "at": noteInstant, "account": account})
}

// order makes an order with its lines in one Mutation.
func (w *clerk) order(ctx context.Context, account string, lines int) {
	if w.err != nil {
		return
	}
	order := w.s.c.newID().String()
	ops := []crm.OpText{{Op: "create", Entity: "order", Record: order, Fields: map[string]json.RawMessage{
		"account": raw(account), "order_date": raw(orderDay), "region": raw(storyRegion),
	}}}
	for i := range lines {
		ops = append(ops, crm.OpText{Op: "create", Entity: "order_line", Record: w.s.c.newID().String(), Fields: map[string]json.RawMessage{
			"order": raw(order), "product": raw(w.s.product), "line_number": raw(i + 1), "quantity": raw(i + 2), "unit_price": raw(euros(priceCents)),
		}})
		w.s.tally.lines++
		w.s.tally.cents += int64(i+2) * priceCents
	}
	start := time.Now()
	got, err := w.c.Mutate(ctx, httpapi.MutationText{Intent: "order.create", Ops: ops}, 0)
	w.saved(start, got.Written, err)
}

// offline is step 4.
func (s *story) offline(ctx context.Context) error { return s.figures(ctx, "while cut off") }

// figures compares what the branch shows with what its people did.
func (s *story) figures(ctx context.Context, when string) error {
	client, err := s.own(s.out)
	if err != nil {
		return err
	}
	page, f, err := client.Page(ctx, "activity", httpapi.Query{Filter: fmt.Sprintf(`subject.startsWith("%s")`, rareWord), Limit: 500})
	if err != nil {
		return err
	}
	hits, err := client.Search(ctx, rareWord, []string{"activity"}, 100)
	if err != nil {
		return err
	}
	report, _, err := client.Report(ctx, httpapi.Summary{
		Entity: "order_line", Measure: "count as lines, sum(quantity*unit_price) as revenue",
		Filter: fmt.Sprintf("order.region == %q", storyRegion),
	})
	if err != nil {
		return err
	}
	t := s.tally
	s.row(len(page.Items) == t.notes, s.out.Name+" lists its notes "+when, fmt.Sprintf("%d, %d edits pending", len(page.Items), f.Pending), fmt.Sprint(t.notes))
	s.row(len(hits) == t.notes, s.out.Name+" finds its notes "+when, fmt.Sprint(len(hits)), fmt.Sprint(t.notes))
	got := cell(report, "lines") + " lines, " + cell(report, "revenue") + " EUR"
	want := fmt.Sprintf("%d lines, %s EUR", t.lines, crm.DecimalValue(t.cents, 2, "").String())
	s.row(got == want, s.out.Name+" reports its revenue "+when, got, want)
	return nil
}

// cell returns a figure of a report's only row, without its currency and
// without zeros at the end of its decimals beyond two.
func cell(r httpapi.ReportText, column string) string {
	for i, c := range r.Columns {
		if c.Name == column && len(r.Rows) == 1 {
			return figure(r.Rows[0][i])
		}
	}
	return fmt.Sprintf("%d rows", len(r.Rows))
}

func figure(v json.RawMessage) string {
	var money struct{ Amount string }
	if json.Unmarshal(v, &money) == nil && money.Amount != "" {
		return money.Amount
	}
	var text string
	if json.Unmarshal(v, &text) == nil {
		return text
	}
	return string(v)
}
