package crm

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// past is a cluster that was restored twice: timeline 10 up to 100, then 20 up
// to 150, then 30.
var past = Lineage{Timeline: 30, Forks: []Fork{{10, 100}, {20, 150}}}

func TestLineage_Clamp(t *testing.T) {
	for _, c := range []struct {
		name     string
		l        Lineage
		timeline uint64
		rev      Rev
		want     Rev
		seq      Seq // of 7
	}{
		{"OfItsOwn", past, 30, 999, 999, 7},
		{"OfTheParent", past, 20, 999, 150, 7},
		{"OfTheParentBeforeTheFork", past, 20, 149, 149, 7},
		{"OfTheFirst", past, 10, 149, 100, 7},
		{"Unknown", past, 40, 999, 0, 0},
		{"NotNamed", past, 0, 50, 0, 7},
		{"NotNamedAndNeverForked", Lineage{Timeline: 30}, 0, 999, 999, 7},
		{"NoLineageAtAll", Lineage{}, 0, 999, 999, 7},
		{"NamedWhereNothingIsKnown", Lineage{}, 30, 999, 0, 0},
	} {
		got := c.l.Clamp(Token{Node: 3, Rev: c.rev, Seq: 7}, c.timeline)
		if got.Rev != c.want || got.Seq != c.seq || got.Timeline != uint32(c.l.Timeline) {
			t.Errorf("%s: %+v, want rev %d and seq %d of timeline %d", c.name, got, c.want, c.seq, c.l.Timeline)
		}
	}
}

