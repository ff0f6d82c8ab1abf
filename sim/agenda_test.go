package sim

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestAgenda_OrderIsTimeAndThenTurn(t *testing.T) {
	var a agenda
	var got []string
	note := func(s string) func() { return func() { got = append(got, fmt.Sprintf("%v %s", a.now, s)) } }
	a.At(2*time.Second, note("c"))
	a.At(time.Second, func() {
		note("a")()
		a.After(0, note("b"))
		a.At(0, note("late"))
	})
	a.At(2*time.Second, note("d"))
	a.At(5*time.Second, note("never"))
	for a.Next(3 * time.Second) {
	}
	want := []string{"1s a", "1s b", "1s late", "2s c", "2s d"}
	if !slices.Equal(got, want) || a.now != 3*time.Second {
		t.Errorf("got %q at %v, want %q at 3s", got, a.now, want)
	}
}

func TestDice_ConcernsAreApart(t *testing.T) {
	a, b := newDice(7), newDice(7)
	b.For("other").Uint64()
	b.For("line r1 m1").Uint64()
	if x, y := a.For("line m1 r1").Uint64(), b.For("line m1 r1").Uint64(); x != y {
		t.Errorf("a draw elsewhere changed %d to %d", x, y)
	}
	if x, y := newDice(7).For("disk").Uint64(), newDice(8).For("disk").Uint64(); x == y {
		t.Error("two seeds draw alike")
	}
	if x, y := newDice(7).For("disk").Uint64(), newDice(7).For("net").Uint64(); x == y {
		t.Error("two concerns draw alike")
	}
}

func TestTrace_HashTellsOrder(t *testing.T) {
	a, b := newTrace(nil), newTrace(nil)
	a.Note(1, "m1", "x %d", 1)
	a.Note(2, "m1", "y")
	b.Note(2, "m1", "y")
	b.Note(1, "m1", "x %d", 1)
	if a.Hash() == b.Hash() || a.Events != 2 {
		t.Errorf("hash %s of %d events does not tell the order", a.Hash(), a.Events)
	}
}
