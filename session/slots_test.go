package session

import (
	"testing"
	"testing/synctest"
)

func TestSlots_AreBoundedAndInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s slots
		var held []*slot
		for range maxCatchUps {
			held = append(held, s.enter())
			<-held[len(held)-1].granted
		}
		first, gone, second := s.enter(), s.enter(), s.enter()
		is := func(t *slot) bool {
			select {
			case <-t.granted:
				return true
			default:
				return false
			}
		}
		s.leave(gone)
		if is(first) || is(second) {
			t.Error("more places were granted than there are")
		}
		s.leave(held[0])
		s.leave(held[0])
		if !is(first) || is(second) {
			t.Error("a place that was left did not go to the first who waits, and to nobody else")
		}
		s.leave(held[1])
		if !is(second) || is(gone) {
			t.Error("one who left was granted a place")
		}
		for _, t := range append(held, first, second) {
			s.leave(t)
		}
		if s.taken != 0 || len(s.waiting) != 0 {
			t.Errorf("%d places are taken and %d wait", s.taken, len(s.waiting))
		}
	})
}
