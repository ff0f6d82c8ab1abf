package clustertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/devcluster"
	"github.com/tradepost-crm/tradepost/store"
)

// A Command is what a script can do.
type Command struct {
	Usage string // its arguments
	Does  string

	least int // arguments it needs
	run   func(w *world, ctx context.Context, args []string) error
}

// Commands are the words a line may begin with.
var Commands = map[string]Command{
	"cluster":   {"branches=a,b [masters=3] [rtt=80ms] [lines=a:c:5ms] [spare=c,d] [loss=0.01]", "start 3 masters and the branches; each holds its own territory and key-accounts", 1, cluster},
	"join":      {"SITE [TERRITORY …] [via=NODE]", "add a site that has a spare city, with an empty replica, which tries the node first", 1, join(false)},
	"relay":     {"SITE [TERRITORY …] [via=NODE]", "add a site as join does, whose replica serves others", 1, join(true)},
	"territory": {"CODE", "add a territory", 1, territory},
	"grant":     {"SITE TERRITORY", "let the site hold the territory", 2, grant(crm.OpSetAdd)},
	"revoke":    {"SITE TERRITORY", "take the grant back", 2, grant(crm.OpSetRemove)},
	"define":    {"NODE ENTITY.FIELD required | read_only | options=a,b", "change the definition of a field", 3, define},
	"create":    {"NODE RECORD field=value …", "create a record", 2, edit("create")},
	"edit":      {"NODE RECORD [as=CLERK] field=value | field+=value | field-=value …", "edit a record, having seen what the node or the clerk's page shows", 3, edit("edit")},
	"delete":    {"NODE RECORD [as=CLERK]", "delete a record", 2, edit("delete")},
	"restore":   {"NODE RECORD", "restore a deleted record", 2, edit("restore")},
	"do":        {"NODE op ; op …", "make several edits in one Mutation", 2, mutate},
	"burst":     {"NODE RECORD field+=value TIMES", "make the edit so many times", 4, burst},
	"open":      {"NODE RECORD as=CLERK", "open the record's page", 3, open},
	"cut":       {"NODE | NODE NODE | one-way NODE NODE", "cut a node's city off, or two cities apart, or one direction", 1, cut},
	"heal":      {"", "mend every line", 0, heal},
	"crash":     {"NODE", "kill a node", 1, crash},
	"kill":      {"leader", "kill the master that leads", 1, kill},
	"restart":   {"[NODE]", "start a node again, or all that are down", 0, restart},
	"copy":      {"NODE", "keep a copy of a replica's disk", 1, copyDisk},
	"rollback":  {"NODE", "kill a replica and start it from the copy of its disk", 1, rollback},
	"backup":    {"NAME", "back up the masters and announce it", 1, backup},
	"disaster":  {"", "kill every master", 0, disaster},
	"recover":   {"MASTER NAME", "restore the backup on a master that is down, and start it", 2, recoverFrom},
	"promote":   {"MASTER", "make a master that is down the only one, with what it has, and start it", 1, promote},
	"follow":    {"SITE", "let a master without a vote join in a spare city", 1, follow},
	"enlist":    {"", "let another master join", 0, enlist},
	"lost":      {"NODE", "print what the branch says is lost since a restore", 1, lost},
	"wait":      {"DURATION", "let time pass", 1, wait},
	"settle":    {"", "wait until nothing is pending and every node stands at the head, and compare them", 0, settle},
	"digest":    {"", "compare the nodes as they are", 0, digest},
	"above":     {"NODE", "print which node a replica is in session with", 1, above},
	"show":      {"NODE RECORD FIELD …", "print fields of a record", 2, show},
	"list":      {"NODE ENTITY [FILTER]", "print the titles of the records, sorted", 2, list},
	"holds":     {"NODE", "print the territories of which the node has records, apart from shared", 1, holds},
	"purges":    {"", "print head office's proofs of purges", 0, purges},
	"attention": {"NODE", "print the open items of the attention list", 1, attention},
	"resolve":   {"NODE RECORD TAKE", "resolve the open item about the record, through the HTTP API", 3, resolve},
	"outbox":    {"NODE", "print how many edits wait", 1, outbox},
	"outcomes":  {"NODE", "wait for the outcome of each edit that the script made there, and print them", 1, outcomes},
	"story":     {"", "tell the story of package devcluster", 0, story},
}

// options reads key=value words.
func options(args []string) map[string]string {
	out := map[string]string{}
	for _, arg := range args {
		k, v, _ := strings.Cut(arg, "=")
		out[k] = v
	}
	return out
}

