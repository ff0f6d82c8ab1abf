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
// record the later one stays, as kind:1 partial:1 rev:8 body.
const (
	stagedKey   = 2 + 16
	stagedFixed = 1 + 1 + 8
)

func stageItem(tx *store.Tx, it *syncproto.Item) error {
	key := append(binary.BigEndian.AppendUint16(nil, uint16(it.Entity)), it.ID[:]...)
	partial := byte(0)
	if it.Partial {
		partial = 1
	}
	v := binary.BigEndian.AppendUint64([]byte{byte(it.Kind), partial}, uint64(it.Rev))
	return tx.Stage(key, append(v, it.Body...))
}

func unstageItem(s store.StagedItem) (syncproto.Item, error) {
	if len(s.Key) != stagedKey || len(s.Item) < stagedFixed {
		return syncproto.Item{}, &crm.Error{Code: crm.CodeCorrupt, Op: "read stage", Message: fmt.Sprintf("item %x is damaged", s.Key)}
	}
	return syncproto.Item{Kind: syncproto.ItemKind(s.Item[0]), Partial: s.Item[1] == 1, Rev: crm.Rev(binary.BigEndian.Uint64(s.Item[2:])),
		Entity: crm.EntityID(binary.BigEndian.Uint16(s.Key)), ID: crm.RecordID(s.Key[2:]), Body: s.Item[stagedFixed:]}, nil
}

// sortItems orders items by key; those of one record keep their order.
func sortItems(items []syncproto.Item) {
	slices.SortStableFunc(items, func(a, b syncproto.Item) int {
		return cmp.Or(cmp.Compare(a.Entity, b.Entity), bytes.Compare(a.ID[:], b.ID[:]))
	})
}

func sameRecord(a, b *syncproto.Item) bool { return a.Entity == b.Entity && a.ID == b.ID }

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
