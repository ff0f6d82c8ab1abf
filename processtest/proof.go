package processtest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
)

// A Verdict is what the clerks' edits have come to.
type Verdict struct {
	Acked int      // edits that were acknowledged
	Found int      // edits that were taken, though the answer was lost
	Again int      // edits that were not taken and made again
	Wrong []string // everything that must not be
}

// Prove waits until everything is decided and everywhere, or ctx ends, and
// compares each node with what the clerks know. All nodes must serve and all
// clerks must have gone home.
func (r *Crash) Prove(ctx context.Context) (Verdict, error) {
	var v Verdict
	for _, c := range r.clerks {
		v.Acked, v.Found, v.Again = v.Acked+c.acked, v.Found+c.found, v.Again+c.again
		v.Wrong = append(v.Wrong, c.wrong...)
	}
	for _, p := range r.Replicas {
		if err := r.proveOutbox(ctx, p, &v); err != nil {
			return v, err
		}
	}
	head, err := r.head(ctx)
	if err != nil {
		return v, err
	}
	for _, p := range r.posts() {
		if err := r.proveNode(ctx, p, head, &v); err != nil {
			return v, fmt.Errorf("compare %s: %w", p.Name, err)
		}
	}
	return v, nil
}

func (v *Verdict) found(format string, args ...any) {
	v.Wrong = append(v.Wrong, fmt.Sprintf(format, args...))
}

// proveOutbox waits until the replica's edits are decided. It has given one
// number to each of its clerks' edits.
func (r *Crash) proveOutbox(ctx context.Context, p *Post, v *Verdict) error {
	c, err := p.Client()
	if err != nil {
		return err
	}
	var s struct {
		Seq, Decided crm.Seq
		Outbox       struct{ Entries int }
	}
	waiting, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	err = Await(waiting, p.Name+" to have its edits decided", func() (bool, error) {
		err := c.Status(waiting, &s)
		return err == nil && s.Outbox.Entries == 0 && s.Decided == s.Seq, err
	})
	if err != nil {
		v.found("%s: %d of %d edits are undecided: %v", p.Name, s.Seq-s.Decided, s.Seq, err)
	}
	made := 0
	for _, c := range r.clerks {
		if c.post == p {
			made += int(c.tally.Done)
		}
	}
	if given := int(s.Seq - r.before[p]); given != made {
		v.found("%s: its clerks made %d edits, and it gave %d numbers", p.Name, made, given)
	}
	return ctx.Err()
}

// head returns the last Rev that the leader has decided.
func (r *Crash) head(ctx context.Context) (crm.Rev, error) {
	leader, err := r.Cluster.Leader(ctx)
	if err != nil {
		return 0, err
	}
	c, err := leader.Client()
	if err != nil {
		return 0, err
	}
	var s struct{ Head crm.Rev }
	err = c.Status(ctx, &s)
	return s.Head, err
}

// proveNode compares what a node holds, once it is at the head.
func (r *Crash) proveNode(ctx context.Context, p *Post, head crm.Rev, v *Verdict) error {
	client, err := p.Client()
	if err != nil {
		return err
	}
	client.HTTP = &http.Client{Timeout: 5 * time.Minute} // a check reads everything
	waiting, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	asked := httpapi.Asked{Demand: crm.Demand{Level: crm.Session, Session: crm.Mark{Rev: head}}}
	for _, c := range r.clerks {
		if held, err := holdsAccount(waiting, client, c.account, asked); err != nil {
			return err
		} else if !held && (p.Master || p == c.post) {
			v.found("%s: the account of clerk %s is lost", p.Name, c.tally.Clerk)
		} else if !held {
			continue // of another territory
		}
		if err := proveClerk(ctx, client, p.Name, c, v); err != nil {
			return err
		}
	}
	list, err := client.Attention(ctx, httpapi.Watch{Status: "all", Limit: 10})
	if err != nil {
		return err
	}
	for _, a := range list.Items {
		v.found("%s: an edit was not accepted plainly: %s %s: %s", p.Name, a.Kind, a.Code, a.Message)
	}
	findings, err := client.Check(ctx)
	for _, f := range findings {
		v.found("%s: check: %s %s: %s", p.Name, f.Kind, f.Item, f.Message)
	}
	return err
}

func holdsAccount(ctx context.Context, client *httpapi.Client, id string, asked httpapi.Asked) (bool, error) {
	asked.Fields = []string{"name"}
	_, _, err := client.Get(ctx, "account", id, asked)
	if crm.CodeOf(err) == crm.CodeNotFound {
		return false, nil
	}
	return err == nil, err
}

// proveClerk compares a node with one clerk's tally.
func proveClerk(ctx context.Context, client *httpapi.Client, node string, c *Clerk, v *Verdict) error {
	marks, err := marksAt(ctx, client, c.account, c.contacts, httpapi.Asked{})
	if err != nil {
		return err
	}
	for _, text := range c.tally.Judge(marks) {
		v.found("%s: %s", node, text)
	}
	var keys []string
	notes := httpapi.Query{Asked: httpapi.Asked{Fields: []string{"external_id"}}, Filter: fmt.Sprintf("account == %q", c.account), Limit: 1000}
	for it, err := range client.List(ctx, "activity", notes) {
		if err != nil {
			return err
		}
		var key string
		if err := json.Unmarshal(it.Fields["external_id"], &key); err != nil {
			return err
		}
		keys = append(keys, key)
	}
	for _, text := range c.tally.JudgeNotes(keys) {
		v.found("%s: %s", node, text)
	}
	return nil
}
