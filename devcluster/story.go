package devcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
)

// A Row is one line of the story's table.
type Row struct {
	Step     int
	What     string
	Measured string
	Expected string
	Held     bool
}

// storyEdits is how many edits the branch makes while it is cut off.
const storyEdits = 200

// stepTime bounds one step of the story.
const stepTime = 5 * time.Minute

// Story lives through a day of a branch that loses its line, on a fresh cluster
// of at least 3 masters and 3 branches, and writes the table of what it measured
// to w, line by line. The error says how many lines did not hold, or what ended
// the story early.
func Story(ctx context.Context, c *Cluster, w io.Writer) error {
	fmt.Fprintf(w, storyLine, "", "WHAT", "MEASURED", "EXPECTED", "")
	rows, err := TellStory(ctx, c, func(r Row) { printRow(w, r) })
	broken := slices.DeleteFunc(rows, func(r Row) bool { return r.Held })
	switch {
	case err != nil:
		return fmt.Errorf("story: %w", err)
	case len(broken) > 0:
		return &crm.Error{Code: crm.CodeInternal, Op: "story", Message: fmt.Sprintf("%d of its lines did not hold, the first: %s", len(broken), broken[0].What)}
	}
	fmt.Fprintln(w, "\nEvery line held: nothing acknowledged was lost, nothing overwritten was silent, and every node proved it.")
	return nil
}

const storyLine = "%2s  %-53s  %-44s  %-44s  %s\n"

func printRow(w io.Writer, r Row) {
	held := "held"
	if !r.Held {
		held = "BROKEN"
	}
	fmt.Fprintf(w, storyLine, fmt.Sprint(r.Step), r.What, r.Measured, r.Expected, held)
}

// TellStory is Story with its rows given to tell, in order, and returned.
func TellStory(ctx context.Context, c *Cluster, tell func(Row)) ([]Row, error) {
	branches := c.Branches()
	if len(branches) < 3 || len(c.Masters()) < 3 {
		return nil, badOption("story", "it needs 3 masters and 3 branches")
	}
	s := &story{c: c, tell: tell, out: branches[0], second: branches[1], third: branches[2], desks: map[string]*Desk{}}
	defer s.close()
	steps := []func(context.Context) error{s.prepare, s.reads, s.cut, s.edits, s.offline, s.crash, s.killLeader, s.heal, s.drain}
	for i, step := range steps {
		s.step = i
		if err := s.take(ctx, step); err != nil {
			return s.rows, fmt.Errorf("step %d: %w", i, err)
		}
	}
	return s.rows, nil
}

// A story is what its steps tell each other.
type story struct {
	c                  *Cluster
	tell               func(Row)
	step               int
	rows               []Row
	out, second, third *Member // the branch that is cut off, and two that are not
	killed             *Member // the master that led
	desks              map[string]*Desk

	product, shared, doomed, deal, mine string // record ids
	seqs                                []crm.Seq
	tally                               tally
}

// A tally is what the cut-off branch must find of its own edits.
type tally struct {
	notes, lines int
	cents        int64 // Σ quantity × unit price of the lines
}

func (s *story) take(ctx context.Context, step func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	return step(ctx)
}

func (s *story) close() {
	for _, d := range s.desks {
		d.Close()
	}
}

func (s *story) row(held bool, what, measured, expected string) {
	r := Row{Step: s.step, What: what, Measured: measured, Expected: expected, Held: held}
	s.rows = append(s.rows, r)
	s.tell(r)
}

// client is how somebody in at's city uses the node to.
func (s *story) client(at, to *Member) (*httpapi.Client, error) {
	if s.desks[at.Name] == nil {
		s.desks[at.Name] = s.c.Desk(at)
	}
	return s.desks[at.Name].To(to)
}

// own is how somebody uses the node of their own city.
func (s *story) own(m *Member) (*httpapi.Client, error) { return s.client(m, m) }

// office is how head office works: at the master that leads.
func (s *story) office(ctx context.Context) (*httpapi.Client, error) {
	m, err := s.c.Leader(ctx)
	if err != nil {
		return nil, err
	}
	return s.own(m)
}

// decided is how long head office waits for an edit of its own.
const decided = httpapi.Wait(20 * time.Second)

// prepare makes the records that people will meet on: key accounts, which every
// branch holds.
func (s *story) prepare(ctx context.Context) error {
	office, err := s.office(ctx)
	if err != nil {
		return err
	}
	make := func(into *string, entity string, fields httpapi.Fields) {
		if err != nil {
			return
		}
		var made httpapi.Edited
		if made, err = office.Create(ctx, entity, fields, decided); err == nil && made.Item != nil {
			*into = made.Item.ID
		}
	}
	make(&s.product, "product", httpapi.Fields{"code": "STORY-1", "name": "Brass sextant", "unit_price": euros(priceCents)})
	make(&s.shared, "account", httpapi.Fields{"name": "Meridian Instruments", "territory": KeyAccounts, "phone": "+44 20 7946 0100"})
	make(&s.doomed, "account", httpapi.Fields{"name": "Old Quay Traders", "territory": KeyAccounts})
	make(&s.deal, "opportunity", httpapi.Fields{"name": "Meridian rollout", "account": s.shared, "stage": "Negotiation/Review"})
	if err != nil {
		return err
	}
	return s.calm(ctx)
}

