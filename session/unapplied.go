package session

import (
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// mostUnapplied is how many items and outcomes of whole batches a replica may
// have left to apply until the next batch waits. What is decided meanwhile then
// comes in one batch, and a replica that is slower than the masters writes the
// pages that its edits are scattered over, and folds what is pending over them,
// less often.
const mostUnapplied = 2000

// unapplied is what a replica was sent and has not applied yet.
type unapplied struct {
	batches []sentBatch
	size    int // items and outcomes of them all
}

type sentBatch struct {
	to   crm.Rev
	size int
}

// full reports whether the next batch must wait: there is enough to apply, and
// one batch waits behind the one that is applied now.
func (u *unapplied) full() bool { return u.size >= mostUnapplied && len(u.batches) >= 2 }

// sent notes a batch. The parts of a catch-up count with its last one, because
// the replica reports no other.
func (u *unapplied) sent(b *syncproto.Batch) {
	if !b.Final {
		return
	}
	n := len(b.Items) + len(b.Outcomes)
	u.batches = append(u.batches, sentBatch{b.To, n})
	u.size += n
}

// applied takes a report of the replica's Cursor.
func (u *unapplied) applied(rev crm.Rev) {
	for len(u.batches) > 0 && u.batches[0].to <= rev {
		u.size -= u.batches[0].size
		u.batches = u.batches[1:]
	}
}