func TestRequest_MutationVouchesForNoMoreThanItKnows(t *testing.T) {
	for _, c := range []struct {
		name        string
		seen        Token
		want, plain Token // where the masters read timelines, and where they do not
	}{
		{"OfThisNode", Token{30, 3, 200, 7}, Token{30, 3, 200, 7}, Token{0, 3, 200, 7}},
		{"OfAnother", Token{30, 4, 200, 7}, Token{30, 0, 200, 0}, Token{0, 0, 200, 0}},
		{"OfTheParent", Token{20, 3, 200, 7}, Token{30, 3, 150, 7}, Token{0, 3, 150, 7}},
		{"OfAnotherInTheParent", Token{20, 4, 200, 7}, Token{30, 0, 150, 0}, Token{0, 0, 150, 0}},
		{"OfTheFirst", Token{10, 0, 200, 0}, Token{30, 0, 100, 0}, Token{0, 0, 100, 0}},
		{"OfAnUnknownTimeline", Token{40, 3, 200, 7}, Token{30, 0, 0, 0}, Token{}},
		{"NotNamed", Token{0, 3, 50, 7}, Token{30, 3, 0, 7}, Token{0, 3, 0, 7}},
		{"OfNoNode", Token{30, 0, 200, 7}, Token{30, 0, 200, 0}, Token{0, 0, 200, 0}},
	} {
		req := Request{Actor: "ann", Intent: "x", Ops: []Op{{Kind: OpPatch, Entity: 16, Record: rid(1), Seen: c.seen, Cells: []Input{txt(16, "a")}}}}
		named, plain := req.Mutation(3, past, true), req.Mutation(3, past, false)
		if got := named.Ops[0].Seen; got != c.want || named.Timeline != 30 || named.Node != 3 {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
		if got := plain.Ops[0].Seen; got != c.plain || plain.Timeline != 0 {
			t.Errorf("%s, version 1: %+v, want %+v", c.name, got, c.plain)
		}
		for _, m := range []*Mutation{named, plain} {
			back, err := DecodeMutation(AppendMutation(nil, m))
			if err != nil || back.Ops[0].Seen != m.Ops[0].Seen || back.Timeline != m.Timeline {
				t.Errorf("%s: %+v comes back as %+v, %v", c.name, m, back, err)
			}
		}
		if req.Ops[0].Seen != c.seen {
			t.Errorf("%s: the request itself was changed", c.name)
		}
		named.Ops[0].Cells[0] = txt(16, "b")
		if req.Ops[0].Cells[0].Value.Str() != "a" {
			t.Errorf("%s: the mutation shares the cells of the request", c.name)
		}
	}
}

func TestLineage_Restored(t *testing.T) {
	l, err := Lineage{Timeline: 10}.Restored(100, 20)
	if err == nil {
		l, err = l.Restored(150, 30)
	}
	if err != nil || l.Timeline != past.Timeline || !slices.Equal(l.Forks, past.Forks) {
		t.Fatalf("%+v, %v", l, err)
	}
	for name, c := range map[string]struct {
		l        Lineage
		rev      Rev
		timeline uint64
	}{
		"before the last fork":           {past, 149, 40},
		"without a number":               {past, 200, 0},
		"without a name":                 {past, 200, 1 << 32},
		"its own timeline":               {past, 200, 30},
		"a timeline again":               {past, 200, 10},
		"a timeline that looks like one": {past, 200, 1<<32 | 20},
		"from a base without a timeline": {Lineage{}, 0, 40},
		"from a timeline without a name": {Lineage{Timeline: 1 << 32}, 5, 40},
	} {
		if got, err := c.l.Restored(c.rev, c.timeline); CodeOf(err) != CodeInvalid {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestLineage_IsBounded(t *testing.T) {
	l := Lineage{Timeline: 1}
	for i := range uint64(3 * MaxForks) {
		var err error
		if l, err = l.Restored(Rev(100+i), 2+i); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(l.Forks); n != MaxForks {
		t.Fatalf("%d forks", n)
	}
	if b := AppendLineage(nil, l); len(b) > 1024 {
		t.Errorf("the longest lineage takes %d bytes", len(b))
	}
	if _, err := DecodeLineage(AppendLineage(nil, l)); err != nil {
		t.Error(err)
	}
	long := Lineage{Timeline: l.Timeline, Forks: slices.Insert(slices.Clone(l.Forks), 0, Fork{99_999, 1})}
	if _, err := DecodeLineage(AppendLineage(nil, long)); err == nil {
		t.Errorf("a lineage of %d forks is read", len(long.Forks))
	}
	last := l.Forks[MaxForks-1]
	for timeline, want := range map[uint64]Rev{2: 0, last.Timeline: last.Rev, l.Forks[0].Timeline: l.Forks[0].Rev} {
		if got := l.Clamp(Token{Rev: 1000}, timeline).Rev; got != want {
			t.Errorf("timeline %d counts up to %d, want %d", timeline, got, want)
		}
	}
}

// TestLineage_SharedHistory compares with histories that are written out: what
// Clamp leaves is the same in both timelines, and for a known one nothing that is
// the same is lost.
func TestLineage_SharedHistory(t *testing.T) {
	type history struct {
		Lineage
		decisions []int
	}
	rapid.Check(t, func(t *rapid.T) {
		next := 0
		decide := func(h []int, n int) []int {
			for range n {
				next++
				h = append(h, next)
			}
			return h
		}
		all := []history{{Lineage{Timeline: 1}, decide(nil, 5)}}
		for i := range rapid.IntRange(0, 6).Draw(t, "restores") {
			from := rapid.SampledFrom(all).Draw(t, "of")
			first := 0
			if n := len(from.Forks); n > 0 {
				first = int(from.Forks[n-1].Rev)
			}
			rev := rapid.IntRange(first, len(from.decisions)).Draw(t, "rev")
			l, err := from.Restored(Rev(rev), uint64(2+i))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, history{l, decide(slices.Clone(from.decisions[:rev]), rapid.IntRange(0, 5).Draw(t, "more"))})
		}
		same := func(a, b history) (n int) {
			for n < min(len(a.decisions), len(b.decisions)) && a.decisions[n] == b.decisions[n] {
				n++
			}
			return n
		}
		for _, now := range all {
			for _, then := range all {
				seen := Token{Rev: Rev(rapid.IntRange(0, len(then.decisions)).Draw(t, "seen"))}
				got := int(now.Clamp(seen, then.Timeline).Rev)
				if got > same(now, then) {
					t.Fatalf("%+v: rev %d of timeline %d counts up to %d, they share %d", now.Lineage, seen.Rev, then.Timeline, got, same(now, then))
				}
				_, known := now.shared(then.Timeline)
				if known && got < min(same(now, then), int(seen.Rev)) {
					t.Fatalf("%+v: rev %d of timeline %d counts up to %d, they share %d", now.Lineage, seen.Rev, then.Timeline, got, same(now, then))
				}
				if unnamed := int(now.Clamp(seen, 0).Rev); unnamed > same(now, then) && len(now.Forks) > 0 {
					t.Fatalf("%+v: rev %d of timeline %d, not named, counts up to %d, they share %d", now.Lineage, seen.Rev, then.Timeline, unnamed, same(now, then))
				}
			}
		}
	})
}

// Where two timelines parted is what both have of the newest one that both know,
// whichever is the later.
func TestLineage_Common(t *testing.T) {
	root := Lineage{Timeline: 1}
	early := Lineage{Timeline: 2, Forks: []Fork{{1, 100}}}           // of a backup at 100
	later := Lineage{Timeline: 3, Forks: []Fork{{1, 200}}}           // of another one at 200
	again := Lineage{Timeline: 4, Forks: []Fork{{1, 100}, {2, 150}}} // a restore of 2 at 150
	other := Lineage{Timeline: 9, Forks: []Fork{{8, 500}}}           // of no relation
	for name, c := range map[string]struct {
		l, m Lineage
		want Rev
	}{
		"itself":                   {early, early, Pending},
		"a later one of its line":  {early, again, 150},
		"the root and a grandson":  {root, again, 100},
		"an earlier one":           {again, early, 150},
		"the root, looked back at": {early, root, 100},
		"two restores of one":      {early, later, 100},
		"a restore and a grandson": {later, again, 100},
		"strangers":                {early, other, 0},
		"nothing yet":              {Lineage{}, early, 0},
		"masters that do not say":  {early, Lineage{Timeline: 7}, 0},
	} {
		if got := c.l.Common(c.m); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
