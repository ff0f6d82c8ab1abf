package report

import "math/bits"

// A space numbers the combinations of group values. While all that could occur
// are few, a slot is the sum of codes × strides (dense); otherwise combinations
// are numbered as they are met, one dim after the other (sparse).
//
// Codes are those of the dims in order, and of the currency last.
type space struct {
	dense   bool
	cards   []int
	strides []int
	size    int // of a dense space

	levels []level // of a sparse one, by dim
}

// A level numbers the pairs of a slot over the dims before and a code.
type level struct {
	known map[uint64]uint32
	pairs []uint64 // by number: slot<<32 | code
}

// A space is dense up to denseSlots whatever the table's size, which leaves
// room for every currency there is, or half the table's rows, up to maxDense.
const (
	denseSlots = 1 << 15
	maxDense   = 1 << 24
)

func newSpace(dims []*dim, currencies, rows int) *space {
	s := &space{dense: true, size: 1}
	for _, d := range dims {
		s.cards = append(s.cards, d.card)
	}
	s.cards = append(s.cards, currencies)
	limit := min(max(denseSlots, rows/2), maxDense)
	s.strides = make([]int, len(s.cards))
	for i := len(s.cards) - 1; i >= 0 && s.dense; i-- {
		s.strides[i] = s.size
		s.dense = s.cards[i] <= limit/s.size
		s.size *= s.cards[i]
	}
	if !s.dense {
		s.levels = make([]level, len(s.cards))
		for i := range s.levels {
			s.levels[i].known = map[uint64]uint32{}
		}
	}
	return s
}

// slots returns how many there are so far.
func (s *space) slots() int {
	if s.dense {
		return s.size
	}
	return len(s.levels[len(s.levels)-1].pairs)
}

// enter sets slots to the numbers of the rows at the places of a block whose
// codes are given by dim.
func (s *space) enter(codes [][]uint32, at, slots []uint32) {
	for i, place := range at {
		slot := uint32(0)
		for j := range s.levels {
			slot = s.levels[j].number(slot, codes[j][place])
		}
		slots[i] = slot
	}
}

func (l *level) number(slot, code uint32) uint32 {
	pair := uint64(slot)<<32 | uint64(code)
	n, ok := l.known[pair]
	if !ok {
		n = uint32(len(l.pairs))
		l.known[pair] = n
		l.pairs = append(l.pairs, pair)
	}
	return n
}

// decode writes the codes of a slot.
func (s *space) decode(slot uint32, codes []uint32) {
	if s.dense {
		for i, stride := range s.strides {
			codes[i] = slot / uint32(stride) % uint32(s.cards[i])
		}
		return
	}
	for j := len(s.levels) - 1; j >= 0; j-- {
		pair := s.levels[j].pairs[slot]
		slot, codes[j] = uint32(pair>>32), uint32(pair)
	}
}

// key packs the ranks of codes into one number; wide if 64 bits may not do.
func (s *space) key(codes []uint32, ranks [][]uint32) (key uint64, wide bool) {
	room := uint64(1)
	for i, code := range codes {
		hi, lo := bits.Mul64(room, uint64(s.cards[i]))
		key, room, wide = key*uint64(s.cards[i])+uint64(ranks[i][code]), lo, wide || hi > 0
	}
	return key, wide
}
