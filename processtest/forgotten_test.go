package processtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// TestForgottenEditsShow takes acknowledged edits out of a journal behind the
// node's back, and shows that the clerks and the comparison of the nodes tell:
// a proof that cannot fail proves nothing.
func TestForgottenEditsShow(t *testing.T) {
	ctx := t.Context()
	c := startCluster(ctx, t, t.TempDir(), 1, map[string][]string{"lisbon": {"iberia"}})
	r := NewCrash(c, t.Logf)
	master, branch := r.Masters[0], r.Replicas[0]
	must(t, r.Hire(ctx, branch, 2, "iberia"))
	journal := filepath.Join(branch.Dir, "journal.db")
	edit := func(c *Clerk, n int) {
		t.Helper()
		for range n {
			must(t, c.next(ctx))
		}
		if len(c.wrong) > 0 {
			t.Fatal(c.wrong)
		}
	}
	// restart changes the files of the dead branch and lets the clerk look at it.
	restart := func(c *Clerk, change func()) {
		t.Helper()
		must(t, branch.Kill())
		change()
		must(t, branch.Start())
		_, err := branch.AwaitReady(ctx)
		must(t, err)
		must(t, c.look(ctx, false))
	}
	first, second := r.clerks[0], r.clerks[1]
	edit(first, 30)
	edit(second, 20)
	must(t, Await(ctx, "the edits to be decided", func() (bool, error) {
		out, err := first.client.Outbox(ctx)
		return err == nil && len(out) == 0, err
	}))
	must(t, master.Kill())

	restart(first, func() {})
	edit(first, 3)
	restart(first, func() { forgetLastCommit(t, journal) })
	wantWrong(t, first.wrong, "edit 33 is lost")

	var old []byte
	restart(second, func() { old = readFile(t, journal) })
	edit(second, 2)
	restart(second, func() { must(t, os.WriteFile(journal, old, 0o600)) })
	wantWrong(t, second.wrong, "edit 21 is lost", "edit 22 is lost")

	must(t, master.Start())
	_, err := master.AwaitReady(ctx)
	must(t, err)
	v, err := r.Prove(ctx)
	must(t, err)
	wantWrong(t, v.Wrong[len(first.wrong)+len(second.wrong):], "its clerks made 55 edits, and it gave 52 numbers",
		"m1: r-lisbon-0: contact 0", "m1: r-lisbon-1: contact 4", "m1: r-lisbon-1: contact 5",
		"r-lisbon: r-lisbon-0: contact 0", "r-lisbon: r-lisbon-1: contact 4", "r-lisbon: r-lisbon-1: contact 5")
}

// wantWrong compares findings with the texts that are in them, one each.
func wantWrong(t *testing.T, got []string, want ...string) {
	t.Helper()
	for i, text := range want {
		if len(got) != len(want) || !strings.Contains(got[i], text) {
			t.Fatalf("got %d findings\n%s\nwant %d with\n%s", len(got), strings.Join(got, "\n"), len(want), strings.Join(want, "\n"))
		}
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

// forgetLastCommit takes the last transaction out of a bbolt file: it spoils the
// checksum of the newer of the two meta pages, which transactions write in turn
// (bbolt's meta.go), and what the older one leads to is whole until the next
// commit.
func forgetLastCommit(t *testing.T, path string) {
	t.Helper()
	const checksumAt = 16 + 56 // after the page's header and the meta's other fields
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	must(t, err)
	newer := 0
	must(t, db.View(func(tx *bolt.Tx) error {
		newer = tx.ID() % 2 * db.Info().PageSize
		return nil
	}))
	must(t, db.Close())
	b := readFile(t, path)
	b[newer+checksumAt] ^= 0xff
	must(t, os.WriteFile(path, b, 0o600))
}
