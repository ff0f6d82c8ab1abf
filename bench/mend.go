package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/replica"
	"github.com/tradepost-crm/tradepost/store"
)

const (
	opMend      = "repair of a territory with one bad bucket of 256"
	opMendWhole = "repair of a territory with 256 bad buckets: it is sent whole"
)

// mending measures how a branch gets rid of records that have rotted: from the
// end of the scrub that found them until every digest is the master's.
var mending = section{operations: []string{opMend, opMendWhole}, measure: (*bench).measureMending}

// mendRecords is how many records the branch has at the full size, nearly all of
// them in one territory.
const mendRecords = 100_000

func (b *bench) measureMending(ctx context.Context) (err error) {
	dir, err := b.subdir("mend")
	if err != nil {
		return err
	}
	c := &cluster{dir: dir}
	defer func() { err = errors.Join(err, c.close()) }()
	link := &meter{}
	m, err := c.metered(ctx, link)
	if err != nil {
		return err
	}
	if err := errors.Join(c.territories(ctx), c.site(ctx, siteName)); err != nil {
		return err
	}
	d := makeData(42, float64(min(mendRecords, b.node))/recordsAtOne, 0)
	for i := range d.accounts {
		d.accounts[i].region = 0
	}
	if _, err := fill(ctx, m, d.items(stock())); err != nil {
		return err
	}
	branch, err := c.join(ctx, siteName, auth.RoleReplica, siteName, c.env(nil))
	if err != nil {
		return err
	}
	if err := branch.ready(ctx); err != nil {
		return err
	}
	for _, r := range []struct {
		operation string
		buckets   int
	}{{opMend, 1}, {opMendWhole, store.DigestBuckets}} {
		if !b.wants(r.operation) {
			continue
		}
		out, err := mend(ctx, branch, c, link, r.buckets)
		if err != nil {
			return fmt.Errorf("%s: %w", r.operation, err)
		}
		b.add(row{operation: r.operation, ours: out})
	}
	return nil
}

// mend spoils so many buckets of the largest territory, has them found, and says what the repair took.
func mend(ctx context.Context, branch *member, c *cluster, link *meter, buckets int) (string, error) {
	if err := branch.stop(); err != nil {
		return "", err
	}
	records, err := spoil(filepath.Join(branch.settings.Dir, "base.db"), buckets)
	if err != nil {
		return "", err
	}
	if err := branch.start(c.env(nil)); err != nil {
		return "", err
	}
	r := branch.Replica()
	if err := poll(ctx, func() error { return upToDate(r.Status()) }); err != nil {
		return "", err
	}
	before := link.read()
	_, found, err := r.ScrubBase(ctx, nil, 1<<40)
	if err != nil || found == 0 {
		return "", errors.Join(err, errors.New("the scrub found nothing"))
	}
	began := time.Now()
	err = poll(ctx, func() error {
		if s := r.Status(); s.Repaired == 0 || len(s.Suspect) > 0 {
			return fmt.Errorf("not repaired: %+v", s)
		}
		return nil
	})
	took := time.Since(began)
	return fmt.Sprintf("%s and %s KiB for %s records", span(took), grouped(float64(link.read().minus(before).down.wire())/1024), grouped(float64(records))), err
}

func upToDate(s replica.Status) error {
	if s.Verified == 0 || s.Cursor < s.Head || !s.Connected {
		return errors.New("the branch is not up to date")
	}
	return nil
}

// spoil gives one record in each of so many buckets of the largest territory
// another value, with a right checksum. It returns how many records there are.
func spoil(path string, buckets int) (records int, err error) {
	db, err := store.Open(path, store.Options{})
	if err != nil {
		return 0, err
	}
	var list []*crm.Record
	err = db.View(func(tx *store.Tx) error {
		for t := range tx.Territories() {
			in, err := recordsOf(tx, t)
			if err != nil {
				return err
			}
			if len(in) > len(list) {
				list = in
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return 0, err
	}
	file, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		return 0, err
	}
	seen := map[byte]bool{}
	err = file.Update(func(tx *bolt.Tx) error {
		for _, r := range list {
			b := r.ID[len(r.ID)-1]
			if seen[b] || len(seen) == buckets || r.Entity < crm.FirstEntity { // the node itself reads those below
				continue
			}
			seen[b] = true
			r.Stamp.Actor += "!"
			live := tx.Bucket([]byte("live")).Bucket(binary.BigEndian.AppendUint16(nil, uint16(r.Entity)))
			if err := live.Put(r.ID[:], sealed(r)); err != nil {
				return err
			}
		}
		return nil
	})
	return len(list), errors.Join(err, file.Close())
}

// sealed is a live record as a base keeps it (docs/format.md).
func sealed(r *crm.Record) []byte {
	key := append(binary.BigEndian.AppendUint16(nil, uint16(r.Entity)), r.ID[:]...)
	body := crm.AppendRecord(nil, r)
	table := crc32.MakeTable(crc32.Castagnoli)
	return append(binary.BigEndian.AppendUint32(nil, crc32.Update(crc32.Checksum(key, table), table, body)), body...)
}

func recordsOf(tx *store.Tx, t crm.TerritoryID) (out []*crm.Record, err error) {
	for e, err := range tx.Feed(t, 0) {
		if err != nil {
			return nil, err
		}
		r, err := tx.Record(e.Entity, e.ID)
		if err != nil {
			return nil, err
		}
		if !e.Left && r != nil && !r.Deleted {
			out = append(out, r.Clone())
		}
	}
	return out, nil
}
