package crm

import "iter"

// territoryField is the field of a root entity that says where its tree lives.
const territoryField = "territory"

// settle sets a record's root and territory from its entity and parent.
func (d *decider) settle(e *Entity, r *Record) error {
	switch {
	case e.Home == HomeShared:
		d.place(r, RecordID{}, Shared)
		return nil
	case e.Home == HomeHeadOffice:
		d.place(r, RecordID{}, HeadOffice)
		return nil
	case e.Parent == "" && e.Field(territoryField) != nil:
		return d.settleRoot(e, r)
	}
	return d.settleChild(e, r)
}

// place moves r; Entered is the Rev from which the territory's replicas lack it.
func (d *decider) place(r *Record, root RecordID, t TerritoryID) {
	r.Root = root
	if r.Territory != t {
		r.Territory, r.Entered = t, d.env.Rev
	}
}

// placeAtHome leaves r in its territory. A new record goes where its author is at
// home; who restores or edits it later, elsewhere, does not take it along.
func (d *decider) placeAtHome(r *Record, root RecordID) {
	t := r.Territory
	if t == 0 {
		t = d.env.Home
	}
	d.place(r, root, t)
}

func (d *decider) settleRoot(e *Entity, r *Record) error {
	code := r.Value(e.Field(territoryField).ID).Str()
	if code == "" {
		d.placeAtHome(r, r.ID)
		return nil
	}
	t, ok, err := d.TerritoryByCode(code)
	if err != nil {
		return err
	}
	if !ok || t == HeadOffice {
		return reject(CodeNotFound, territoryField, "no territory %q", clip(code))
	}
	d.place(r, r.ID, t)
	return nil
}

func (d *decider) settleChild(e *Entity, r *Record) error {
	f := e.Field(e.Parent)
	if f == nil || r.Value(f.ID).IsNull() {
		d.placeAtHome(r, RecordID{})
		return nil
	}
	target := d.Schema().Entity(f.Target)
	parent, err := d.record(target.ID, r.Value(f.ID).Link())
	if err != nil {
		return err
	}
	if parent == nil {
		if d.env.Rev == Pending {
			d.place(r, RecordID{}, d.env.Home)
			return nil
		}
		return d.missing(target, r.Value(f.ID).Link())
	}
	d.place(r, parent.Root, parent.Territory)
	return nil
}

// resettle moves a record and its tree if the edit changed its parent or
// territory, all at this Rev.
func (d *decider) resettle(e *Entity, before, r *Record) error {
	moving := e.Parent
	if moving == "" {
		moving = territoryField
	}
	f := e.Field(moving)
	if f == nil || e.Home != HomeRoot || before.Value(f.ID).Equal(r.Value(f.ID)) {
		return nil
	}
	if err := d.settle(e, r); err != nil {
		return err
	}
	if r.Territory == before.Territory && r.Root == before.Root {
		return nil
	}
	if err := d.writable(e, r.Territory); err != nil {
		return err
	}
	if e.Parent == "" {
		return d.moveAll(r)
	}
	return d.moveTree(e, r, map[RecordID]bool{})
}

// moveAll takes every record of the account r along.
func (d *decider) moveAll(r *Record) error {
	for child, err := range d.Under(r.ID) {
		if err != nil {
			return err
		}
		d.take(child, r)
	}
	for _, id := range d.order {
		if c := d.work[id]; c.Root == r.ID && c.ID != r.ID {
			d.take(c, r)
		}
	}
	return nil
}

// take puts child where parent is and returns it as it is then.
func (d *decider) take(child, parent *Record) *Record {
	if w := d.work[child.ID]; w != nil {
		child = w
	}
	if child.Territory != parent.Territory || child.Root != parent.Root {
		child = d.edit(child)
		d.place(child, parent.Root, parent.Territory)
	}
	return child
}

// moveTree takes along the records whose parent chain leads to r. Parents may
// form a ring, so done holds what was visited.
func (d *decider) moveTree(e *Entity, r *Record, done map[RecordID]bool) error {
	done[r.ID] = true
	for _, c := range d.Schema().Entities {
		f := c.Field(c.Parent)
		if c.Parent == "" || f.Target != e.Name {
			continue
		}
		for child, err := range d.Children(Child{c, f}, r.ID) {
			if err != nil {
				return err
			}
			if done[child.ID] {
				continue
			}
			if err := d.moveTree(c, d.take(child, r), done); err != nil {
				return err
			}
		}
	}
	return nil
}

// owned deletes or restores what r owns, as r was.
func (d *decider) owned(e *Entity, r *Record, children func(Child, RecordID) iter.Seq2[*Record, error], pick func(*Record) bool, deleted bool) error {
	for _, c := range d.Schema().Owned(e) {
		for child, err := range children(c, r.ID) {
			if err != nil {
				return err
			}
			if w := d.work[child.ID]; w != nil {
				child = w
			}
			if !pick(child) {
				continue
			}
			child = d.edit(child)
			child.Deleted = deleted
			if !deleted {
				d.touchUnique(c.Entity, child)
				child.Entered = d.env.Rev
				d.place(child, r.Root, r.Territory)
			}
			if err := d.owned(c.Entity, child, children, pick, deleted); err != nil {
				return err
			}
		}
	}
	return nil
}
