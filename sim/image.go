package sim

import (
	"bytes"
	"math/rand/v2"
)

// Sizes of what a disk and bbolt write, in bytes.
const (
	sectorSize = 512 // what a disk writes whole or not at all
	metaPages  = 2   // bbolt's, at the start of the file
)

// A crashImage is what a file holds after the power failed during a commit.
type crashImage struct {
	Bytes []byte
	Data  int  // sectors of data pages that were written, of
	Of    int  // those that the commit writes
	Meta  bool // any of a meta page was
}

// crash returns what may be on the disk when the power fails while bbolt takes
// a file from synced, as of its last commit, to written, as of the next one.
//
// bbolt writes the data pages, syncs, writes one meta page, and syncs. Until the
// first sync any of the data sectors may be there, in any order; the meta page
// none of it. After it all of the data is, and any sectors of the meta page. A
// torn meta page fails its checksum, and the other one counts. The file grows
// before anything is written to it, and is synced then.
func crash(synced, written []byte, page int, r *rand.Rand) crashImage {
	img := crashImage{Bytes: make([]byte, max(len(synced), len(written)))}
	copy(img.Bytes, synced)
	data, meta := changedSectors(img.Bytes, written, page)
	img.Of = len(data)
	if r.IntN(2) == 0 {
		img.Data = img.write(written, some(r, data))
		return img
	}
	img.Data = img.write(written, data)
	img.Meta = img.write(written, some(r, meta)) > 0
	return img
}

func (img *crashImage) write(from []byte, sectors []int) int {
	for _, s := range sectors {
		copy(img.Bytes[s*sectorSize:], from[s*sectorSize:min(len(from), (s+1)*sectorSize)])
	}
	return len(sectors)
}

// changedSectors returns the numbers of the sectors that differ.
func changedSectors(old, now []byte, page int) (data, meta []int) {
	for s := 0; s*sectorSize < len(now); s++ {
		from, to := s*sectorSize, min(len(now), (s+1)*sectorSize)
		switch {
		case bytes.Equal(old[from:to], now[from:to]):
		case from < metaPages*page:
			meta = append(meta, s)
		default:
			data = append(data, s)
		}
	}
	return data, meta
}

// some returns a part of the list: none, all, or each with an even chance.
func some(r *rand.Rand, list []int) []int {
	switch r.IntN(4) {
	case 0:
		return nil
	case 1:
		return list
	}
	var out []int
	for _, s := range list {
		if r.IntN(2) == 0 {
			out = append(out, s)
		}
	}
	return out
}

// flip changes one bit of each occurrence of needle in file, the same one, and
// returns how many there were: bbolt leaves old copies of a value in free pages,
// and only it knows which one counts.
func flip(file, needle []byte, r *rand.Rand) int {
	if len(needle) == 0 {
		return 0
	}
	at, bit := r.IntN(len(needle)), byte(1)<<r.IntN(8)
	n := 0
	for from := 0; ; n++ {
		i := bytes.Index(file[from:], needle)
		if i < 0 {
			return n
		}
		file[from+i+at] ^= bit
		from += i + len(needle)
	}
}
