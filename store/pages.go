package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"slices"
)

// checkFile verifies that bbolt can walk the file at path without leaving it:
// a meta page is valid, every page reachable from it lies in the file, is
// reached once, says its own number and has its elements, in key order, inside
// itself. It reads the whole file, about a second a gigabyte, and trusts
// nothing. The file must not be written meanwhile.
func checkFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := readMeta(f)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if m.pages > uint64(info.Size())/uint64(m.pageSize) {
		return fmt.Errorf("it is cut off: %d pages of %d bytes, but %d bytes in all", m.pages, m.pageSize, info.Size())
	}
	return checkPages(f, m)
}

// A meta is the part of bbolt's meta page that a walk needs.
type meta struct {
	pageSize uint32
	root     uint64 // page of the root bucket
	pages    uint64 // page numbers in use are below
	txid     uint64
}

// bbolt's numbers are in the byte order of the machine that wrote them; so are
// ours to read, since a file of another byte order fails on its magic.
var native = binary.NativeEndian

const (
	boltMagic     = 0xED0CDAED
	boltVersion   = 2
	pageHeader    = 16
	metaSize      = 64
	bucketHeader  = 16
	elementSize   = 16
	flagBranch    = 0x01
	flagLeaf      = 0x02
	elementBucket = 0x01
)

// readMeta returns the newer valid one of the two meta pages. The second starts
// at the page size, which only a valid one tells, so all sizes are tried.
func readMeta(r io.ReaderAt) (meta, error) {
	var best meta
	found := false
	for at := int64(0); at <= 64<<10; at = max(at*2, 1<<10) {
		m, ok := metaAt(r, at)
		if ok && (at == 0 || at == int64(m.pageSize)) && (!found || m.txid > best.txid) {
			best, found = m, true
		}
	}
	if !found {
		return best, errors.New("neither of its two heads is valid")
	}
	return best, nil
}

func metaAt(r io.ReaderAt, at int64) (meta, bool) {
	var b [metaSize]byte
	if _, err := r.ReadAt(b[:], at+pageHeader); err != nil {
		return meta{}, false
	}
	h := fnv.New64a()
	h.Write(b[:metaSize-8])
	m := meta{pageSize: native.Uint32(b[8:]), root: native.Uint64(b[16:]), pages: native.Uint64(b[40:]), txid: native.Uint64(b[48:])}
	ok := native.Uint32(b[:]) == boltMagic && native.Uint32(b[4:]) == boltVersion && native.Uint64(b[56:]) == h.Sum64()
	return m, ok && m.pageSize >= 1<<10 && m.pageSize <= 64<<10
}

// A pageWalk visits the pages of one snapshot and trusts none of them.
type pageWalk struct {
	r    io.ReaderAt
	m    meta
	seen []uint64 // a bit a page

	from    [][]byte                                        // where visits start: names of nested buckets, then a key; nil: at the first
	visit   func(path [][]byte, key, value []byte) error    // called for each value in order, with the names of the buckets around it; valid until it returns. nil: not called
	damaged func(path [][]byte, keys span, err error) error // called for each part of the tree that is not sound, which is left out; nil: it ends the walk

	path    [][]byte             // of the bucket at hand
	buffers [maxDepth + 1][]byte // of the pages from the root down
	stopped bool                 // visit or damaged returned an error
}

func checkPages(r io.ReaderAt, m meta) error {
	return newPageWalk(r, m).run()
}

func newPageWalk(r io.ReaderAt, m meta) *pageWalk {
	return &pageWalk{r: r, m: m, seen: make([]uint64, m.pages/64+1)}
}

// run walks the whole tree, or what is left of it from w.from on.
func (w *pageWalk) run() error { return w.part(span{}, w.page(w.m.root, span{}, 0)) }

// part hands the damage of a part of the tree to who wants to go on without it.
func (w *pageWalk) part(keys span, err error) error {
	if err == nil || w.stopped || w.damaged == nil {
		return err
	}
	err = w.damaged(w.path, keys, err)
	w.stopped = err != nil
	return err
}

// A span is the keys that a page may hold: from lo on and below hi, nil where
// there is no bound.
type span struct{ lo, hi []byte }

func (s span) holds(key []byte) bool {
	return bytes.Compare(key, s.lo) >= 0 && (s.hi == nil || bytes.Compare(key, s.hi) < 0)
}

// maxDepth bounds the height of the tree with its nested buckets; a sound file
// of any size stays far below.
const maxDepth = 64

func (w *pageWalk) page(id uint64, keys span, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("page %d: nested deeper than %d", id, maxDepth)
	}
	b, err := w.read(id, depth)
	if err == nil {
		err = w.elements(b, keys, depth)
	}
	if err != nil && !w.stopped {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return err
}

