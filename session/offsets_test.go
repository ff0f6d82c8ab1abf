package session

import "testing"

func TestOffsets_QuickestRoundTripCounts(t *testing.T) {
	var o offsets
	o.guess(7000)
	if got := o.best(); got != 7000 {
		t.Errorf("before any sample %d", got)
	}
	o.sample(-200e6, 90e6)
	o.sample(-100e6, 30e6)
	o.sample(-300e6, 120e6)
	if got := o.best(); got != -100 {
		t.Errorf("best %d ms, want -100", got)
	}
}
