package master

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// masterFile returns the bytes of a small master.db whose last entry has the
// index.
func masterFile(tb testing.TB, index uint64) []byte {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "master.db")
	f, err := OpenFSM(FSMConfig{Path: path, Store: store.Options{NoSync: true, InitialMmap: 1 << 20}})
	if err != nil {
		tb.Fatal(err)
	}
	f.Apply(1, 1, mustEncode(tb, TimelineEntry{Timeline: 7, Cluster: "c1", Node: 1, ReceivedMillis: 1000, Site: "hq"}))
	w := first()
	for i := uint64(2); i <= index; i++ {
		if v := f.Apply(i, 1, mustEncode(tb, w.push(w.mutation(territoryOp(fmt.Sprint("t", i)))))); v.Err != nil {
			tb.Fatal(v.Err)
		}
	}
	if err := f.Close(); err != nil {
		tb.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// backupOf returns a backup file of a database, and its trailer's description.
func backupOf(tb testing.TB, database []byte) ([]byte, BackupInfo) {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "base.db")
	if err := os.WriteFile(path, database, 0o600); err != nil {
		tb.Fatal(err)
	}
	db, err := store.Open(path, store.Options{ReadOnly: true})
	if err != nil {
		tb.Fatal(err)
	}
	var b BackupInfo
	err = db.View(func(tx *store.Tx) error {
		b, err = describeBackup(tx, time.Unix(1_700_000_000, 0))
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		tb.Fatal(err)
	}
	return resealed(database, b), b
}

// resealed is a database behind which a trailer says that this is what was
// written: only what the database holds can tell that it was not.
func resealed(database []byte, b BackupInfo) []byte {
	sum := sha256.Sum256(database)
	b.Size, b.SHA256 = int64(len(database)), hex.EncodeToString(sum[:])
	return b.appendTrailer(bytes.Clone(database))
}

// patched is b with another passage; nil if that would change nothing.
func patched(b []byte, at uint32, patch []byte) []byte {
	i := int(at % uint32(len(b)))
	out := bytes.Clone(b)
	copy(out[i:], patch)
	if bytes.Equal(out, b) {
		return nil
	}
	return out
}

// FuzzVerifyBackup changes backup files, with the checksums of the original and
// with new ones. Neither may bring the reader down; a change that the checksums
// do not cover, or that keeps the file from holding what it says, is refused.
func FuzzVerifyBackup(f *testing.F) {
	database := masterFile(f, 12)
	whole, info := backupOf(f, database)
	f.Add(uint32(0), []byte("garbage"), false)
	f.Add(uint32(len(whole)-5), []byte{0xff}, false)
	f.Add(uint32(len(whole)-9), []byte{0xff, 0xff, 0xff, 0xff}, false)
	f.Add(uint32(info.Size), []byte(`{"format":1,"size":-1}`), false)
	f.Add(uint32(4096), []byte{0xff, 1, 2}, true)
	f.Add(uint32(3*4096+8), []byte{1, 0, 0xff, 0xff}, true)
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, anew bool) {
		var b []byte
		if anew {
			if b = patched(database, at, patch); b != nil {
				b = resealed(b, info)
			}
		} else {
			b = patched(whole, at, patch)
		}
		if b == nil {
			return
		}
		path := filepath.Join(t.TempDir(), "b.db")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := VerifyBackup(t.Context(), path)
		switch {
		case crm.CodeOf(err) == crm.CodeInternal:
			t.Errorf("not told as damage: %v", err)
		case err == nil && !anew:
			t.Errorf("a changed file is good: %+v", got)
		case err == nil && got.State != info.State:
			t.Errorf("a changed state is good: %+v", got)
		}
	})
}

