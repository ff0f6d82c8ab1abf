package processtest

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"strings"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
)

var (
	restoreEdits = flag.Int("restore-edits", 5_600, "how many edits must be acknowledged in the restore drill; five in eight are before the backup")
	restoreDir   = flag.String("restore-dir", "", "an empty directory for the nodes, which is kept; one that goes away if none is given")
)

// TestRestoreDrill loses all masters with their disks and makes them anew from a
// backup, as docs/restore.md says, while clerks edit and readers read at four
// branches. One branch dies with a full outbox and comes back when the restore is
// over; the outboxes of the others are half shipped when the masters die. In the
// end each edit that was acknowledged at a branch is there once, everywhere.
// `go test ./processtest -run TestRestoreDrill -v -timeout 0 -args -restore-edits
// 200000` is the long run.
func TestRestoreDrill(t *testing.T) {
	ctx := t.Context()
	if end, ok := t.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end.Add(-10*time.Second))
		defer cancel()
	}
	dir := cmp.Or(*restoreDir, t.TempDir())
	c := startCluster(ctx, t, dir, 3, branches)
	d := NewDrill(c, dir, t.Logf)
	for _, at := range d.Replicas {
		must(t, d.Hire(ctx, at, 8, branches[strings.TrimPrefix(at.Name, "r-")][0]))
	}
	reading, stop := context.WithCancel(ctx)
	defer stop()
	readers := make(chan *Reader, 1)
	go func() { readers <- d.Read(reading) }()

	s := disaster(ctx, t, d, *restoreEdits)
	stop()
	s.reader = <-readers
	v, err := d.Prove(ctx)
	must(t, err)
	must(t, c.Stop())
	compareDigests(t, c)
	compareNodeStates(t, c)
	for _, text := range append(v.Wrong, s.reader.wrong...) {
		t.Error(text)
	}
	s.judge(t, v)
	s.print(t, d, v)
}

// A story is what a drill has come to.
type story struct {
	edits    int // asked for
	saved    int // acknowledged until the backup
	refilled int // decided after the backup, and lost by the masters
	queued   int // not decided when the masters died
	away     int // in the outbox of the branch that was away
	without  int // acknowledged while no master served
	losses   int // edits of head office that branches listed
	reader   *Reader
}

// disaster tells the story: most of the edits, a backup, more edits, the loss amid
// edits, edits without masters, the restore, the rest.
func disaster(ctx context.Context, t *testing.T, d *Drill, edits int) *story {
	t.Helper()
	s := &story{edits: edits}
	closed, open := d.split(t, "r-oslo")
	work := func(parts int, posts ...*Post) func() error {
		return func() error { return d.Work(ctx, edits*parts/64, posts...) }
	}
	must(t, d.Step("edits before the backup", work(40, d.Replicas...)))
	must(t, d.AwaitDecided(ctx, d.Replicas...))
	must(t, d.Step("backup", func() error { return d.Save(ctx) }))
	s.saved = d.Acked()
	nova := officeEdit(ctx, t, d.Masters[0])
	must(t, d.Step("edits after it", work(8, d.Replicas...)))
	must(t, d.AwaitDecided(ctx, d.Replicas...))

	covered, err := d.Covered()
	must(t, err)
	settled, err := d.OutboxAt(ctx, open[0])
	must(t, err)
	working := inBackground(work(8, open...))
	must(t, Await(ctx, "an outbox that is half shipped", func() (bool, error) {
		o, err := d.OutboxAt(ctx, open[0])
		return o.Outbox.Entries > 0 && o.Decided > settled.Decided, err
	}))
	must(t, d.Step("loss", d.Lose))
	for _, at := range d.Replicas {
		o, err := d.OutboxAt(ctx, at)
		must(t, err)
		s.refilled += int(o.Decided - covered[o.Node])
		s.queued += o.Outbox.Entries
	}
	must(t, <-working)
	before := d.Acked()
	must(t, d.Step("edits without masters", work(4, d.Replicas...)))
	s.without = d.Acked() - before
	o, err := d.OutboxAt(ctx, closed)
	must(t, err)
	s.away = o.Outbox.Entries
	must(t, closed.Kill())

	working = inBackground(work(2, open...))
	must(t, d.Step("restore to serving", func() error { return d.Restore(ctx) }))
	must(t, d.Step("two masters join", func() error { return d.Rejoin(ctx, "m4", "m5") }))
	must(t, <-working)
	must(t, d.Step("branches decided", func() error { return d.AwaitDecided(ctx, open...) }))
	must(t, closed.Start())
	must(t, d.Step("the one that was away", func() error {
		_, err := closed.AwaitReady(ctx)
		return errors.Join(err, d.AwaitDecided(ctx, closed))
	}))
	must(t, work(2, d.Replicas...)())
	must(t, d.AwaitDecided(ctx, d.Replicas...))
	s.losses = losses(ctx, t, d, nova)
	return s
}

