package lossyfs

import (
	"maps"
	"math/rand/v2"
	"slices"
)

const (
	pageSize   = 4096
	sectorSize = 512
)

type page = [pageSize]byte

// zeroPage stands for pages that are allocated and were never written. It is not
// to be written to.
var zeroPage = new(page)

// A content is what a file holds: as programs see it, and as the disk has it.
// Pages are shared between the two until one is written to. A page that is not
// there is a hole: zeros, not allocated.
type content struct {
	size  int64
	pages map[int64]*page
	disk  struct {
		size  int64
		pages map[int64]*page
	}
	dirty map[int64]uint8 // sectors of a page that differ from the disk and wait for a sync, a bit each
	low   int64           // the least size since the last sync
}

func newContent() *content {
	c := &content{pages: map[int64]*page{}, dirty: map[int64]uint8{}}
	c.disk.pages = map[int64]*page{}
	return c
}

// readAt fills p from off, up to the end of the file.
func (c *content) readAt(p []byte, off int64) int {
	if off >= c.size {
		return 0
	}
	p = p[:min(int64(len(p)), c.size-off)]
	for rest := p; len(rest) > 0; {
		var n int
		if have := c.pages[off/pageSize]; have != nil {
			n = copy(rest, have[off%pageSize:])
		} else {
			n = min(len(rest), int(pageSize-off%pageSize))
			clear(rest[:n])
		}
		rest, off = rest[n:], off+int64(n)
	}
	return len(p)
}

// writeAt writes p at off as long as take allows pages to be allocated, and
// returns how much it wrote.
func (c *content) writeAt(p []byte, off int64, take func() bool) int {
	done := 0
	for done < len(p) {
		at := off + int64(done)
		to := c.own(at/pageSize, take)
		if to == nil {
			break
		}
		n := copy(to[at%pageSize:], p[done:])
		c.touch(at, n)
		done += n
	}
	if done > 0 {
		c.size = max(c.size, off+int64(done))
	}
	return done
}

// own returns a page that may be written to, nil if there is none to be had.
func (c *content) own(n int64, take func() bool) *page {
	have := c.pages[n]
	if have == nil && !take() {
		return nil
	}
	if have == nil || have == zeroPage || have == c.disk.pages[n] {
		mine := new(page)
		if have != nil {
			*mine = *have
		}
		c.pages[n] = mine
	}
	return c.pages[n]
}

// touch marks the sectors of n bytes at off, which are in one page.
func (c *content) touch(off int64, n int) {
	for s := off % pageSize / sectorSize; s*sectorSize < off%pageSize+int64(n); s++ {
		c.dirty[off/pageSize] |= 1 << s
	}
}

// allocate makes room for n bytes at off; false means that there was too little.
func (c *content) allocate(off, n int64, take func() bool) bool {
	for i := off / pageSize; i*pageSize < off+n; i++ {
		if c.pages[i] == nil {
			if !take() {
				return false
			}
			c.pages[i] = zeroPage
			c.dirty[i] = 0xff
		}
	}
	c.size = max(c.size, off+n)
	return true
}

// truncate sets the size. What is cut off is gone, and reads as zeros if the file
// grows again.
func (c *content) truncate(size int64) {
	if size < c.size {
		for n := range c.pages {
			if n*pageSize >= size {
				delete(c.pages, n)
				c.dirty[n] = 0xff
			}
		}
		c.zeroTail(size)
		c.low = min(c.low, size)
	}
	c.size = size
}

// zeroTail clears what the last page has beyond the size.
func (c *content) zeroTail(size int64) {
	if size%pageSize == 0 || c.pages[size/pageSize] == nil {
		return
	}
	last := c.own(size/pageSize, func() bool { return true })
	clear(last[size%pageSize:])
	c.touch(size, int(pageSize-size%pageSize))
}

// sync makes the disk hold what programs see.
func (c *content) sync() {
	for n := range c.dirty {
		if have := c.pages[n]; have != nil {
			c.disk.pages[n] = have
		} else {
			delete(c.disk.pages, n)
		}
	}
	c.disk.size = c.size
	c.settle()
}

// settle forgets what waits for a sync. After a sync that failed, this alone
// happens: the pages count as written.
func (c *content) settle() {
	clear(c.dirty)
	c.low = c.disk.size
}

// afterCut is the file that a cut leaves: what the disk has, and with a seed also
// some of what was not synced.
func (c *content) afterCut(tear *rand.Rand) *content {
	left := newContent()
	left.pages, left.disk = maps.Clone(c.disk.pages), c.disk
	left.size, left.low = c.disk.size, c.disk.size
	if tear != nil {
		c.tear(left, tear)
	}
	left.zeroTail(left.size)
	left.disk.pages, left.disk.size = maps.Clone(left.pages), left.size
	left.settle()
	return left
}

// tear lets some of what was not synced reach left.
func (c *content) tear(left *content, r *rand.Rand) {
	kept := min(c.low, c.disk.size) // below it the file was only overwritten
	end := kept
	truncated := c.low < c.disk.size
	if !truncated || r.IntN(2) == 0 {
		end = kept + growth(c.size-kept, r)
		if truncated {
			left.truncate(kept)
		}
	}
	for _, at := range c.dirtySectors() {
		if at >= end {
			break
		}
		if grown := end > kept && at+sectorSize > kept; grown || r.IntN(2) == 0 {
			c.survive(left, at, min(sectorSize, end-at))
		}
	}
	left.size = max(left.size, end)
}

// dirtySectors lists the offsets of the sectors that wait for a sync, in order.
func (c *content) dirtySectors() (offsets []int64) {
	for _, n := range slices.Sorted(maps.Keys(c.dirty)) {
		for s := range int64(pageSize / sectorSize) {
			if c.dirty[n]&(1<<s) != 0 {
				offsets = append(offsets, n*pageSize+s*sectorSize)
			}
		}
	}
	return offsets
}

// growth draws how much of n appended bytes is found: nothing, all, or any number
// of sectors.
func growth(n int64, r *rand.Rand) int64 {
	if n <= 0 {
		return 0
	}
	switch r.IntN(3) {
	case 0:
		return 0
	case 1:
		return n
	}
	return min(n, (1+r.Int64N((n+sectorSize-1)/sectorSize))*sectorSize)
}

// survive copies n bytes of a sector to left.
func (c *content) survive(left *content, at, n int64) {
	b := make([]byte, n)
	if have := c.pages[at/pageSize]; have != nil {
		copy(b, have[at%pageSize:])
	}
	to := left.own(at/pageSize, func() bool { return true })
	copy(to[at%pageSize:], b)
}

// flip turns over a bit in what programs see and in what the disk has; false
// means that off is beyond the end.
func (c *content) flip(off int64, bit uint) bool {
	if off < 0 || off >= c.size {
		return false
	}
	n := off / pageSize
	shared := c.pages[n] == c.disk.pages[n]
	waiting := c.dirty[n]
	mine := c.own(n, func() bool { return true })
	mine[off%pageSize] ^= 1 << bit
	switch disk := c.disk.pages[n]; {
	case shared:
		c.disk.pages[n] = mine
	case disk != nil && off < c.disk.size:
		copied := *disk
		copied[off%pageSize] ^= 1 << bit
		c.disk.pages[n] = &copied
	}
	c.dirty[n] = waiting
	return true
}
