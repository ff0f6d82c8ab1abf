package lossyfs

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

func always() bool { return true }

func (c *content) put(text string, off int64) { c.writeAt([]byte(text), off, always) }

func (c *content) all() []byte {
	b := make([]byte, c.size+10)
	return b[:c.readAt(b, 0)]
}

func wantContent(t *testing.T, what string, c *content, want string) {
	t.Helper()
	if got := string(c.all()); got != want {
		t.Errorf("%s: %d bytes %.60q, want %d bytes %.60q", what, len(got), got, len(want), want)
	}
}

// TestContent_AsAModel compares random operations with a plain slice, and what a
// cut leaves with that slice at the last sync.
func TestContent_AsAModel(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		c, model, synced := newContent(), []byte{}, []byte{}
		for range 60 {
			off := r.IntN(3 * pageSize)
			switch r.IntN(6) {
			case 0:
				c.sync()
				synced = bytes.Clone(model)
			case 1:
				c.truncate(int64(off))
				model = append(model, make([]byte, max(0, off-len(model)))...)[:off]
			case 2:
				n := r.IntN(2 * pageSize)
				c.allocate(int64(off), int64(n), always)
				model = append(model, make([]byte, max(0, off+n-len(model)))...)
			case 3:
				if len(model) > 0 && r.IntN(10) == 0 {
					c, model = c.afterCut(nil), bytes.Clone(synced)
				}
			default:
				data := bytes.Repeat([]byte{byte(1 + r.IntN(255))}, 1+r.IntN(2*pageSize))
				c.writeAt(data, int64(off), always)
				model = append(model, make([]byte, max(0, off+len(data)-len(model)))...)
				copy(model[off:], data)
			}
			if !bytes.Equal(c.all(), model) {
				t.Fatalf("seed %d: the file differs from the model", seed)
			}
			if left := c.afterCut(nil); !bytes.Equal(left.all(), synced) {
				t.Fatalf("seed %d: a cut does not leave what was synced", seed)
			}
		}
	}
}

func TestContent_CutForgetsWhatWasNotSynced(t *testing.T) {
	c := newContent()
	c.put("written", 0)
	wantContent(t, "never synced", c.afterCut(nil), "")
	c.sync()
	c.put("overwritten and longer", 0)
	wantContent(t, "live", c, "overwritten and longer")
	wantContent(t, "cut", c.afterCut(nil), "written")
	c.truncate(2)
	c.sync()
	wantContent(t, "truncated", c.afterCut(nil), "ov")
	c.truncate(6)
	wantContent(t, "grown again", c, "ov\x00\x00\x00\x00")
}

// TestContent_FailedSync: what a failed fsync did not write counts as written.
func TestContent_FailedSync(t *testing.T) {
	c := newContent()
	c.put("old page", 0)
	c.put("old page", pageSize)
	c.sync()
	c.put("new page", 0)
	c.put("new page", pageSize)
	c.settle()
	c.put("NEW", pageSize)
	c.sync()
	left := c.afterCut(nil)
	if got := string(left.all()[:8]); got != "old page" {
		t.Errorf("the page of the failed sync is %q after a later one, want the old one", got)
	}
	if got := string(left.all()[pageSize:]); got != "NEW page" {
		t.Errorf("the page written again is %q", got)
	}
}

// states counts what torn cuts of many seeds leave.
func states(c *content) map[string]int {
	all := map[string]int{}
	for seed := range uint64(400) {
		all[string(c.afterCut(rand.New(rand.NewPCG(seed, 0))).all())]++
	}
	return all
}

func sectors(text string) string {
	var b bytes.Buffer
	for _, c := range []byte(text) {
		b.Write(bytes.Repeat([]byte{c}, sectorSize))
	}
	return b.String()
}

func wantStates(t *testing.T, got map[string]int, want ...string) {
	t.Helper()
	for _, w := range want {
		if got[w] == 0 {
			t.Errorf("no seed leaves %d bytes %.40q", len(w), w)
		}
		delete(got, w)
	}
	for g, n := range got {
		t.Errorf("%d seeds leave %d bytes %.40q", n, len(g), g)
	}
}

func TestContent_TornOverwrite(t *testing.T) {
	c := newContent()
	c.put(sectors("abc"), 0)
	c.sync()
	c.put(sectors("AB"), 0)
	wantStates(t, states(c), sectors("abc"), sectors("Abc"), sectors("aBc"), sectors("ABc"))
}

// TestContent_TornAppend: any size in between, and what it shows was written.
func TestContent_TornAppend(t *testing.T) {
	c := newContent()
	c.put("durable", 0)
	c.sync()
	tail := sectors("xyz")
	c.put(tail, 7)
	all := "durable" + tail
	wantStates(t, states(c), "durable", all[:7+sectorSize], all[:7+2*sectorSize], all)
}

// TestContent_TornRewrite: a file truncated and written again is old, or a part
// of the new, and never a mixture.
func TestContent_TornRewrite(t *testing.T) {
	c := newContent()
	c.put(sectors("old"), 0)
	c.sync()
	c.truncate(0)
	c.put(sectors("NE"), 0)
	wantStates(t, states(c), sectors("old"), "", sectors("N"), sectors("NE"))
}

func TestContent_TornIsSeeded(t *testing.T) {
	c := newContent()
	c.put(strings.Repeat("a", 50_000), 0)
	c.sync()
	c.put(strings.Repeat("b", 50_000), 0)
	tear := func(seed uint64) string { return string(c.afterCut(rand.New(rand.NewPCG(seed, 0))).all()) }
	if first := tear(1); first != tear(1) || first == tear(2) {
		t.Error("a seed does not decide what survives")
	}
}

func TestContent_NoRoom(t *testing.T) {
	c := newContent()
	left := 2
	take := func() bool { left--; return left >= 0 }
	if n := c.writeAt(make([]byte, 3*pageSize), 100, take); n != 2*pageSize-100 {
		t.Errorf("two pages took %d bytes", n)
	}
	if n := c.writeAt(make([]byte, 50), 0, take); n != 50 {
		t.Errorf("an allocated page took %d bytes", n)
	}
	if c.allocate(0, 3*pageSize, take) {
		t.Error("a page beyond the room was allocated")
	}
}

func TestContent_Flip(t *testing.T) {
	c := newContent()
	c.put("abc", 0)
	c.sync()
	c.put("xyz", 3)
	if !c.flip(1, 0) || c.flip(6, 0) {
		t.Error("the end of the file is not where a flip sees it")
	}
	wantContent(t, "live", c, "accxyz")
	wantContent(t, "on disk", c.afterCut(nil), "acc")
}