// inBackground runs do beside what follows.
func inBackground(do func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	return done
}

// split returns the branch of the name, and the others.
func (d *Drill) split(t *testing.T, name string) (one *Post, others []*Post) {
	t.Helper()
	for _, p := range d.Replicas {
		if p.Name == name {
			one = p
		} else {
			others = append(others, p)
		}
	}
	if one == nil {
		t.Fatalf("there is no %s", name)
	}
	return one, others
}

// officeEdit makes an account at head office, which no branch sends again.
func officeEdit(ctx context.Context, t *testing.T, at *Post) (id string) {
	t.Helper()
	c, err := at.Client()
	must(t, err)
	a, err := c.Create(ctx, "account", httpapi.Fields{"name": "Nova", "territory": "iberia"}, httpapi.Wait(20*time.Second))
	must(t, err)
	return a.Item.ID
}

// losses returns how many edits the branches have listed as lost for good, and
// demands that the one of head office is gone everywhere and listed where it was
// seen.
func losses(ctx context.Context, t *testing.T, d *Drill, id string) (n int) {
	t.Helper()
	for _, p := range d.posts() {
		c, err := p.Client()
		must(t, err)
		if _, _, err := c.Get(ctx, "account", id, httpapi.Asked{}); crm.CodeOf(err) != crm.CodeNotFound {
			t.Errorf("%s: what head office made after the backup is there, or: %v", p.Name, err)
		}
		listed, err := Losses(p.Process)
		must(t, err)
		if want := strings.Contains("r-lisbon r-porto", p.Name); want != (listed == 1) {
			t.Errorf("%s has listed %d losses", p.Name, listed)
		}
		n += listed
	}
	return n
}

// judge demands that everything was drilled that the drill is for.
func (s *story) judge(t *testing.T, v Verdict) {
	t.Helper()
	for what, n := range map[string]int{"refilled from tails": s.refilled, "half shipped": s.queued, "away": s.away, "without masters": s.without, "read": s.reader.reads} {
		if n == 0 {
			t.Errorf("nothing was %s", what)
		}
	}
	if v.Acked < s.edits*63/64 || v.Again+v.Found > 0 {
		t.Errorf("%d edits acknowledged, %d asked for; %d found, %d again", v.Acked, s.edits, v.Found, v.Again)
	}
}

func (s *story) print(t *testing.T, d *Drill, v Verdict) {
	t.Helper()
	verdict := "0 lost, 0 doubled, 0 undecided; every node shows each edit once, digests and outcomes are equal"
	if t.Failed() {
		verdict = "FAILED, see above"
	}
	t.Logf(`
restore drill  %d masters lost with their disks, made anew from a backup of %d edits, %d branches
edits          %d acknowledged: %d before the backup, %d after it
masters lost   %d edits that were decided, refilled from tails; %d more waited in outboxes
offline        %d edits were made while no master served, %d of them at a branch that was away until all was over
head office    its 1 edit after the backup is gone, and was listed %d times
reads          %d at branches, %d failed or went back in time
steps          %s
verdict        %s`, 3, s.saved, len(d.Replicas), v.Acked, s.saved, v.Acked-s.saved, s.refilled, s.queued, s.without, s.away, s.losses,
		s.reader.reads, len(s.reader.wrong), d.Steps(), verdict)
}
