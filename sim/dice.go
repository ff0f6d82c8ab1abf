package sim

import (
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"time"
)

// Dice are the randomness of a run: an independent generator for each concern,
// such as the delays of one line or the torn sectors of one disk.
type dice struct {
	seed uint64
	of   map[string]*rand.Rand
}

func newDice(seed uint64) *dice { return &dice{seed: seed, of: map[string]*rand.Rand{}} }

// For returns the generator of a concern. It is made at the first call and goes
// on at later ones.
func (d *dice) For(concern string) *rand.Rand {
	r := d.of[concern]
	if r == nil {
		h := fnv.New64a()
		h.Write([]byte(concern))
		r = rand.New(rand.NewPCG(d.seed, h.Sum64()))
		d.of[concern] = r
	}
	return r
}

// upTo returns a duration in [0, most].
func upTo(r *rand.Rand, most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return time.Duration(r.Int64N(int64(most) + 1))
}

// between returns a duration in [least, most].
func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return least + upTo(r, most-least)
}

// pick returns one of the list, which must not be empty.
func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// A byteSource is randomness for what reads bytes, such as record ids.
type byteSource struct{ r *rand.Rand }

// Read fills p.
func (s byteSource) Read(p []byte) (int, error) {
	var word [8]byte
	for i := 0; i < len(p); i += len(word) {
		binary.LittleEndian.PutUint64(word[:], s.r.Uint64())
		copy(p[i:], word[:])
	}
	return len(p), nil
}
