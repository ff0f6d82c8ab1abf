package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/httpapi"
)

// spoilAccount flips a bit of the first account in a stopped node's file.
func spoilAccount(t *testing.T, path string) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	must(t, err)
	must(t, db.Update(func(tx *bolt.Tx) error {
		accounts := tx.Bucket([]byte("live")).Bucket(binary.BigEndian.AppendUint16(nil, uint16(catalog.Account)))
		k, v := accounts.Cursor().First()
		k, v = bytes.Clone(k), bytes.Clone(v)
		v[len(v)-1] ^= 1
		return accounts.Put(k, v)
	}))
	must(t, db.Close())
}

// scrubAll does a whole round.
func scrubAll(t *testing.T, step func(context.Context, []byte, int) ([]byte, int, error)) (found int) {
	t.Helper()
	for at, first := []byte(nil), true; first || at != nil; first = false {
		next, n, err := step(t.Context(), at, 100)
		must(t, err)
		at, found = next, found+n
	}
	return found
}

// A running branch mends a record that has rotted, over a real connection. The
// master, whose own record has, stops and does not start on these files again.
func TestPair_Damage(t *testing.T) {
	master, replica := newPair(t)
	replica.stop()
	spoilAccount(t, filepath.Join(replica.set.Dir, "base.db"))
	replica = run(t, replica.set)
	if n := scrubAll(t, replica.Replica().ScrubBase); n == 0 {
		t.Fatal("the scrub found nothing")
	}
	eventually(t, func() error {
		var s Status
		if err := replica.api.Status(t.Context(), &s); err != nil || s.Repaired != 1 || s.RepairedRecords != 1 || len(s.Suspect) > 0 {
			return errors.Join(err, errors.New("it is not repaired"))
		}
		return nil
	})
	if n := scrubAll(t, replica.Replica().ScrubBase) + scrubAll(t, replica.Replica().ScrubJournal); n > 0 {
		t.Errorf("%d findings are left", n)
	}
	if found, err := replica.api.Check(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("check: %v %v", found, err)
	}
	if n := scrubAll(t, master.Master().Scrub); n > 0 {
		t.Errorf("%d findings in a sound master", n)
	}
	replica.stop()
	master.stop()

	spoilAccount(t, filepath.Join(master.set.Dir, "master.db"))
	fatal := make(chan error, 1)
	env := quiet
	env.Fatal = func(err error) { fatal <- err }
	n, err := Open(master.set, env)
	must(t, err)
	if n := scrubAll(t, n.Master().Scrub); n == 0 {
		t.Fatal("the scrub of the master found nothing")
	}
	if err := <-fatal; crm.CodeOf(err) != crm.CodeCorrupt {
		t.Errorf("the master stops with %v", err)
	}
	must(t, n.Close())
	n, err = Open(master.set, env)
	if err == nil {
		must(t, n.Close())
	}
	if crm.CodeOf(err) != "distrusted" {
		t.Errorf("started again on its files: %v", err)
	}
}

// Findings say which part of the digest they concern.
func TestCheckDir_NamesTheBucket(t *testing.T) {
	_, replica := newPair(t)
	replica.stop()
	dir := clone(t, replica.set.Dir)
	spoilAccount(t, filepath.Join(dir, "base.db"))
	found, err := CheckDir(t.Context(), dir, t.TempDir())
	must(t, err)
	kinds := map[string]bool{}
	for _, f := range found {
		if f.Territory != 0 && f.Bucket != nil {
			kinds[f.Kind] = true
		}
	}
	if !kinds["base/live"] || !kinds["base/digest"] {
		t.Errorf("found %+v", []httpapi.Finding(found))
	}
}
