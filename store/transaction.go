package store

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// A transaction is what Tx and JTx have in common.
type transaction struct {
	f    *file
	bolt *bolt.Tx
	tops []*table // opened buckets at the top of the file, few
	room [4]table // for the first opened; most transactions open no more
	used int      // of room
	done bool
	key  [keySize]byte // of recordKey

	changed []RecordKey // for the changeLog, with repeats
	lost    int         // records that could not be read and were replaced or dropped
	walked  bool        // the pages were found to be sound
}

func (f *file) begin(writable bool) (*transaction, error) {
	if writable {
		f.writer.Lock()
		if err := f.sound("begin"); err != nil {
			f.writer.Unlock()
			return nil, err
		}
	}
	f.swap.RLock()
	b, err := f.beginBolt(writable)
	if err != nil {
		f.swap.RUnlock()
		if writable {
			f.writer.Unlock()
		}
		return nil, f.failure("begin", err)
	}
	return &transaction{f: f, bolt: b, tops: make([]*table, 0, 4)}, nil
}

// beginBolt needs f.swap held, and f.writer if writable.
func (f *file) beginBolt(writable bool) (*bolt.Tx, error) {
	if f.bolt == nil {
		return nil, berrors.ErrDatabaseNotOpen
	}
	return f.bolt.Begin(writable)
}

func (t *transaction) end(writable bool) {
	t.done = true
	t.f.swap.RUnlock()
	if writable {
		t.f.writer.Unlock()
	}
}

// Writable reports whether the transaction may write.
func (t *transaction) Writable() bool { return t.bolt.Writable() }

// Rollback ends the transaction without effect. After Commit it does nothing.
func (t *transaction) Rollback() error {
	if t.done {
		return nil
	}
	writable := t.bolt.Writable()
	err := t.bolt.Rollback()
	t.end(writable)
	return t.f.failure("roll back", err)
}

// commit makes the transaction durable and ends it, whatever it returns.
func (t *transaction) commit() error {
	if t.done || !t.bolt.Writable() {
		return t.f.failure("commit", berrors.ErrTxNotWritable)
	}
	t.f.changes.add(t.bolt.ID(), t.changed)
	stats, err := t.finish()
	if err != nil {
		return t.f.failure("commit", err)
	}
	t.f.committed(stats)
	return nil
}

// finish commits the bbolt transaction and ends this one, even if a Disk panics.
func (t *transaction) finish() (CommitStats, error) {
	defer func() {
		_ = t.bolt.Rollback() // of a failure that bbolt has not undone itself; else it refuses
		t.end(true)
	}()
	before, start := t.bolt.Stats(), time.Now()
	err := t.f.opts.Disk.around(DiskCommit, t.f.path, t.write)
	after := t.bolt.Stats()
	return CommitStats{Duration: time.Since(start), Write: after.GetWriteTime() - before.GetWriteTime(), Pages: int(after.GetWrite() - before.GetWrite()), Lost: t.lost}, err
}

// write writes and syncs the pages of the transaction.
func (t *transaction) write() error {
	f, id := t.f, t.bolt.ID()
	if err := t.bolt.Commit(); err != nil {
		if f.shows(id) {
			return f.unsynced(err)
		}
		return err
	}
	if !f.opts.syncs() {
		return nil
	}
	return f.doubt(func() error { return f.sync(f.path) })
}

// shows reports whether transactions that begin now see commit id.
func (f *file) shows(id int) bool {
	b, err := f.bolt.Begin(false)
	if err != nil {
		return false
	}
	defer b.Rollback()
	return b.ID() == id
}

// recordKey returns the key's bytes, valid until the next call, for reading only.
func (t *transaction) recordKey(k RecordKey) []byte { return appendRecordKey(t.key[:0], k) }

// top returns a bucket at the top of the file.
func (t *transaction) top(b bucket) *table {
	for _, open := range t.tops {
		if open.name == b.name {
			return open
		}
	}
	open := t.open(t.bolt.Bucket(b.top()))
	if open == nil {
		panic(lostBucket(b.name))
	}
	open.name = b.name
	t.tops = append(t.tops, open)
	return open
}

// open returns the table of a bucket, nil for nil.
func (t *transaction) open(b *bolt.Bucket) *table {
	if b == nil {
		return nil
	}
	open := new(table)
	if t.used < len(t.room) {
		open = &t.room[t.used]
		t.used++
	}
	open.boltBucket = b
	return open
}

// empty removes all of a bucket at the top of the file.
func (t *transaction) empty(b bucket) error {
	t.tops = slices.DeleteFunc(t.tops, func(open *table) bool { return open.name == b.name })
	err := t.bolt.DeleteBucket(b.top())
	if err == nil {
		_, err = t.bolt.CreateBucket(b.top())
	}
	return t.f.failure("clear "+b.name, err)
}

// put writes into a bucket at the top of the file. bbolt keeps v until the end
// of the transaction, so the caller must not change it.
func (t *transaction) put(b bucket, k, v []byte) error {
	return t.f.failure("write "+b.name, t.top(b).Put(k, v))
}

func (t *transaction) delete(b bucket, k []byte) error {
	return t.f.failure("delete from "+b.name, t.top(b).Delete(k))
}

func (t *transaction) get(b bucket, k []byte) []byte { return t.top(b).Get(k) }

// sealed returns the body of a sealed value, nil if there is none.
func (t *transaction) sealed(b bucket, k []byte) ([]byte, error) {
	v := t.get(b, k)
	if v == nil {
		return nil, nil
	}
	body, err := unseal(k, v)
	if err != nil {
		return nil, t.f.corrupt(fmt.Sprintf("%s %x", b.name, k), err)
	}
	return body, nil
}

func (t *transaction) putSealed(b bucket, k, body []byte) error { return t.put(b, k, seal(k, body)) }

// number returns a sealed uint64 of the bucket, 0 if there is none.
func (t *transaction) number(b bucket, name string) (uint64, error) {
	v, err := t.sealed(b, []byte(name))
	if err != nil || v == nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, t.f.corrupt(b.name+" "+name, errShort)
	}
	return binary.BigEndian.Uint64(v), nil
}

func (t *transaction) setNumber(b bucket, name string, n uint64) error {
	return t.putSealed(b, []byte(name), binary.BigEndian.AppendUint64(nil, n))
}

// Meta returns the small blob of that name, nil if there is none. It is the
// caller's to keep.
func (t *transaction) Meta(name string) ([]byte, error) {
	v, err := t.sealed(bucketMeta, []byte(name))
	return append([]byte(nil), v...), err
}

// SetMeta sets the blob of that name; nil removes it.
func (t *transaction) SetMeta(name string, v []byte) error {
	if v == nil {
		return t.delete(bucketMeta, []byte(name))
	}
	return t.putSealed(bucketMeta, []byte(name), v)
}

// WriteTo writes the file as the transaction sees it, which is a valid file of
// the same kind. It holds freed pages too, with what they held.
func (t *transaction) WriteTo(w io.Writer) (int64, error) {
	n, err := t.bolt.WriteTo(w)
	return n, t.f.failure("copy", err)
}

// Size returns the size of the file as the transaction sees it, in bytes.
func (t *transaction) Size() int64 { return t.bolt.Size() }
