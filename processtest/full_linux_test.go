package processtest

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
)

// mountSmall mounts a tmpfs of so many bytes.
func mountSmall(t *testing.T, bytes string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a small disk takes root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+bytes); err != nil {
		t.Skipf("a small disk cannot be mounted: %v", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(dir, 0)) })
	return dir
}

// fill writes a file until the disk has no room.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// TestFullDisk_Replica fills the disk of a branch: the clerk is told disk_full,
// reads go on, and once there is room edits do too, without a restart. What was
// acknowledged is there.
func TestFullDisk_Replica(t *testing.T) {
	t.Parallel()
	dir := mountSmall(t, "64m")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := startAt(ctx, t, 1, func(name string) (Place, error) {
		if name == "r-lisbon" {
			return Place{Base: dir}, nil
		}
		return Place{}, nil
	})
	w := newWriter(ctx, t, c.Replicas[0], "clerk", 0)
	must(t, w.edits(ctx, 50, "before"))
	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast)
	var full *crm.Error
	if err := w.edits(ctx, 10_000, "full"); !errors.As(err, &full) || full.Code != crm.CodeDiskFull {
		t.Fatalf("a clerk at a full disk is told %v", err)
	}
	acked := w.count()
	if _, _, err := w.client.Get(ctx, "contact", w.contact, httpapi.Asked{}); err != nil {
		t.Errorf("a read at a full disk: %v", err)
	}
	// What others edit meanwhile reaches the branch when it has room.
	head, err := c.Masters[0].Client()
	must(t, err)
	for range 100 {
		_, err := head.Create(ctx, "account", httpapi.Fields{"name": "from head office", "territory": "iberia"}, 0)
		must(t, err)
	}
	if err := w.edits(ctx, 10_000, "still full"); !errors.As(err, &full) || full.Code != crm.CodeDiskFull {
		t.Fatalf("a clerk at a full disk is told %v", err)
	}
	must(t, os.Remove(ballast))
	start := time.Now()
	must(t, Await(ctx, "room for an edit", func() (bool, error) { err := w.edits(ctx, 1, "room"); return err == nil, err }))
	must(t, w.edits(ctx, 50, "after"))
	t.Logf("%d edits acknowledged up to the full disk; the first after room was made took %v", acked, time.Since(start).Round(time.Millisecond))
	verifyFrom(ctx, t, c, w, c.Replicas[0])
}

// edits makes n edits one by one, up to the first error.
func (w *writer) edits(ctx context.Context, n int, name string) error {
	for range n {
		w.tried++
		key := name + "-" + time.Now().Format(time.RFC3339Nano)
		if _, err := w.client.Mutate(ctx, w.edit(key), w.wait); err != nil {
			return err
		}
		w.acked[key] = true
	}
	return nil
}

// verifyFrom verifies a cluster, one process of which has its directory on a
// file system of this process or of the test, where its files must not be mapped
// from here: the digests are read from a copy.
func verifyFrom(ctx context.Context, t *testing.T, c *Cluster, w *writer, p *Process) {
	t.Helper()
	settle(ctx, t, c, w)
	must(t, c.Stop())
	copied := t.TempDir()
	for _, name := range []string{"master.db", "base.db", "journal.db"} {
		copyFile(t, filepath.Join(p.Dir, name), filepath.Join(copied, name))
	}
	p.Dir = copied
	compareDigests(t, c)
}

// copyFile copies a file that is there.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	must(t, err)
	defer in.Close()
	out, err := os.Create(to)
	must(t, err)
	_, err = io.Copy(out, in)
	must(t, errors.Join(err, out.Close()))
}
