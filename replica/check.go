package replica

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// A Finding is something that [Replica.Check] found wrong in a file.
type Finding struct {
	File string // "journal" or "base"
	store.Finding
}

// Check reads both files whole and compares what can be computed from something
// else: checksums, digests, index rows and counters of the store; that each
// Mutation of the outbox is chained to the one before; that the overlay is what
// the outbox makes of the base; and that the files are not behind what this
// process has already shown. It finds nothing in a sound node. What it finds in
// the records of the base becomes suspect, as what a scrub finds.
func (r *Replica) Check(ctx context.Context) ([]Finding, error) {
	for {
		moved := r.moved.wait()
		findings, settled, err := r.checkOnce(ctx)
		if err != nil {
			return findings, err
		}
		if settled {
			return findings, r.found(inBase(findings))
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(settleTime):
			if err := r.reconcile(); err != nil {
				return nil, err
			}
		}
	}
}

func inBase(list []Finding) (out []store.Finding) {
	for _, f := range list {
		if f.File == "base" {
			out = append(out, f.Finding)
		}
	}
	return out
}

// settleTime is how long a check waits for the journal to follow the base
// before it has it done.
const settleTime = time.Second

// checkOnce checks, unless the journal has not followed the base yet.
func (r *Replica) checkOnce(ctx context.Context) (findings []Finding, settled bool, err error) {
	j, err := r.journal.Begin(true) // writable so that the overlay can be folded anew in it; never committed
	if err != nil {
		return nil, false, err
	}
	defer j.Rollback()
	err = r.base.View(func(tx *store.Tx) error {
		k := &check{r: r, j: j, tx: tx, shown: r.position()}
		p, err := readPosition(tx)
		if err != nil || p.timeline == k.shown.timeline && p.rev > k.shown.rev {
			return err
		}
		settled = true
		for _, step := range []func(context.Context) error{k.files, k.position, k.territories, k.chain, k.overlay} {
			if err := step(ctx); err != nil {
				return err
			}
		}
		findings = k.findings
		return nil
	})
	return findings, settled, err
}

// A check collects findings about one state of the two files.
type check struct {
	r        *Replica
	j        *store.JTx
	tx       *store.Tx
	shown    position
	findings []Finding
}

func (k *check) found(file, bucket, item, format string, args ...any) {
	k.findings = append(k.findings, Finding{file, store.Finding{Bucket: bucket, Item: item, Detail: fmt.Sprintf(format, args...)}})
}

func (k *check) files(ctx context.Context) error {
	base, err := k.tx.Check(ctx)
	if err != nil {
		return err
	}
	journal, err := k.j.Check(ctx, k.tx.Schema())
	for _, f := range base {
		k.findings = append(k.findings, Finding{"base", f})
	}
	for _, f := range journal {
		k.findings = append(k.findings, Finding{"journal", f})
	}
	return err
}

// position compares the files with what was shown from them.
func (k *check) position(context.Context) error {
	p, err := readPosition(k.tx)
	if err != nil {
		return err
	}
	if p.timeline == k.shown.timeline && p.rev < k.shown.rev {
		k.found("base", "state", "rev", "the cursor went back from %d to %d", k.shown.rev, p.rev)
	}
	if p.timeline == k.shown.timeline && p.decided < k.shown.decided {
		k.found("base", "meta", metaDecided, "decided went back from %d to %d", k.shown.decided, p.decided)
	}
	return nil
}

// territories looks for records of territories that the site was not granted.
func (k *check) territories(context.Context) error {
	a, err := authorOf(k.tx, k.r.cfg.ID.Site)
	if err != nil {
		return err
	}
	for t := range k.tx.Territories() {
		if a.writable(t) {
			continue
		}
		code, err := territoryCode(k.tx, t)
		if err != nil {
			return err
		}
		k.found("base", "live", code, "records of a territory that was not granted to this site are held here")
	}
	return nil
}

// chain follows the outbox from entry to entry up to the identity.
func (k *check) chain(ctx context.Context) error {
	id, err := k.j.Identity()
	if err != nil {
		return err
	}
	var prev *store.Entry
	for e, err := range k.j.Outbox(0) {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		k.link(prev, e, id)
		prev = &e
	}
	if prev != nil && (prev.Seq+1 != id.NextSeq || prev.Chain != id.Chain) {
		k.found("journal", "outbox", fmt.Sprint(prev.Seq), "the identity goes on from %d", id.NextSeq-1)
	}
	return nil
}

func (k *check) link(prev *store.Entry, e store.Entry, id store.Identity) {
	item := fmt.Sprint(e.Seq)
	if e.Withheld { // its content, and the hash that it was chained to, are gone
		if prev != nil && e.Seq != prev.Seq+1 {
			k.found("journal", "outbox", item, "it does not follow %d", prev.Seq)
		}
		return
	}
	m, err := crm.DecodeMutation(e.Bytes)
	switch {
	case err != nil:
		k.found("journal", "outbox", item, "%v", err)
	case m.Node != id.Node || m.Seq != e.Seq:
		k.found("journal", "outbox", item, "it holds mutation %d of node %d", m.Seq, m.Node)
	case crm.Chain(m.Prev, e.Bytes) != e.Chain:
		k.found("journal", "outbox", item, "its chain hash does not match")
	case prev != nil && (m.Prev != prev.Chain || e.Seq != prev.Seq+1):
		k.found("journal", "outbox", item, "it does not follow %d", prev.Seq)
	}
}

// overlay folds the outbox anew and compares. The transaction is rolled back.
func (k *check) overlay(context.Context) error {
	if rev, err := k.tx.Rev(); err != nil || rev == 0 {
		return err
	}
	before, err := overlayBytes(k.j)
	if err != nil {
		return err
	}
	f, err := k.r.newFolder(k.j, k.tx)
	if err != nil {
		return err
	}
	if _, err := f.settle(k.shown.decided, k.shown.rev); err != nil {
		return err
	}
	if err := f.all(); err != nil {
		return err
	}
	after, err := overlayBytes(k.j)
	if err != nil {
		return err
	}
	for key, b := range before {
		if !bytes.Equal(b, after[key]) {
			k.found("journal", "overlay", key.String(), "it is not what the outbox makes of the base")
		}
		delete(after, key)
	}
	for key := range after {
		k.found("journal", "overlay", key.String(), "it is missing")
	}
	return nil
}

func overlayBytes(j *store.JTx) (map[store.RecordKey][]byte, error) {
	out := map[store.RecordKey][]byte{}
	for key := range j.Overlaid() {
		rec, err := j.Overlay(key.Entity, key.ID)
		if err != nil {
			return nil, err
		}
		out[key] = crm.AppendRecord(nil, rec)
	}
	return out, nil
}