// FuzzInstallSnapshot has a master that lags take a changed file from the leader.
// It refuses the file and keeps its own, or holds what can be read.
func FuzzInstallSnapshot(f *testing.F) {
	const index = 12
	good, own := masterFile(f, index), masterFile(f, 3)
	f.Add(uint32(0), []byte("garbage"), uint16(0))
	f.Add(uint32(4096), []byte{0xff, 1, 2}, uint16(0))
	f.Add(uint32(3*4096+8), []byte{1, 0, 0xff, 0xff}, uint16(0))
	f.Add(uint32(0), []byte{}, uint16(1))
	f.Fuzz(func(t *testing.T, at uint32, patch []byte, cut uint16) {
		b := bytes.Clone(good)
		copy(b[int(at)%len(b):], patch)
		b = b[:len(b)-int(cut)%len(b)]
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "master.db"), own, 0o600); err != nil {
			t.Fatal(err)
		}
		data, err := store.Open(filepath.Join(dir, "master.db"), store.Options{NoSync: true, InitialMmap: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		defer data.Close()
		fatal := func(error) {}
		m, err := newFSM(ledgerConfig{}.withDefaults(), data, &watchdog{after: time.Minute, fatal: fatal}, fatal)
		if err != nil {
			t.Fatal(err)
		}
		if err := installFile(&snapshots{fsm: m, dir: dir}, b, index); err != nil {
			if got := m.published().at.index; got != 3 {
				t.Errorf("refused (%v), and the master is at %d", err, got)
			}
		}
		_ = data.View(func(tx *store.Tx) error {
			found, err := tx.Check(t.Context())
			if m.published().at.index == 3 && (err != nil || len(found) > 0) {
				t.Errorf("its own file was kept, and has %v, %v", found, err)
			}
			return err
		})
	})
}

// installFile does what Raft does with a snapshot that the leader sends.
func installFile(s *snapshots, b []byte, index uint64) error {
	k, err := s.Create(raft.SnapshotVersionMax, index, 1, raft.Configuration{}, 1, nil)
	if err != nil {
		return err
	}
	for len(b) > 0 {
		n := min(len(b), 64<<10)
		if _, err := k.Write(b[:n]); err != nil {
			return errors.Join(err, k.Cancel())
		}
		b = b[n:]
	}
	if err := k.Close(); err != nil {
		return err
	}
	_, r, err := s.Open(k.ID())
	if err != nil {
		return err
	}
	return errors.Join(s.fsm.Restore(r), r.Close())
}

// FuzzFetchSeed has a joining master read what a peer answers. It takes no file
// but one of the checksum announced, keeps no more than was sent, and never
// begins to believe in files that are not there.
func FuzzFetchSeed(f *testing.F) {
	file := masterFile(f, 3)[:4096]
	sum := sha256.Sum256(file)
	answer := func(size uint64, rest []byte) []byte {
		b := append([]byte{seedHere}, sum[:]...)
		for _, n := range []uint64{size, 0} {
			for shift := 56; shift >= 0; shift -= 8 {
				b = append(b, byte(n>>shift))
			}
		}
		return append(b, rest...)
	}
	f.Add(answer(uint64(len(file)), file))
	f.Add(answer(1<<63, file))
	f.Add(answer(0, nil))
	f.Add([]byte{seedElse, 0, 3, 'n', 'o', '!'})
	f.Add([]byte{seedRefused, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, said []byte) {
		dir := t.TempDir()
		s := &seeder{dir: dir, peers: []string{"m1"}, log: slog.New(slog.DiscardHandler)}
		s.dial = func(context.Context, string) (net.Conn, error) { return &told{r: bytes.NewReader(said)}, nil }
		for range 2 { // what has begun is asked for again
			if err := s.fetch(t.Context(), "m1", false); err == nil {
				t.Errorf("a master's records came as %x", said)
			}
		}
		if p := s.begun(); p.size > 2*int64(len(said)) {
			t.Errorf("%d bytes are kept of %d that came twice", p.size, len(said))
		}
		if _, err := os.Stat(filepath.Join(dir, "master.db")); err == nil {
			t.Error("there are records")
		}
	})
}

// told is a connection whose other end says something and hangs up.
type told struct {
	net.Conn // nil: nothing else is called
	r        *bytes.Reader
}

func (c *told) Read(b []byte) (int, error)      { return c.r.Read(b) }
func (c *told) Write(b []byte) (int, error)     { return len(b), nil }
func (c *told) Close() error                    { return nil }
func (c *told) SetDeadline(time.Time) error     { return nil }
func (c *told) SetReadDeadline(time.Time) error { return nil }
