package processtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
	"github.com/tradepost-crm/tradepost/store"
)

// A Drill is a [Crash] run whose masters are all lost, and made anew from a backup
// as docs/restore.md says, while the branches go on.
type Drill struct {
	*Crash
	Backup string // file that Save makes
	keys   string // directory of the copy of a master's identity
	steps  []step
}

// A step of a Drill took so long.
type step struct {
	name string
	took time.Duration
}

// NewDrill returns the Drill of a running cluster, which keeps backup and keys in
// dir.
func NewDrill(c *Cluster, dir string, logf func(string, ...any)) *Drill {
	return &Drill{Crash: NewCrash(c, logf), Backup: filepath.Join(dir, "backup.db"), keys: filepath.Join(dir, "keys")}
}

// Step does one step and remembers how long it took.
func (d *Drill) Step(name string, do func() error) error {
	began := time.Now()
	err := do()
	d.steps = append(d.steps, step{name, time.Since(began)})
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Steps tells how long each step took.
func (d *Drill) Steps() string {
	var out []string
	for _, s := range d.steps {
		out = append(out, fmt.Sprintf("%s %.1f s", s.name, s.took.Seconds()))
	}
	return strings.Join(out, ", ")
}

// Work has the clerks of these posts make n edits and returns when they have.
func (d *Drill) Work(ctx context.Context, n int, posts ...*Post) error {
	p := NewPace(1, n)
	g, ctx := errgroup.WithContext(ctx)
	for _, c := range d.clerks {
		for _, at := range posts {
			if c.post == at {
				g.Go(func() error { return c.work(ctx, p) })
			}
		}
	}
	return g.Wait()
}

// Acked returns how many edits were acknowledged so far. No clerk may be at work.
func (d *Drill) Acked() (n int) {
	for _, c := range d.clerks {
		n += c.acked
	}
	return n
}

// An Outbox says what of a node's edits is decided, as far as the node knows.
type Outbox struct {
	Node     crm.NodeID
	Timeline uint64
	Moving   bool
	Decided  crm.Seq
	Outbox   struct{ Entries int }
}

// OutboxAt asks a replica.
func (d *Drill) OutboxAt(ctx context.Context, at *Post) (o Outbox, err error) {
	c, err := at.Client()
	if err != nil {
		return o, err
	}
	return o, c.Status(ctx, &o)
}

// AwaitDecided waits until nothing waits in the outboxes of these posts.
func (d *Drill) AwaitDecided(ctx context.Context, posts ...*Post) error {
	for _, at := range posts {
		err := Await(ctx, at.Name+" to have its edits decided", func() (bool, error) {
			o, err := d.OutboxAt(ctx, at)
			return err == nil && o.Outbox.Entries == 0 && !o.Moving, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// identity is what docs/restore.md says to keep of a master beside the backups.
var identity = []string{"node.json", "ca.crt", "ca.key", "node.crt", "node.key", "gossip.key", "tokens.json", "admin.token"}

// Save backs the cluster up at a follower and keeps the first master's identity.
func (d *Drill) Save(ctx context.Context) error {
	_, rest, err := d.leader(ctx)
	if err != nil {
		return err
	}
	if _, err := rest[0].run(ctx, "backup", at(rest[0].Process, "--to", d.Backup)...); err != nil {
		return err
	}
	if _, err := rest[0].run(ctx, "backup verify", d.Backup); err != nil {
		return err
	}
	return copyIdentity(d.Masters[0].Dir, d.keys)
}

func copyIdentity(from, to string) error {
	errs := []error{os.MkdirAll(to, 0o700)}
	for _, name := range identity {
		b, err := os.ReadFile(filepath.Join(from, name))
		if errors.Is(err, os.ErrNotExist) && name == "gossip.key" {
			continue // only a cluster with discovery has one
		}
		errs = append(errs, err, os.WriteFile(filepath.Join(to, name), b, 0o600))
	}
	return errors.Join(errs...)
}

// Lose kills all masters and removes their directories.
func (d *Drill) Lose() error {
	var errs []error
	for _, m := range d.Masters {
		errs = append(errs, m.Kill(), os.RemoveAll(m.Dir))
	}
	return errors.Join(errs...)
}

// Restore makes the first master anew from the backup and its identity, alone.
func (d *Drill) Restore(ctx context.Context) error {
	m := d.Masters[0]
	if err := copyIdentity(d.keys, m.Dir); err != nil {
		return err
	}
	if _, err := m.run(ctx, "restore", append([]string{"--from", d.Backup, "--yes"}, m.args...)...); err != nil {
		return err
	}
	d.Masters, d.Cluster.Masters = d.Masters[:1], d.Cluster.Masters[:1]
	if err := m.Start(); err != nil {
		return err
	}
	_, err := m.AwaitReady(ctx)
	return err
}

// Rejoin lets masters of these names join, in new directories, and waits until
// they vote.
func (d *Drill) Rejoin(ctx context.Context, names ...string) error {
	for _, name := range names {
		if err := d.Cluster.join(ctx, name, "hq", "master", &d.Cluster.Masters); err != nil {
			return err
		}
		d.Masters = append(d.Masters, newPost(d.Cluster.Masters[len(d.Cluster.Masters)-1], true))
	}
	return d.Cluster.AwaitVoters(ctx, len(d.Masters))
}

// Covered returns which edits of each node the backup holds.
func (d *Drill) Covered() (map[crm.NodeID]crm.Seq, error) {
	db, err := store.Open(d.Backup, store.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	out := map[crm.NodeID]crm.Seq{}
	err = db.View(func(tx *store.Tx) error {
		for n, err := range tx.Nodes() {
			if err != nil {
				return err
			}
			out[n.Node] = n.LastSeq
		}
		return nil
	})
	return out, errors.Join(err, db.Close())
}

// A Reader reads at every branch, without pause but for a tick.
type Reader struct {
	mu    sync.Mutex // protects what follows
	reads int
	wrong []string // reads that failed though the node was not killed, or went back in time
}

// readEvery is the time between two reads at a branch.
const readEvery = 5 * time.Millisecond

// Read reads the customers of each branch's first clerk there until ctx ends.
func (d *Drill) Read(ctx context.Context) *Reader {
	r := &Reader{}
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, at := range d.Replicas {
		for _, c := range d.clerks {
			if c.post == at {
				wg.Go(func() { r.readAt(ctx, c) })
				break
			}
		}
	}
	return r
}

func (r *Reader) readAt(ctx context.Context, c *Clerk) {
	tick := time.NewTicker(readEvery)
	defer tick.Stop()
	seen := make([]Mark, len(c.contacts))
	for {
		life, err := c.post.Await(ctx)
		if err != nil {
			return
		}
		marks, err := marksAt(ctx, c.client, c.account, c.contacts, httpapi.Asked{})
		if ctx.Err() != nil {
			return
		}
		if c.post.Life() == life {
			r.judge(c.post.Name, seen, marks, err)
		}
		if err == nil {
			copy(seen, marks)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// judge notes what must not be: a contact only ever gains edits.
func (r *Reader) judge(name string, seen, marks []Mark, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reads++
	if err != nil {
		r.wrong = append(r.wrong, fmt.Sprintf("%s: a read failed: %v", name, err))
		return
	}
	for i, m := range marks {
		if m.Last < seen[i].Last || m.Sum < seen[i].Sum {
			r.wrong = append(r.wrong, fmt.Sprintf("%s: contact %d went back from edit %d to %d", name, i, seen[i].Last, m.Last))
		}
	}
}

// Losses returns how many edits of head office the branch listed as lost.
func Losses(p *Process) (n int, err error) {
	paths, err := filepath.Glob(filepath.Join(p.Dir, "lost-*.jsonl"))
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return n, err
		}
		for line := range strings.Lines(string(b)) {
			if !json.Valid([]byte(line)) {
				return n, fmt.Errorf("%s: %q is no JSON", path, line)
			}
			n++
		}
	}
	return n, err
}
