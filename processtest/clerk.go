package processtest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
)

// contactsEach is how many contacts a clerk's edits go to in turn.
const contactsEach = 8

// A Clerk makes one edit after the other at a post and knows of each whether it
// was taken: by the answer or, where a kill took the answer away, by what the
// node shows in its next life.
//
// A branch shows after a restart what its journal holds, and the requests of a
// dead process cannot come back. A master's edit may still be on its way to the
// leader, but a master numbers its edits under an incarnation that it gets anew
// after a restart or a lost answer, and everything before that is refused from
// then on. So a clerk of head office makes one edit that may be made twice, the
// fence, before looking. It adds nothing to a counter: a field that is set would
// be in conflict with a fence of the life before that the restarted master has not
// heard of yet.
type Clerk struct {
	tally    *Tally
	post     *Post
	client   *httpapi.Client
	account  string
	contacts []string
	life     int // in which the clerk last looked

	acked int      // edits with an answer
	found int      // edits without one that were taken
	again int      // edits that were not taken and made again
	wrong []string // what the clerk saw that must not be
}

// hire makes the clerk's account and contacts.
func hire(ctx context.Context, at *Post, client *httpapi.Client, name, territory string) (*Clerk, error) {
	c := &Clerk{tally: NewTally(name, contactsEach), post: at, client: client, account: newID(), life: at.Life()}
	ops := []crm.OpText{{Op: "create", Entity: "account", Record: c.account, Fields: raw("name", name, "territory", territory)}}
	for i := range contactsEach {
		id := newID()
		c.contacts = append(c.contacts, id)
		ops = append(ops, crm.OpText{Op: "create", Entity: "contact", Record: id, Fields: raw("last_name", fmt.Sprintf("%s %d", name, i), "account", c.account)})
	}
	_, err := client.Mutate(ctx, httpapi.MutationText{Intent: "clerk.hire", Ops: ops}, httpapi.Wait(20*time.Second))
	return c, err
}

func newID() string { return crm.NewRecordID(time.Now(), rand.Reader).String() }

// raw returns the fields of name, value, name, value and so on.
func raw(pairs ...any) map[string]json.RawMessage {
	out := map[string]json.RawMessage{}
	for i := 0; i < len(pairs); i += 2 {
		b, err := json.Marshal(pairs[i+1])
		if err != nil {
			panic("processtest: a field that is no JSON: " + err.Error())
		}
		out[pairs[i].(string)] = b
	}
	return out
}

// work makes an edit for each token, until there are no more or ctx ends.
// Before it returns nil the fate of every edit is known. A clerk who sees what
// must not be stops: what comes after proves nothing.
func (c *Clerk) work(ctx context.Context, p *Pace) error {
	for p.TakeEdit(ctx) {
		if err := c.next(ctx); err != nil {
			return err
		}
		if len(c.wrong) > 0 {
			return errors.New(strings.Join(c.wrong, "\n"))
		}
		p.Acked()
	}
	return ctx.Err()
}

// next makes one edit until it is acknowledged.
func (c *Clerk) next(ctx context.Context) error {
	for {
		life, err := c.post.Await(ctx)
		if err != nil {
			return err
		}
		if life != c.life {
			if err := c.look(ctx, false); err != nil {
				return err
			}
		}
		done, err := c.client.Mutate(ctx, c.edit(), 0)
		if err == nil {
			c.tally.Took()
			c.acked++
			c.readBack(done)
			return nil
		}
		if !c.post.Master && c.post.Life() == c.life {
			c.saw("edit %d failed although the node was not killed: %v", c.tally.Done+1, err)
		}
		if err := c.look(ctx, true); err != nil {
			return err
		}
	}
}