func commas(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

func cluster(w *world, ctx context.Context, args []string) (err error) {
	o := devcluster.Options{}
	rtt := 80 * time.Millisecond
	var spare []string
	for key, value := range options(args) {
		switch key {
		case "branches":
			o.Cities = commas(value)
		case "spare":
			spare = commas(value)
		case "lines":
			w.lines, err = parseLines(value)
		case "masters":
			o.Masters, err = strconv.Atoi(value)
		case "loss":
			o.Loss, err = strconv.ParseFloat(value, 64)
		case "rtt":
			rtt, err = time.ParseDuration(value)
		default:
			err = fmt.Errorf("no option %q", key)
		}
		if err != nil {
			return err
		}
	}
	return w.start(ctx, o, rtt, spare...)
}

func join(relay bool) func(*world, context.Context, []string) error {
	return func(w *world, ctx context.Context, args []string) error {
		at, err := w.c.Network().Matrix().Find(args[0])
		if err != nil {
			return err
		}
		named := func(arg string) bool { return strings.Contains(arg, "=") }
		if err := w.c.AddSite(ctx, args[0], at, slices.DeleteFunc(slices.Clone(args[1:]), named)...); err != nil {
			return err
		}
		return w.c.AddBranch(ctx, args[0], at, relay, commas(options(args[1:])["via"])...)
	}
}

func territory(w *world, ctx context.Context, args []string) error {
	return w.c.AddTerritory(ctx, args[0], args[0])
}

// grant edits the site's set of territories at head office.
func grant(kind crm.OpKind) func(*world, context.Context, []string) error {
	return func(w *world, ctx context.Context, args []string) error {
		api, err := w.api(ctx, "hq")
		if err != nil {
			return err
		}
		op := crm.Op{Kind: kind, Entity: crm.EntitySite, Cells: []crm.Input{{Field: crm.SiteTerritories, Value: crm.ChoicesValue(args[1])}}}
		err = w.read(ctx, "hq", func(r *store.Reader) error {
			e := r.Schema().EntityByID(crm.EntitySite)
			id, ok, err := r.Lookup(e, e.FieldByID(crm.SiteName), crm.TextValue(args[0]))
			if err != nil || !ok {
				return errors.Join(err, fmt.Errorf("site %s: found %v", args[0], ok))
			}
			rec, err := r.Record(crm.EntitySite, id)
			if err == nil {
				op.Record, op.Seen = id, r.Token(rec)
			}
			return err
		})
		if err != nil {
			return err
		}
		receipt, err := api.Commit(ctx, crm.Request{Actor: "admin", Intent: "site.grant", Ops: []crm.Op{op}})
		if err == nil && receipt.Outcome != nil {
			w.printf("%s%s", receipt.Outcome.Kind, w.why(*receipt.Outcome))
		}
		return err
	}
}

func burst(w *world, ctx context.Context, args []string) error {
	times, err := strconv.Atoi(args[len(args)-1])
	if err != nil {
		return err
	}
	for range times {
		if err := w.commit(ctx, args[0], slices.Concat([]string{"edit"}, args[1:len(args)-1])); err != nil {
			return err
		}
	}
	w.printed.Reset()
	w.printf("%d saved", times)
	return nil
}

func cut(w *world, ctx context.Context, args []string) error {
	n := w.c.Network()
	switch {
	case len(args) == 1:
		return w.c.Cut(args[0])
	case args[0] == "one-way" && len(args) == 3:
		return w.c.Between(args[1], args[2], n.CutOneWay)
	}
	return w.c.Between(args[0], args[1], n.Cut)
}

func heal(w *world, _ context.Context, _ []string) error { return w.c.Heal("") }

func crash(w *world, ctx context.Context, args []string) error {
	m, err := w.node(ctx, args[0])
	if err != nil {
		return err
	}
	return m.Crash()
}

// kill waits for the next leader.
func kill(w *world, ctx context.Context, _ []string) error {
	if _, err := w.c.KillLeader(ctx); err != nil {
		return err
	}
	_, err := w.c.Leader(ctx)
	return err
}

func restart(w *world, ctx context.Context, args []string) error {
	for _, m := range w.c.Members() {
		if len(args) > 0 && m.Name != args[0] || m.Up() {
			continue
		}
		if err := m.Start(); err != nil {
			return err
		}
	}
	return nil
}

// copyDisk stops the node for the copy.
func copyDisk(w *world, ctx context.Context, args []string) error {
	m, err := w.node(ctx, args[0])
	if err != nil {
		return err
	}
	if err := m.Stop(); err != nil {
		return err
	}
	w.copies[m.Name] = filepath.Join(w.dir, "copy-"+m.Name)
	if err := devcluster.CopyDir(w.copies[m.Name], m.Dir()); err != nil {
		return err
	}
	return m.Start()
}

func rollback(w *world, ctx context.Context, args []string) error {
	m, err := w.node(ctx, args[0])
	if err != nil {
		return err
	}
	if err := m.Crash(); err != nil {
		return err
	}
	if err := os.RemoveAll(m.Dir()); err != nil {
		return err
	}
	if err := devcluster.CopyDir(m.Dir(), w.copies[m.Name]); err != nil {
		return err
	}
	return m.Start()
}

func wait(_ *world, ctx context.Context, args []string) error {
	d, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func settle(w *world, ctx context.Context, _ []string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := w.c.Settle(ctx); err != nil {
		return err
	}
	w.printf("settled")
	return nil
}

func digest(w *world, ctx context.Context, _ []string) error {
	if err := w.c.Compare(ctx); err != nil {
		w.printf("unequal")
		return nil
	}
	w.printf("equal")
	return nil
}

// above does not tell masters that vote apart.
func above(w *world, _ context.Context, args []string) error {
	m, err := w.c.Member(args[0])
	if err != nil {
		return err
	}
	n, err := m.Node()
	if err != nil {
		return err
	}
	s := n.Replica().Status()
	name, _, _ := strings.Cut(s.Master, ":")
	switch up, err := w.c.Member(name); {
	case !s.Connected:
		name = "nobody"
	case err == nil && up.Role == auth.RoleMaster && !up.Follows():
		name = "a master"
	}
	w.printf("%s", name)
	return nil
}

// story prints what was asked and whether it held; figures vary.
func story(w *world, ctx context.Context, _ []string) error {
	_, err := devcluster.TellStory(ctx, w.c, func(r devcluster.Row) {
		if r.Held {
			w.printf("%d %s: held", r.Step, r.What)
			return
		}
		w.printf("%d %s: BROKEN, %s, expected %s", r.Step, r.What, r.Measured, r.Expected)
	})
	return err
}
