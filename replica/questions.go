package replica

import (
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// maxBeats bounds the heartbeats that are remembered until they are answered.
const maxBeats = 64

// questions are what a node has asked a master in one conversation.
type questions struct {
	beat    uint32               // number of the last heartbeat asked
	asked   map[uint32]time.Time // when each unanswered one was, of the last maxBeats
	ask     uint64               // number of the last Ask
	waiting map[uint64]func(*syncproto.Answer)
}

func newQuestions() questions {
	return questions{asked: map[uint32]time.Time{}, waiting: map[uint64]func(*syncproto.Answer){}}
}

// nextBeat asks for the head, the round trip and the clock offset.
func (q *questions) nextBeat(now time.Time, cursor crm.Rev) *syncproto.Heartbeat {
	q.beat++
	q.asked[q.beat] = now
	delete(q.asked, q.beat-maxBeats)
	return &syncproto.Heartbeat{ID: q.beat, T1: now.UnixMilli(), Head: cursor}
}

// beatAnswered returns when the heartbeat was asked, if it is remembered.
func (q *questions) beatAnswered(id uint32) (asked time.Time, ok bool) {
	asked, ok = q.asked[id]
	delete(q.asked, id)
	return asked, ok
}

// nextAsk asks; then is given the answer, in the goroutine that hears it.
func (q *questions) nextAsk(what syncproto.AskKind, then func(*syncproto.Answer)) *syncproto.Ask {
	q.ask++
	q.waiting[q.ask] = then
	return &syncproto.Ask{ID: q.ask, What: what}
}

// answered tells who waits for the answer, if somebody still does.
func (q *questions) answered(a *syncproto.Answer) {
	if then := q.waiting[a.ID]; then != nil {
		delete(q.waiting, a.ID)
		then(a)
	}
}

func (q *questions) forget(id uint64) { delete(q.waiting, id) }