// edit is the next edit.
func (c *Clerk) edit() httpapi.MutationText {
	n, weight := c.tally.Next()
	contact := c.contacts[c.tally.Contact(n)]
	m := httpapi.MutationText{Intent: "clerk.edit", Ops: []crm.OpText{
		{Op: "patch", Entity: "contact", Record: contact, Fields: raw("department", strconv.FormatInt(n, 10))},
		{Op: "counter-add", Entity: "contact", Record: contact, Fields: raw("points", weight)},
	}}
	if key, made := NoteKey(c.tally.Clerk, n); made {
		m.Ops = append(m.Ops, crm.OpText{Op: "create", Entity: "activity", Fields: raw("external_id", key, "kind", "note", "subject", "edit", "at", "2026-11-21T09:00:00Z", "account", c.account)})
	}
	return m
}

// readBack compares what a branch shows at once with the edit: users see their
// own edits. A master may answer from a state before it.
func (c *Clerk) readBack(done httpapi.Mutated) {
	if c.post.Master || len(done.Items) == 0 || done.Items[0] == nil {
		return
	}
	m, err := markOf(*done.Items[0])
	if err != nil {
		c.saw("%v", err)
		return
	}
	if text := c.tally.JudgeOne(c.tally.Contact(c.tally.Done), m); text != "" {
		c.saw("right after the edit: %s", text)
	}
}

// look waits until the post serves, learns whether the open edit was taken, if
// there is one, and judges what is shown.
func (c *Clerk) look(ctx context.Context, open bool) error {
	for {
		life, err := c.post.Await(ctx)
		if err != nil {
			return err
		}
		marks, err := c.marks(ctx)
		if err == nil {
			c.life = life
			c.settle(marks, open)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if _, told := errors.AsType[*crm.Error](err); !told {
			return fmt.Errorf("%s: what clerk %s is shown: %w", c.post.Name, c.tally.Clerk, err)
		}
		waitUpTo(ctx, 40*time.Millisecond) // not to ask a node that cannot answer in a tight loop
	}
}

// settle decides about the open edit and judges the rest.
func (c *Clerk) settle(marks []Mark, open bool) {
	switch {
	case open && c.tally.Shows(marks):
		c.tally.Took()
		c.found++
	case open:
		c.again++
	}
	for _, text := range c.tally.Judge(marks) {
		c.saw("in life %d: %s", c.life, text)
	}
}

func (c *Clerk) saw(format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Sprintf("%s: clerk %s ", c.post.Name, c.tally.Clerk)+fmt.Sprintf(format, args...))
}

// marks reads the clerk's contacts at the post, with everything that was taken
// there.
func (c *Clerk) marks(ctx context.Context) ([]Mark, error) {
	var asked httpapi.Asked
	if c.post.Master {
		fence, err := c.client.Mutate(ctx, httpapi.MutationText{Intent: "clerk.fence", Ops: []crm.OpText{
			{Op: "counter-add", Entity: "contact", Record: c.contacts[0], Fields: raw("points", 0)}}}, 0)
		if err != nil {
			return nil, err
		}
		asked.Demand = crm.Demand{Level: crm.Session, Session: fence.Mark}
	}
	return marksAt(ctx, c.client, c.account, c.contacts, asked)
}

// marksAt reads the contacts of an account, in the order given.
func marksAt(ctx context.Context, client *httpapi.Client, account string, contacts []string, asked httpapi.Asked) ([]Mark, error) {
	asked.Fields = []string{"points", "department"}
	p, _, err := client.Page(ctx, "contact", httpapi.Query{Asked: asked, Filter: fmt.Sprintf("account == %q", account), Limit: 2 * contactsEach})
	if err != nil {
		return nil, err
	}
	out := make([]Mark, len(contacts))
	for i, id := range contacts {
		for _, it := range p.Items {
			if it.ID != id {
				continue
			}
			if out[i], err = markOf(it); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// markOf reads a contact. A field that was never set is null or not there.
func markOf(it httpapi.Item) (m Mark, err error) {
	var last *string
	for name, into := range map[string]any{"points": &m.Sum, "department": &last} {
		if v, ok := it.Fields[name]; ok {
			if err := json.Unmarshal(v, into); err != nil {
				return m, fmt.Errorf("contact %s: %s is %s: %w", it.ID, name, v, err)
			}
		}
	}
	if last != nil {
		m.Last, err = strconv.ParseInt(*last, 10, 64)
	}
	return m, err
}
