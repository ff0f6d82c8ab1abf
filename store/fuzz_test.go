package store

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
)

// FuzzValues feeds the decoders of stored values. None may panic, and what one
// accepts must encode to the bytes it came from.
func FuzzValues(f *testing.F) {
	f.Add(NodeState{Node: 1, Frozen: "x"}.encode())
	f.Add(Identity{Cluster: "c", Site: "s"}.encode())
	f.Add(Entry{Seq: 1, Bytes: []byte("m")}.encode())
	f.Add(Bucket{Count: 3}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := decodeNodeState(7, b); err == nil && !bytes.Equal(n.encode(), b) {
			t.Errorf("node state %x encodes to %x", b, n.encode())
		}
		if id, err := decodeIdentity(b); err == nil && !bytes.Equal(id.encode(), b) {
			t.Errorf("identity %x encodes to %x", b, id.encode())
		}
		if e, err := decodeEntry(7, b); err == nil && !bytes.Equal(e.encode(), b) {
			t.Errorf("entry %x encodes to %x", b, e.encode())
		}
		if s, ok := decodeBucket(b); ok && !bytes.Equal(s.Append(nil), b) {
			t.Errorf("bucket %x encodes to %x", b, s.Append(nil))
		}
		key := []byte("key")
		if body, err := unseal(key, b); err == nil && !bytes.Equal(seal(key, body), b) {
			t.Errorf("sealed value %x", b)
		}
	})
}

// FuzzFile opens damaged files. Opening and checking may fail but must not
// panic or crash.
func FuzzFile(f *testing.F) {
	good, err := os.ReadFile(smallBase(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(0, []byte("garbage"))
	f.Add(4096, []byte{0xff})
	f.Add(3*4096+8, []byte{1, 0, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, at int, patch []byte) {
		b := bytes.Clone(good)
		if at < 0 || at >= len(b) {
			return
		}
		copy(b[at:], patch)
		path := filepath.Join(t.TempDir(), "base.db")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := Open(path, Options{NoSync: true, ReadOnly: true, InitialMmap: 1 << 20})
		if err != nil {
			if crm.CodeOf(err) == crm.CodeInternal {
				t.Errorf("Open: %v", err)
			}
			return
		}
		defer db.Close()
		_ = db.View(func(tx *Tx) error { _, err := tx.Check(t.Context()); return err })
		_, _ = dump(db)
	})
}
