package replica

import (
	"encoding/binary"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// maxSettled is about how many of them a journal has.
const maxSettled = 16

// A settled says that Mutations up to seq were decided at a time. How long one was
// kept since then cannot be told from when it was made: a branch may have been
// offline for weeks.
type settled struct {
	at  int64 // of the masters' clock, Unix milliseconds
	seq crm.Seq
}

// marked returns the marks after masters that have this node's Mutations up to
// last said at now that those up to decided are decided, and the highest Seq that
// was decided for keep milliseconds. What was decided and was lost counts anew.
func marked(marks []settled, now, keep int64, decided, last crm.Seq) (left []settled, old crm.Seq) {
	decided = min(decided, last)
	for _, m := range marks {
		m.seq = min(m.seq, decided)
		if m.at <= now-keep {
			old = max(old, m.seq)
			continue
		}
		left = append(left, m)
	}
	if n := len(left); n == 0 && decided > 0 || n > 0 && left[n-1].seq < decided && now-left[n-1].at >= keep/maxSettled {
		left = append(left, settled{now, decided})
	}
	return left, old
}

// keepTail drops of the tail what the masters will not ask for. While the base is
// moved to their timeline it is not known what they still lack.
func (r *Replica) keepTail(j *store.JTx, w *syncproto.Welcome) error {
	p := r.position()
	marks, err := settledIn(j)
	if err != nil {
		return err
	}
	marks, old := marked(marks, w.Sent, r.cfg.KeepTail.Milliseconds(), p.decided, w.LastSeq)
	if err := setSettled(j, marks); err != nil {
		return err
	}
	if p.isMoving() {
		_, err := j.Redate(p.rev, undated)
		return err
	}
	return trimTail(j, w.Backup, w.LastSeq, old)
}

// trimTail drops decided Mutations that a backup of the masters covers, or that
// are too old to be asked for: not above last, which restored masters lack. What
// they have backed up since is of another timeline than the Revs of those.
func trimTail(j *store.JTx, backup crm.Rev, last, old crm.Seq) error {
	if backup > 0 {
		if _, err := j.TrimTail(last, backup); err != nil {
			return err
		}
	}
	_, err := j.TrimTail(old, crm.Pending)
	return err
}

// settledSize is the size of a time:8 and a Seq:8.
const settledSize = 16

func settledIn(j *store.JTx) (out []settled, err error) {
	v, err := j.Meta(metaSettled)
	for ; len(v) >= settledSize; v = v[settledSize:] {
		out = append(out, settled{int64(binary.BigEndian.Uint64(v)), crm.Seq(binary.BigEndian.Uint64(v[8:]))})
	}
	return out, err
}

func setSettled(j *store.JTx, marks []settled) error {
	var v []byte
	for _, m := range marks {
		v = binary.BigEndian.AppendUint64(v, uint64(m.at))
		v = binary.BigEndian.AppendUint64(v, uint64(m.seq))
	}
	return j.SetMeta(metaSettled, v)
}
