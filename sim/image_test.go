package sim

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// commits returns a bbolt file before and after one commit.
func commits(t *testing.T) (synced, written []byte, page int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f.db")
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoSync: true, NoFreelistSync: true})
	if err != nil {
		t.Fatal(err)
	}
	fill := func(generation string) []byte {
		if err := db.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("b"))
			for i := range 200 {
				if err == nil {
					err = b.Put(fmt.Appendf(nil, "key %d", i*7%200), bytes.Repeat([]byte(generation), 40))
				}
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	fill("zero")
	synced = fill("one.")
	written = fill("two.")
	page = db.Info().PageSize
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return synced, written, page
}

// generation opens an image and returns which commit it shows, "" if it is
// damaged.
func generation(t *testing.T, image []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.db")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	shown := map[string]int{}
	func() {
		defer func() {
			if recover() != nil {
				shown[""]++
			}
		}()
		db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
		if err != nil {
			shown[""]++
			return
		}
		defer db.Close()
		if err := db.View(func(tx *bolt.Tx) error {
			for err := range tx.Check() {
				return err
			}
			return tx.Bucket([]byte("b")).ForEach(func(_, v []byte) error { shown[string(v[:4])]++; return nil })
		}); err != nil {
			shown[""]++
		}
	}()
	for g, n := range shown {
		if n == 200 {
			return g
		}
	}
	return ""
}

func TestCrash_ShowsTheOneCommitOrTheOther(t *testing.T) {
	synced, written, page := commits(t)
	seen := map[string]int{}
	torn := 0
	for seed := range uint64(60) {
		img := crash(synced, written, page, rand.New(rand.NewPCG(seed, 0)))
		g := generation(t, img.Bytes)
		seen[g]++
		if g == "" {
			t.Fatalf("seed %d: an image that bbolt's order of writes allows (%d of %d data sectors, meta %v) is damaged", seed, img.Data, img.Of, img.Meta)
		}
		if img.Data > 0 && img.Data < img.Of {
			torn++
		}
	}
	if seen["one."] == 0 || seen["two."] == 0 || torn == 0 {
		t.Errorf("images show %v and %d are torn; want both commits and some torn", seen, torn)
	}
}

// TestCrash_TheOrderOfWritesIsWhatSaves shows that the images can damage a file:
// one that has the meta page and lacks data does.
func TestCrash_TheOrderOfWritesIsWhatSaves(t *testing.T) {
	synced, written, page := commits(t)
	old := make([]byte, len(written))
	copy(old, synced)
	data, meta := changedSectors(old, written, page)
	img := crashImage{Bytes: old}
	img.write(written, meta)
	img.write(written, data[:len(data)/2])
	if g := generation(t, img.Bytes); g != "" {
		t.Errorf("a file with its meta page and half of its data shows %q", g)
	}
}

func TestFlip_ChangesEachOccurrenceAlike(t *testing.T) {
	file := []byte("..needle....needle..")
	if n := flip(file, []byte("needle"), rand.New(rand.NewPCG(1, 2))); n != 2 {
		t.Fatalf("%d occurrences flipped, want 2", n)
	}
	a, b := file[2:8], file[12:18]
	if bytes.Equal(a, []byte("needle")) || !bytes.Equal(a, b) {
		t.Errorf("got %q and %q", a, b)
	}
}