// calm waits until every node that is up stands at the head with nothing pending.
func (s *story) calm(ctx context.Context) error {
	return s.c.await(ctx, "the branches to catch up", func() error {
		_, err := s.c.rest(ctx)
		return err
	})
}

const priceCents = 12_50

func euros(cents int64) map[string]string {
	return map[string]string{"amount": crm.DecimalValue(cents, 2, "").String(), "currency": "EUR"}
}

// cut is step 2.
func (s *story) cut(ctx context.Context) error {
	if err := s.c.Cut(s.out.Name); err != nil {
		return err
	}
	client, err := s.own(s.out)
	if err != nil {
		return err
	}
	soon, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_, _, err = client.Get(soon, "account", s.shared, httpapi.Asked{Demand: crm.Demand{Level: crm.Leader}})
	s.row(err != nil, s.out.Name+" is cut off: head office is out of reach", outcomeOf(err, "no answer from head office"), "no answer from head office")
	start := time.Now()
	_, _, err = client.Get(ctx, "account", s.shared, httpapi.Asked{})
	s.row(err == nil, s.out.Name+" reads a record all the same", outcomeOf(err, "")+ms(time.Since(start)), "an answer from its own disk")
	return nil
}

// outcomeOf words an error or, without one, nothing.
func outcomeOf(err error, word string) string {
	switch {
	case err != nil && word != "":
		return word
	case err != nil:
		return err.Error()
	case word != "":
		return "it answered"
	}
	return ""
}

// crash is step 5.
func (s *story) crash(ctx context.Context) error {
	if err := s.out.Crash(); err != nil {
		return err
	}
	start := time.Now()
	if err := s.c.launch(ctx, s.out); err != nil {
		return err
	}
	took := time.Since(start)
	client, err := s.own(s.out)
	if err != nil {
		return err
	}
	waiting, err := client.Outbox(ctx)
	if err != nil {
		return err
	}
	s.row(len(waiting) == len(s.seqs) && sameSeqs(waiting, s.seqs), s.out.Name+" crashes, starts again, and has every edit",
		fmt.Sprintf("%d edits, serving after %s", len(waiting), ms(took)), fmt.Sprintf("%d edits, still cut off", len(s.seqs)))
	return s.figures(ctx, "after the crash")
}

func sameSeqs(waiting []httpapi.OutboxEntry, seqs []crm.Seq) bool {
	return slices.EqualFunc(waiting, seqs, func(e httpapi.OutboxEntry, q crm.Seq) bool { return e.Seq == q })
}

// killLeader is step 6.
func (s *story) killLeader(ctx context.Context) (err error) {
	if s.killed, err = s.c.Leader(ctx); err != nil {
		return err
	}
	start := time.Now()
	killed := make(chan error, 1)
	go func() { killed <- s.killed.Crash() }() // which also waits for what is left of it
	err = s.c.await(ctx, "another master to lead", func() error {
		if m := s.c.leader(); m == nil || m == s.killed {
			return errNoLeader
		}
		return nil
	})
	took := time.Since(start)
	if err := errors.Join(err, <-killed); err != nil {
		return err
	}
	s.row(!s.killed.Up(), "the Raft leader is killed; another master leads", "after "+ms(took), "another master, by itself")
	client, err := s.own(s.second)
	if err != nil {
		return err
	}
	start = time.Now()
	_, err = client.Patch(ctx, "account", s.shared, "", httpapi.Fields{"industry": "Optics"}, httpapi.Wait(30*time.Second))
	s.row(err == nil, s.second.Name+" has an edit decided by the new leader", outcomeOf(err, "")+"after "+ms(time.Since(start)), "decided")
	return nil
}

// heal is step 7. The killed master comes back as well.
func (s *story) heal(ctx context.Context) error {
	if err := s.c.launch(ctx, s.killed); err != nil {
		return err
	}
	start := time.Now()
	if err := s.c.Heal(""); err != nil {
		return err
	}
	api, err := s.out.API()
	if err != nil {
		return err
	}
	err = s.c.await(ctx, s.out.Name+" to hear from head office", func() error {
		f, err := position(ctx, s.out, crm.Local)
		if err == nil && !f.Connected {
			return fmt.Errorf("%s is not connected", s.out.Name)
		}
		return err
	})
	if err != nil {
		return err
	}
	s.row(true, "the line is mended; "+s.out.Name+" hears from head office", "after "+ms(time.Since(start)), "by itself")
	_, err = api.Await(ctx, s.seqs[len(s.seqs)-1])
	return err
}

// ms writes a duration as people compare them.
func ms(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%.0f ms", millis(d))
	}
	return fmt.Sprintf("%.2f ms", millis(d))
}

func raw(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic("devcluster: a value of the story does not encode: " + err.Error())
	}
	return b
}
