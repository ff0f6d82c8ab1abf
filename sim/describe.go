package sim

import (
	"crypto/sha256"
	"fmt"

	"github.com/tradepost-crm/tradepost/syncproto"
)

// describe says what a frame holds, for the Trace.
func describe(f syncproto.Frame) string {
	switch f := f.(type) {
	case *syncproto.Hello:
		return fmt.Sprintf("node %d inc %d next %d chain %x timeline %d cursor %d staged %d low %d resend %v", f.Node, f.Incarnation, f.NextSeq,
			f.Chain[:4], f.Timeline, f.Cursor, f.Staged, f.LowBase, f.Resend)
	case *syncproto.Welcome:
		return fmt.Sprintf("version %d inc %d last %d hash %x timeline %d after %d head %d leader %v", f.Proto, f.Incarnation, f.LastSeq, f.LastHash[:4], f.Timeline, len(f.Lineage), f.Head, f.Leader)
	case *syncproto.Push:
		return fmt.Sprintf("%d+%d %s", f.First, len(f.Mutations), digest(f.Mutations...))
	case *syncproto.Pushed:
		return fmt.Sprint(f.Seq)
	case *syncproto.Batch:
		return fmt.Sprintf("(%d, %d] final %v upto %d decided %d outcomes %d whole %v items %d %s digests %d repair %d %s sums %d", f.From, f.To, f.Final, f.Upto, f.Decided,
			len(f.Outcomes), f.Whole, len(f.Items), digestItems(f.Items), len(f.Digests), f.Repair, describeBuckets(f.Buckets), len(f.Sums))
	case *syncproto.Repair:
		return fmt.Sprintf("%d from %d of %s", f.Number, f.Cursor, describeWants(f.Wants))
	case *syncproto.Applied:
		return fmt.Sprintf("%d low %d", f.Cursor, f.LowBase)
	case *syncproto.Busy:
		return fmt.Sprintf("%d ms", f.RetryAfterMillis)
	case *syncproto.Gap:
		return fmt.Sprint(f.Expected)
	case *syncproto.Fenced:
		return fmt.Sprint(f.Incarnation)
	case *syncproto.Refused:
		return string(f.Code)
	case *syncproto.Heartbeat:
		return fmt.Sprintf("%d head %d reply %v", f.ID, f.Head, f.Reply)
	case *syncproto.Ask:
		return fmt.Sprint(f.ID)
	case *syncproto.Answer:
		return fmt.Sprintf("%d rev %d %s", f.ID, f.Rev, f.Code)
	case *syncproto.Forward:
		return fmt.Sprintf("%d node %d inc %d %s", f.ID, f.Node, f.Incarnation, digest(f.Mutations...))
	case *syncproto.Forwarded:
		return fmt.Sprintf("%d last %d index %d %s", f.ID, f.LastSeq, f.RaftIndex, f.Code)
	}
	return ""
}

func digest(parts ...[]byte) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:4])
}

func digestItems(items []syncproto.Item) string {
	h := sha256.New()
	for _, it := range items {
		fmt.Fprintf(h, "%d %v %d %x %d ", it.Kind, it.Partial, it.Entity, it.ID, it.Rev)
		h.Write(it.Body)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:4])
}

func describeBuckets(list []syncproto.WholeBuckets) (out string) {
	for _, b := range list {
		out += fmt.Sprintf("%d of territory %d ", b.Set.Len(), b.Territory)
	}
	return out
}

func describeWants(list []syncproto.Want) (out string) {
	for _, w := range list {
		out += fmt.Sprintf("%d of territory %d ", w.Buckets.Len(), w.Territory)
	}
	return out
}
