package store

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/tradepost-crm/tradepost/crm"
)

// A Journal is an open journal file: a replica's identity, its queue of
// Mutations and its overlay. Its methods may be called by any goroutine.
type Journal struct {
	*file
	layouts layoutCache
}

// A layoutCache keeps the row layout of the schema asked for last.
type layoutCache struct {
	mu     sync.Mutex // protects the rest
	schema *crm.Schema
	layout uint64
}

func (c *layoutCache) of(s *crm.Schema) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.schema != s {
		c.schema, c.layout = s, rowLayout(s)
	}
	return c.layout
}

// OpenJournal opens the journal file at path and creates it if there is none.
// Errors are those of [Open].
func OpenJournal(path string, o Options) (*Journal, error) {
	f, err := openFile(path, journalFile, o)
	if err != nil {
		return nil, err
	}
	return &Journal{file: f}, nil
}

// View runs fn in a read transaction.
func (j *Journal) View(fn func(*JTx) error) error {
	tx, err := j.Begin(false)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	return j.guard(func() error { return fn(tx) })
}

// Update runs fn in a writable transaction and commits it if fn returns nil.
// When Update returns nil the writes are durable.
func (j *Journal) Update(fn func(*JTx) error) error {
	tx, err := j.Begin(true)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	return j.guard(func() error {
		if err := fn(tx); err != nil {
			return err
		}
		return tx.Commit()
	})
}

// Begin starts a transaction that the caller ends with Commit or Rollback. A
// writable one waits for the writable one before it.
func (j *Journal) Begin(writable bool) (*JTx, error) {
	t, err := j.begin(writable)
	if err != nil {
		return nil, err
	}
	return &JTx{transaction: t, layouts: &j.layouts, rows: rowTable{t: t}}, nil
}

// Replace puts the file at newPath, which must be a closed file of the same
// kind on the same volume, in place of this one. It waits for open
// transactions and holds new ones back meanwhile. A crash leaves the old file
// or the new one. If newPath is not usable the old file stays.
func (j *Journal) Replace(newPath string) error {
	if err := j.verify(newPath); err != nil {
		return err
	}
	return j.replace(newPath)
}

// A JTx is a transaction of the journal file. It belongs to one goroutine, and
// what it returns stays valid after it ends.
type JTx struct {
	*transaction
	layouts *layoutCache
	layout  uint64 // that the rows of the overlay follow; 0: not read yet
	written bool   // the overlay was
	rows    rowTable
}

// Commit makes the transaction durable. Whatever it returns, the transaction
// has ended; after an error nothing of it is in the file.
func (tx *JTx) Commit() error {
	if err := tx.rows.flush(); err != nil {
		_ = tx.Rollback()
		return err
	}
	return tx.commit()
}

// An Identity says which node this disk belongs to and where its history
// stands. The zero Identity is that of a node that has not joined.
type Identity struct {
	Cluster     string // name of the cluster
	Site        string // name of the site
	Node        crm.NodeID
	Incarnation crm.Incarnation
	NextSeq     crm.Seq       // of the next Mutation
	Chain       crm.ChainHash // after the last Mutation
	HLC         crm.HLC       // last reading given to a Mutation
	Timeline    uint64        // history of the cluster that the base follows
}

// identityFixed is node:4 incarnation:4 next_seq:8 chain:16 hlc:8 timeline:8
// cluster_size:2; cluster and site follow.
const identityFixed = 4 + 4 + 8 + 16 + 8 + 8 + 2

func (id Identity) encode() []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(id.Node))
	b = binary.BigEndian.AppendUint32(b, uint32(id.Incarnation))
	b = binary.BigEndian.AppendUint64(b, uint64(id.NextSeq))
	b = append(b, id.Chain[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(id.HLC))
	b = binary.BigEndian.AppendUint64(b, id.Timeline)
	b = binary.BigEndian.AppendUint16(b, uint16(len(id.Cluster)))
	return append(append(b, id.Cluster...), id.Site...)
}

func decodeIdentity(b []byte) (Identity, error) {
	if len(b) < identityFixed {
		return Identity{}, errShort
	}
	n := int(binary.BigEndian.Uint16(b[identityFixed-2:]))
	if n > len(b)-identityFixed {
		return Identity{}, errShort
	}
	word := func(at int) uint64 { return binary.BigEndian.Uint64(b[at:]) }
	return Identity{
		Node: crm.NodeID(binary.BigEndian.Uint32(b)), Incarnation: crm.Incarnation(binary.BigEndian.Uint32(b[4:])),
		NextSeq: crm.Seq(word(8)), Chain: crm.ChainHash(b[16:32]), HLC: crm.HLC(word(32)), Timeline: word(40),
		Cluster: string(b[identityFixed : identityFixed+n]), Site: string(b[identityFixed+n:]),
	}, nil
}

const maxClusterName = 1<<16 - 1

// Identity returns the node's identity, the zero Identity before SetIdentity.
func (tx *JTx) Identity() (Identity, error) {
	v, err := tx.sealed(bucketSelf, []byte("identity"))
	if err != nil || v == nil {
		return Identity{}, err
	}
	id, err := decodeIdentity(v)
	if err != nil {
		return id, tx.f.corrupt("identity", err)
	}
	return id, nil
}

// SetIdentity replaces the node's identity.
func (tx *JTx) SetIdentity(id Identity) error {
	if len(id.Cluster) > maxClusterName {
		return fmt.Errorf("set identity: cluster name of %d bytes", len(id.Cluster))
	}
	return tx.putSealed(bucketSelf, []byte("identity"), id.encode())
}

// NextInSeries takes the next number of a document series; the first is 1. The
// number is given back if the transaction does not commit, so a series has no
// gaps.
func (tx *JTx) NextInSeries(series string) (int64, error) {
	n, err := tx.number(bucketSeries, series)
	if err != nil {
		return 0, err
	}
	return int64(n) + 1, tx.setNumber(bucketSeries, series, n+1)
}

// SetSeries notes that all numbers of the series up to n are used. It never
// goes back.
func (tx *JTx) SetSeries(series string, n int64) error {
	used, err := tx.number(bucketSeries, series)
	if err != nil || int64(used) >= n {
		return err
	}
	return tx.setNumber(bucketSeries, series, uint64(n))
}
