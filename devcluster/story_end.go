package devcluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
)

// drain is step 8.
func (s *story) drain(ctx context.Context) error {
	start := time.Now()
	if err := s.calm(ctx); err != nil {
		return err
	}
	s.row(true, "all outboxes are empty", "after "+ms(time.Since(start)), "nothing pending anywhere")
	for _, part := range []func(context.Context) error{s.equal, s.outcomes, s.fields, s.attention, s.restore, s.equal} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// equal compares every node with the leader.
func (s *story) equal(ctx context.Context) error {
	err := s.c.Settle(ctx)
	up := 0
	for _, m := range s.c.Members() {
		if m.Up() {
			up++
		}
	}
	s.row(err == nil && up == len(s.c.Members()), "every territory is equal at every node that holds it", fmt.Sprintf("%d nodes%s", up, outcomeOf(err, "")), fmt.Sprintf("%d nodes", len(s.c.Members())))
	return nil
}

// outcomes asks for the verdict on each edit of the cut-off branch.
func (s *story) outcomes(ctx context.Context) error {
	api, err := s.out.API()
	if err != nil {
		return err
	}
	count := map[crm.OutcomeKind]int{}
	for _, seq := range s.seqs {
		o, err := api.Await(ctx, seq)
		if err != nil {
			return fmt.Errorf("outcome of edit %d: %w", seq, err)
		}
		count[o.Kind]++
	}
	got := fmt.Sprintf("%d accepted, %d merged, %d parked, %d rejected", count[crm.Accepted], count[crm.Merged], count[crm.Parked], count[crm.Rejected])
	want := fmt.Sprintf("%d accepted, 1 merged, 2 parked, 0 rejected", storyEdits-3)
	s.row(got == want, fmt.Sprintf("each of the %d edits has its outcome", storyEdits), got, want)
	return nil
}

// show returns a field of the record as each node shows it; one word if all
// agree. Masters show what they decided.
func (s *story) show(ctx context.Context, entity, id, field string) (string, error) {
	var seen []string
	for _, m := range s.c.Members() {
		client, err := s.own(m)
		if err != nil {
			return "", err
		}
		it, _, err := client.Get(ctx, entity, id, httpapi.Asked{})
		text := it.Text(field)
		if crm.CodeOf(err) == crm.CodeDeleted {
			text, err = "deleted", nil
		}
		if err != nil {
			return "", fmt.Errorf("%s at %s: %w", entity, m.Name, err)
		}
		if len(seen) == 0 || seen[len(seen)-1] != text {
			seen = append(seen, text)
		}
	}
	return strings.Join(seen, " | "), nil
}

// fields checks what stands at every node.
func (s *story) fields(ctx context.Context) error {
	for _, want := range []struct{ what, entity, id, field, value string }{
		{"the branch's field of the shared record survived", "account", s.shared, "website", website},
		{"head office's other field of it survived", "account", s.shared, "description", descOffice},
		{"of the two phone numbers the later one stands", "account", s.shared, "phone", phoneOffice},
		{"the stage is head office's", "opportunity", s.deal, "stage", stageOffice},
		{"the deletion stands", "account", s.doomed, "name", "deleted"},
	} {
		got, err := s.show(ctx, want.entity, want.id, want.field)
		if err != nil {
			return err
		}
		s.row(got == want.value, want.what, got, want.value+" everywhere")
	}
	return nil
}

// attention checks that what did not stand is on the attention list.
func (s *story) attention(ctx context.Context) error {
	for _, want := range []struct{ what, record, kind, field, kept, lost string }{
		{"the losing phone number is on the attention list", s.shared, "conflict", "phone", phoneOffice, phoneHere},
		{"the impossible stage move is there too", s.deal, "parked", "stage", stageOffice, stageHere},
		{"and so is the deletion that met an edit", s.doomed, "parked", "", "", ""},
	} {
		a, err := s.item(ctx, want.record, want.kind, "open")
		if err != nil {
			return err
		}
		held := a.Field == want.field && side(a.Kept) == want.kept && side(a.Lost) == want.lost
		measured, expected := "with the way back", "with the way back"
		if want.field != "" {
			measured, expected = side(a.Kept)+" / "+side(a.Lost), want.kept+" / "+want.lost
		}
		s.row(held && len(a.Takes) > 0, want.what, measured, expected)
	}
	return nil
}

// item returns the only item of the record and kind at the cut-off branch.
func (s *story) item(ctx context.Context, record, kind, status string) (httpapi.Attention, error) {
	client, err := s.own(s.out)
	if err != nil {
		return httpapi.Attention{}, err
	}
	list, err := client.Attention(ctx, httpapi.Watch{Record: record, Kind: kind, Status: status})
	if err != nil {
		return httpapi.Attention{}, err
	}
	if len(list.Items) != 1 {
		return httpapi.Attention{}, fmt.Errorf("the attention list has %d %s items of kind %s about %s, and 1 was expected", len(list.Items), status, kind, record)
	}
	return list.Items[0], nil
}

func side(s *crm.Side) string {
	if s == nil {
		return ""
	}
	return figure(s.Value)
}

// restore takes the losing value back at the branch that wrote it.
func (s *story) restore(ctx context.Context) error {
	a, err := s.item(ctx, s.shared, "conflict", "open")
	if err != nil {
		return err
	}
	client, err := s.own(s.out)
	if err != nil {
		return err
	}
	start := time.Now()
	if _, err := client.Resolve(ctx, a.ID, "lost", decided); err != nil {
		return err
	}
	if err := s.calm(ctx); err != nil {
		return err
	}
	took := time.Since(start)
	got, err := s.show(ctx, "account", s.shared, "phone")
	if err != nil {
		return err
	}
	s.row(got == phoneHere, "resolving the conflict brings it back", got+" after "+ms(took), phoneHere+" everywhere")
	a, err = s.item(ctx, s.shared, "conflict", "resolved")
	s.row(err == nil, "and closes the item", a.Status, "resolved")
	return nil
}
