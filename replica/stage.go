package replica

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A staged item is stored under entity:2 id:16, so that of two items of one
// record the later one stays, as kind:1 partial:1 rev:8 body. One that says which
// territory the record left concerns that alone: territory:4 is part of its key.
const (
	stagedKey   = 2 + 16
	stagedFixed = 1 + 1 + 8
)

func stageItem(tx *store.Tx, it *syncproto.Item) error {
	key := append(binary.BigEndian.AppendUint16(nil, uint16(it.Entity)), it.ID[:]...)
	if it.Territory != 0 {
		key = binary.BigEndian.AppendUint32(key, uint32(it.Territory))
	}
	partial := byte(0)
	if it.Partial {
		partial = 1
	}
	v := binary.BigEndian.AppendUint64([]byte{byte(it.Kind), partial}, uint64(it.Rev))
	return tx.Stage(key, append(v, it.Body...))
}

func unstageItem(s store.StagedItem) (syncproto.Item, error) {
	if n := len(s.Key); n != stagedKey && n != stagedKey+4 || len(s.Item) < stagedFixed {
		return syncproto.Item{}, &crm.Error{Code: crm.CodeCorrupt, Op: "read stage", Message: fmt.Sprintf("item %x is damaged", s.Key)}
	}
	t := crm.TerritoryID(0)
	if len(s.Key) > stagedKey {
		t = crm.TerritoryID(binary.BigEndian.Uint32(s.Key[stagedKey:]))
	}
	return syncproto.Item{Territory: t, Kind: syncproto.ItemKind(s.Item[0]), Partial: s.Item[1] == 1, Rev: crm.Rev(binary.BigEndian.Uint64(s.Item[2:])),
		Entity: crm.EntityID(binary.BigEndian.Uint16(s.Key)), ID: crm.RecordID(s.Key[2:stagedKey]), Body: s.Item[stagedFixed:]}, nil
}

// sortItems orders items by what they concern; those that concern the same keep
// their order.
func sortItems(items []syncproto.Item) {
	slices.SortStableFunc(items, func(a, b syncproto.Item) int {
		return cmp.Or(cmp.Compare(a.Entity, b.Entity), bytes.Compare(a.ID[:], b.ID[:]), cmp.Compare(a.Territory, b.Territory))
	})
}

// sameConcern reports whether two items are about the same record, or its leaving
// the same territory.
func sameConcern(a, b *syncproto.Item) bool {
	return a.Entity == b.Entity && a.ID == b.ID && a.Territory == b.Territory
}

func isMetadata(e crm.EntityID) bool { return e == crm.EntityEntity || e == crm.EntityField }

// errSchema says that the definitions that have come do not form a schema yet.
var errSchema = errors.New("the definitions are not complete")

func errIsSchema(err error) bool { return errors.Is(err, errSchema) }

// schemaNow makes the definitions written so far take effect, so that the
// records that follow get their index rows at once.
func (c *change) schemaNow() error {
	if err := c.tx.SchemaErr(); err != nil {
		return errors.Join(errSchema, err)
	}
	return nil
}

// putStaged writes the items that were put aside and says how many they were.
func (c *change) putStaged() (n int, err error) {
	for s, err := range c.tx.Staged() {
		if err != nil {
			return n, err
		}
		it, err := unstageItem(s)
		if err != nil {
			return n, err
		}
		if err := c.put(&it); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// putStagedMetadata writes the definitions that a bootstrap had to put aside.
// An item of this part about the same definition is newer and comes after.
func (c *change) putStagedMetadata() error {
	n, err := c.putStaged()
	if err != nil {
		return err
	}
	if n == 0 {
		return nil
	}
	return c.tx.ClearStage()
}

// stagedWhole returns the territories that come whole in the catch-up under way.
func stagedWhole(tx *store.Tx) ([]crm.TerritoryID, error) {
	v, err := tx.Meta(metaWhole)
	var out []crm.TerritoryID
	for ; len(v) >= 4; v = v[4:] {
		out = append(out, crm.TerritoryID(binary.BigEndian.Uint32(v)))
	}
	return out, err
}

func addStagedWhole(tx *store.Tx, whole []crm.TerritoryID) error {
	known, err := stagedWhole(tx)
	if err != nil || len(whole) == 0 {
		return err
	}
	all := slices.Concat(known, whole)
	slices.Sort(all)
	var v []byte
	for _, t := range slices.Compact(all) {
		v = binary.BigEndian.AppendUint32(v, uint32(t))
	}
	return tx.SetMeta(metaWhole, v)
}

// unstage forgets a catch-up that cannot be finished as it began.
func (r *Replica) unstage() error {
	err := r.base.Update(func(tx *store.Tx) error {
		return errors.Join(tx.ClearStage(), tx.SetMeta(metaStaged, nil), tx.SetMeta(metaWhole, nil), tx.SetMeta(metaBuckets, nil))
	})
	if err == nil {
		r.advance(func(p *position) { p.staged, p.target = 0, 0 })
	}
	return err
}
