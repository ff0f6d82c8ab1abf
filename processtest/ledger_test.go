package processtest

import (
	"slices"
	"strings"
	"testing"
)

// applied returns what contacts show after the edits, in that order.
func applied(clerk string, contacts int, edits ...int64) []Mark {
	t := NewTally(clerk, contacts)
	out := make([]Mark, contacts)
	for _, n := range edits {
		i := t.Contact(n)
		out[i] = Mark{out[i].Sum + Weight(clerk, n), n}
	}
	return out
}

func upTo(n int64) (edits []int64) {
	for i := int64(1); i <= n; i++ {
		edits = append(edits, i)
	}
	return edits
}

// TestTally: what became of the edits of one clerk on three contacts is told
// from two numbers a contact.
func TestTally(t *testing.T) {
	const done, contacts = 60, 3
	all := upTo(done)
	without := func(lost ...int64) []int64 {
		return slices.DeleteFunc(slices.Clone(all), func(n int64) bool { return slices.Contains(lost, n) })
	}
	for _, c := range []struct {
		name  string
		edits []int64
		want  string // in what is wrong; "" is nothing
	}{
		{"every edit once", all, ""},
		{"one lost", without(17), "edit 17 is lost"},
		{"the first lost", without(1), "edit 1 is lost"},
		{"one doubled", slices.Insert(slices.Clone(all), 17, 17), "edit 17 is doubled"},
		{"the last doubled", append(slices.Clone(all), 60), "edit 60 is doubled"},
		{"the last of a contact lost", without(58), "edit 58 is lost"},
		{"the last five lost", without(56, 57, 58, 59, 60), "edits 57 to 60 are lost"},
		{"one lost and one doubled", slices.Insert(without(5), 20, 17), "several edits"},
		{"two lost, two doubled", slices.Insert(without(5, 8), 20, 17, 14), "several edits"},
		{"one not made yet", upTo(done + 1), "edit 61 is there without having been made"},
		{"two in the wrong order", slices.Concat(without(57, 60), []int64{60, 57}), "not in their order"},
		{"all lost", nil, "edits 1 to 58 are lost"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tally := NewTally("clerk", contacts)
			for range done {
				tally.Took()
			}
			got := strings.Join(tally.Judge(applied("clerk", contacts, c.edits...)), "\n")
			if !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestTally_LostAnswer: an edit whose answer was lost is told by what is shown.
func TestTally_LostAnswer(t *testing.T) {
	tally := NewTally("clerk", 2)
	for range 10 {
		tally.Took()
	}
	if tally.Shows(applied("clerk", 2, upTo(10)...)) {
		t.Error("edit 11 was found where it was not taken")
	}
	if !tally.Shows(applied("clerk", 2, upTo(11)...)) {
		t.Error("edit 11 was not found where it was taken")
	}
	tally.Took()
	if wrong := tally.Judge(applied("clerk", 2, upTo(11)...)); len(wrong) > 0 {
		t.Error(wrong)
	}
}

// TestTally_Weights: no two of many edits weigh the same, whoever made them.
func TestTally_Weights(t *testing.T) {
	seen := map[int64]bool{}
	for _, clerk := range []string{"a", "b"} {
		for n := range int64(50_000) {
			w := Weight(clerk, n)
			if w < 1 || w > 1<<40 || seen[w] {
				t.Fatalf("weight %d of edit %d of %s is out of range or taken", w, n, clerk)
			}
			seen[w] = true
		}
	}
}

// TestTally_Notes: a record that an edit should have made, or made twice, shows.
func TestTally_Notes(t *testing.T) {
	tally := NewTally("clerk", 2)
	for range 160 {
		tally.Took()
	}
	for _, c := range []struct {
		name string
		keys []string
		want string
	}{
		{"OK", []string{"clerk-50", "clerk-100", "clerk-150"}, ""},
		{"lost", []string{"clerk-50", "clerk-150"}, "the record of edit 100 is there 0 times"},
		{"doubled", []string{"clerk-50", "clerk-50", "clerk-100", "clerk-150"}, "the record of edit 50 is there 2 times"},
		{"foreign", []string{"clerk-50", "clerk-100", "clerk-150", "clerk-200"}, "record clerk-200 is of no edit"},
	} {
		got := strings.Join(tally.JudgeNotes(c.keys), "\n")
		if !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
