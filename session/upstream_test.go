package session

import "testing"

func TestFitting_FillsARoom(t *testing.T) {
	var mutations [][]byte
	for i := range 66 {
		mutations = append(mutations, make([]byte, 1000*i))
	}
	for rest := mutations; len(rest) > 0; {
		n, size := fitting(rest), 0
		for _, m := range rest[:n] {
			size += len(m) + RoomHead
		}
		if size > Room || n == 0 {
			t.Errorf("%d mutations of %d bytes together", n, size)
		}
		if n < len(rest) && size+len(rest[n])+RoomHead <= Room {
			t.Errorf("%d bytes had room for %d more", size, len(rest[n]))
		}
		rest = rest[n:]
	}
	if n := fitting([][]byte{make([]byte, Room)}); n != 1 {
		t.Errorf("one too large alone: %d", n)
	}
}