// read returns the page with its overflow and marks it as seen. It is valid
// until the next page of that depth.
func (w *pageWalk) read(id uint64, depth int) ([]byte, error) {
	if id < 2 || id >= w.m.pages {
		return nil, fmt.Errorf("outside 2..%d", w.m.pages)
	}
	size := int(w.m.pageSize)
	b := slices.Grow(w.buffers[depth][:0], size)[:size]
	w.buffers[depth] = b
	if _, err := w.r.ReadAt(b, int64(id)*int64(size)); err != nil {
		return nil, err
	}
	overflow := uint64(native.Uint32(b[12:]))
	if native.Uint64(b) != id || overflow >= w.m.pages-id {
		return nil, fmt.Errorf("says it is page %d and %d more", native.Uint64(b), overflow)
	}
	for i := id; i <= id+overflow; i++ {
		if w.seen[i/64]&(1<<(i%64)) != 0 {
			return nil, fmt.Errorf("used twice (%d)", i)
		}
		w.seen[i/64] |= 1 << (i % 64)
	}
	if overflow > 0 {
		b = slices.Grow(b, int(overflow)*size)[:int(overflow+1)*size]
		w.buffers[depth] = b
		if _, err := w.r.ReadAt(b[size:], int64(id+1)*int64(size)); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// elements checks the content of a page, or of a small bucket kept inside an
// element of one.
func (w *pageWalk) elements(b []byte, keys span, depth int) error {
	flags, count := native.Uint16(b[8:]), int(native.Uint16(b[10:]))
	if flags != flagBranch && flags != flagLeaf || pageHeader+count*elementSize > len(b) {
		return fmt.Errorf("flags %#x with %d elements in %d bytes", flags, count, len(b))
	}
	if flags == flagBranch && count == 0 {
		return errors.New("a branch without elements")
	}
	from := w.start()
	for i := range count {
		e := b[pageHeader+i*elementSize:]
		key, value, err := element(e, flags)
		if err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
		if !keys.holds(key) || i > 0 && bytes.Equal(key, keys.lo) {
			return fmt.Errorf("element %d: key out of order", i)
		}
		keys.lo = key
		switch {
		case flags == flagBranch:
			err = w.child(b, i, keys, from, depth)
		case bytes.Compare(key, from) < 0:
		case native.Uint32(e)&elementBucket != 0:
			err = w.bucket(key, value, depth)
		case w.visit != nil:
			err = w.visit(w.path, key, value)
			w.stopped = err != nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// start returns the first key of the bucket at hand that is to be visited, nil
// for all.
func (w *pageWalk) start() []byte {
	n := len(w.path)
	if n >= len(w.from) || !slices.EqualFunc(w.path, w.from[:n], bytes.Equal) {
		return nil
	}
	return w.from[n]
}

// child checks the page under element i of a branch, unless it ends before
// from; its keys lie between that element's and the next.
func (w *pageWalk) child(b []byte, i int, keys span, from []byte, depth int) error {
	e := b[pageHeader+i*elementSize:]
	if next := pageHeader + (i+1)*elementSize; i+1 < int(native.Uint16(b[10:])) {
		key, _, err := element(b[next:], flagBranch)
		if err != nil {
			return fmt.Errorf("element %d: %w", i+1, err)
		}
		keys.hi = key
	}
	if keys.hi != nil && bytes.Compare(keys.hi, from) <= 0 {
		return nil
	}
	return w.part(keys, w.page(native.Uint64(e[8:]), keys, depth+1))
}

// element returns the key and value of the element that e begins with. A leaf
// element is flags:4 position:4 key:4 value:4, a branch element position:4
// key:4 page:8; positions count from the element.
func element(e []byte, flags uint16) (key, value []byte, err error) {
	pos, ksize, vsize := uint64(native.Uint32(e)), uint64(native.Uint32(e[4:])), uint64(0)
	if flags == flagLeaf {
		pos, ksize, vsize = uint64(native.Uint32(e[4:])), uint64(native.Uint32(e[8:])), uint64(native.Uint32(e[12:]))
	}
	if pos+ksize+vsize > uint64(len(e)) || ksize > 0 && pos < elementSize {
		return nil, nil, fmt.Errorf("%d+%d bytes at %d of %d", ksize, vsize, pos, len(e))
	}
	return e[pos : pos+ksize], e[pos+ksize : pos+ksize+vsize], nil
}

// bucket checks a nested bucket: the number of its root page, or 0 and the page
// itself.
func (w *pageWalk) bucket(name, value []byte, depth int) error {
	w.path = append(w.path, name)
	defer func() { w.path = w.path[:len(w.path)-1] }()
	return w.part(span{}, w.root(value, depth))
}

func (w *pageWalk) root(value []byte, depth int) error {
	if len(value) < bucketHeader {
		return fmt.Errorf("a bucket of %d bytes", len(value))
	}
	if root := native.Uint64(value); root != 0 {
		return w.page(root, span{}, depth+1)
	}
	if len(value) < bucketHeader+pageHeader {
		return fmt.Errorf("a bucket of %d bytes", len(value))
	}
	return w.elements(value[bucketHeader:], span{}, depth+1)
}
