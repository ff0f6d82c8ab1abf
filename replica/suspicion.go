package replica

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"slices"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A suspicion is that records of a territory are not the master's. It stands in
// the base until a batch has cured it, so a repair goes on after a cut or a
// restart.
type suspicion struct {
	territory crm.TerritoryID
	since     int64               // Unix milliseconds
	stuck     bool                // repairs have not cured it, and a person was told
	buckets   syncproto.BucketSet // known to be wrong; empty: it is not known which are
}

// A suspicion is stored as territory:4 since:8 stuck:1 buckets:32.
const suspicionSize = 4 + 8 + 1 + 32

// suspicionsIn returns those of the base, by territory.
func suspicionsIn(tx *store.Tx) ([]suspicion, error) {
	v, err := tx.Meta(metaSuspect)
	var out []suspicion
	for ; len(v) >= suspicionSize; v = v[suspicionSize:] {
		out = append(out, suspicion{territory: crm.TerritoryID(binary.BigEndian.Uint32(v)), since: int64(binary.BigEndian.Uint64(v[4:])),
			stuck: v[12] == 1, buckets: syncproto.BucketSet(v[13:suspicionSize])})
	}
	return out, err
}

func setSuspicions(tx *store.Tx, list []suspicion) error {
	var v []byte
	for _, s := range list {
		v = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(v, uint32(s.territory)), uint64(s.since))
		stuck := byte(0)
		if s.stuck {
			stuck = 1
		}
		v = append(append(v, stuck), s.buckets[:]...)
	}
	if old, err := tx.Meta(metaSuspect); err != nil || bytes.Equal(old, v) {
		return err
	}
	return tx.SetMeta(metaSuspect, v)
}

// Buckets are some buckets of some territories. An empty set means that it is
// not known which.
type buckets map[crm.TerritoryID]syncproto.BucketSet

// add adds buckets of a territory.
func (b buckets) add(t crm.TerritoryID, set syncproto.BucketSet) { b[t] = b[t].Or(set) }

// addBucket adds one bucket of a territory.
func (b buckets) addBucket(t crm.TerritoryID, bucket byte) {
	var set syncproto.BucketSet
	set.Add(bucket)
	b.add(t, set)
}

// suspect adds what was found to the suspicions, and returns the territories
// that were not suspect before.
func (r *Replica) suspect(found buckets) (fresh []crm.TerritoryID, err error) {
	return fresh, r.changeSuspicions(func(list []suspicion) []suspicion {
		fresh = nil
		for t, set := range found {
			i := slices.IndexFunc(list, func(s suspicion) bool { return s.territory == t })
			if i < 0 {
				fresh = append(fresh, t)
				list = append(list, suspicion{territory: t, since: r.cfg.Now().UnixMilli()})
				i = len(list) - 1
			}
			list[i].buckets = list[i].buckets.Or(set)
		}
		slices.Sort(fresh)
		return list
	})
}

// changeSuspicions replaces the suspicions by what edit makes of them. The base's
// transaction may be tried again.
func (r *Replica) changeSuspicions(edit func([]suspicion) []suspicion) error {
	err := r.base.Update(func(tx *store.Tx) error {
		list, err := suspicionsIn(tx)
		if err != nil {
			return err
		}
		list = edit(list)
		slices.SortFunc(list, func(a, b suspicion) int { return cmp.Compare(a.territory, b.territory) })
		return setSuspicions(tx, list)
	})
	if err != nil {
		return err
	}
	return r.readSuspicions()
}

// readSuspicions makes known what the base says is suspect.
func (r *Replica) readSuspicions() error {
	r.suspecting.Lock()
	defer r.suspecting.Unlock()
	var list []suspicion
	err := r.base.View(func(tx *store.Tx) (err error) {
		list, err = suspicionsIn(tx)
		return err
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.suspicions = list
	r.mu.Unlock()
	r.moved.fire()
	r.cfg.Metrics.suspect.Set(float64(len(list)))
	r.measureSuspicion()
	nudge(r.doubt)
	return nil
}

// suspected returns what is suspect now, by territory.
func (r *Replica) suspected() []suspicion {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.suspicions
}

// knownDamaged reports whether a bucket that the record would be in is suspect
// already.
func (r *Replica) knownDamaged(k store.RecordKey) bool {
	return slices.ContainsFunc(r.suspected(), func(s suspicion) bool { return s.buckets.Has(k.ID[len(k.ID)-1]) })
}

// measureSuspicion says for how long something has been suspect.
func (r *Replica) measureSuspicion() {
	age := time.Duration(0)
	for _, s := range r.suspected() {
		age = max(age, r.cfg.Now().Sub(time.UnixMilli(s.since)))
	}
	r.cfg.Metrics.suspectAge.Set(age.Seconds())
}

// locate returns the bucket that a live record is in as the feed lists it. It
// reads the feed's keys of all territories. ok is false if no row leads to the
// record.
func locate(tx *store.Tx, k store.RecordKey) (found buckets, ok bool, err error) {
	for t := range tx.Territories() {
		for in, err := range tx.BucketRecords(t, tx.BucketOf(k.ID)) {
			if err != nil {
				return nil, false, err
			}
			if in == k {
				found = buckets{}
				found.addBucket(t, tx.BucketOf(k.ID))
				return found, true, nil
			}
		}
	}
	return nil, false, nil
}
