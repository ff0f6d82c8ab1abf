package sim

import (
	"container/heap"
	"time"
)

// An agenda holds what is to happen, by virtual time and then in the order in
// which it was put down. Virtual time is counted from the start of the run.
type agenda struct {
	now    time.Duration
	queue  occasions
	number uint64
}

// An occasion is something that happens at an instant.
type occasion struct {
	at     time.Duration
	number uint64
	do     func()
}

// At has do called at the instant, or now if that has passed.
func (a *agenda) At(at time.Duration, do func()) {
	a.number++
	heap.Push(&a.queue, occasion{max(at, a.now), a.number, do})
}

// After has do called after d.
func (a *agenda) After(d time.Duration, do func()) { a.At(a.now+d, do) }

// Next does the next thing no later than until and reports whether there was
// one. If there was not, the clock stands at until.
func (a *agenda) Next(until time.Duration) bool {
	if len(a.queue) == 0 || a.queue[0].at > until {
		a.now = max(a.now, until)
		return false
	}
	o := heap.Pop(&a.queue).(occasion)
	a.now = o.at
	o.do()
	return true
}

// occasions are a heap.
type occasions []occasion

func (q occasions) Len() int { return len(q) }
func (q occasions) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].number < q[j].number
}
func (q occasions) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *occasions) Push(x any)   { *q = append(*q, x.(occasion)) }
func (q *occasions) Pop() any {
	last := len(*q) - 1
	o := (*q)[last]
	(*q)[last] = occasion{}
	*q = (*q)[:last]
	return o
}
