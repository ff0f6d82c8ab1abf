package sim

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/crm/query"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// lookPatience is how long somebody waits for a read.
const lookPatience = 8 * time.Second

// A pendingLook is a read whose demand is not met yet.
type pendingLook struct {
	look  Look
	until time.Duration
	need  crm.Rev // of a leader look, once the leader has answered
	asked bool
}

// lookAt reads at a level. What the demand waits for is waited for a while.
func (b *branchNode) lookAt(d crm.Demand) {
	p := &pendingLook{look: Look{At: b.w.agenda.now, Disk: b.diskID, Demand: d, Known: b.w.known}, until: b.w.agenda.now + lookPatience}
	b.looks = append(b.looks, p)
	b.after(lookPatience, b.lookAgain)
	if d.Level == crm.Leader {
		b.askLeader(p)
	}
	b.lookAgain()
}

// askLeader asks how far a linearizable read must see, as replica.Read does with
// goroutines.
func (b *branchNode) askLeader(p *pendingLook) {
	if b.talk == nil {
		return
	}
	b.talk.Ask(syncproto.AskLeader, func(a *syncproto.Answer) {
		if a.Code == "" {
			p.need, p.asked = a.Rev, true
		}
		b.after(0, b.lookAgain)
	})
	b.pump()
}

// lookAgain answers the looks that can be answered now, and those whose time is
// up.
func (b *branchNode) lookAgain() {
	looks := b.looks
	b.looks = nil
	for _, p := range looks {
		if !b.answerLook(p) {
			b.looks = append(b.looks, p)
		}
	}
	b.watch() // who reads may be the first to meet damage
}

// answerLook reports whether the look is over.
func (b *branchNode) answerLook(p *pendingLook) bool {
	d := p.look.Demand
	if d.Level == crm.Leader {
		if !p.asked || b.rep.Status().Cursor < p.need {
			return b.giveUp(p, crm.CodeStale)
		}
		d = crm.Demand{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // a demand that is not met now is asked again when something has moved
	l := &p.look
	var err error
	l.Fresh, err = b.rep.Read(ctx, d, func(r *store.Reader) error {
		return l.read(r, b)
	})
	if err != nil {
		b.pump() // what it met may have to be repaired
		return b.giveUp(p, codeOf(err))
	}
	l.At, l.Damaged = b.w.agenda.now, len(b.damages()) > 0
	if d.Level == crm.Bounded {
		l.Head, l.Skewed = b.w.headsAt(l.At-d.MaxStale), b.setAt > l.At-d.MaxStale-lookPatience
	}
	b.w.looked(*l)
	return true
}

// codeOf is the code of a read that could not wait.
func codeOf(err error) crm.Code {
	if errors.Is(err, context.Canceled) {
		return crm.CodeStale
	}
	return crm.CodeOf(err)
}

func (b *branchNode) giveUp(p *pendingLook, code crm.Code) bool {
	if b.w.agenda.now < p.until {
		return false
	}
	p.look.Code = code
	b.w.looked(p.look)
	return true
}

// read takes what the reader sees: accounts in two ways.
func (l *Look) read(r *store.Reader, b *branchNode) error {
	l.Listed, l.Scanned = nil, []crm.RecordID{}
	e := r.Schema().EntityByID(catalog.Account)
	list := query.List{Entity: e, Sort: []query.Key{{Field: e.Field("name")}}, Limit: 200}
	for {
		page, err := r.List(list)
		if err != nil {
			return err
		}
		for _, rec := range page.Records {
			l.Listed = append(l.Listed, rec.ID)
			b.w.desk.show(b, r, rec)
		}
		if list.Cursor = page.Next; page.Next == "" {
			break
		}
	}
	for rec, err := range r.Scan(e) {
		if err != nil {
			return err
		}
		l.Scanned = append(l.Scanned, rec.ID)
	}
	slices.SortFunc(l.Scanned, compareIDs)
	return nil
}

// looked records a look.
func (w *world) looked(l Look) {
	w.record.Looks = append(w.record.Looks, l)
	w.trace.Note(w.agenda.now, w.record.name(l.Disk), "looks %s: rev %d, pending %d, %d accounts %s", l.Demand.Level, l.Fresh.Rev, l.Fresh.Pending, len(l.Listed), l.Code)
	if l.Code == "" {
		w.desk.mark = l.Fresh.Mark
	}
	w.judge(onLook)
}

// headsAt returns the least head that any master showed at the instant.
func (w *world) headsAt(at time.Duration) crm.Rev {
	least := map[crm.NodeID]crm.Rev{}
	for _, h := range w.record.Heads {
		if h.At <= at && h.Timeline == w.model.ID {
			least[h.Master] = h.Rev
		}
	}
	if len(least) < len(w.masters) {
		return 0
	}
	head := w.model.Head()
	for _, rev := range least {
		head = min(head, rev)
	}
	return head
}
