package sim

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
)

// losersKept is I13: whenever a decided edit meets a value that its author had
// not seen, and one of the two does not stand afterwards, the attention record
// that the decision makes holds the one that does not. An element leaves a set
// only by somebody who had seen it there. Values of the founding count as those
// of edits. What an author saw replaced counts as seen, even if a restore of the
// masters has lost the replacement, or it was an edit of their own node that the
// masters did not take.
func losersKept(h *History) error {
	return h.eachCell(func(c change) error {
		if c.before == nil || c.before.Value.IsNull() || c.field.Rule() == crm.Counter {
			return nil
		}
		if c.field.Rule() == crm.AddWins {
			return c.elementsStay()
		}
		now := c.after.Value(c.field.ID)
		if c.shown() || c.covered() || c.outseen(c.before.Stamp) || c.before.Value.Equal(c.asked) {
			return nil
		}
		for _, v := range []crm.Value{c.before.Value, c.asked} {
			if !v.Equal(now) && !c.decision.keeps(v) {
				return fmt.Errorf("edit %d of %s.%s met %q unseen at rev %d; there is %q now, and %q is kept nowhere",
					c.edit.ID, c.key, c.field.Name, c.before.Value, c.decision.Rev, now, v)
			}
		}
		return nil
	})
}

// elementsStay judges the elements of a set that a patch does not name.
func (c change) elementsStay() error {
	now := c.after.Value(c.field.ID).Set()
	for i, elem := range c.before.Value.Set() {
		if !slices.Contains(now, elem) && !c.screen.ShowsElem(c.field.ID, elem, c.before.Elems[i]) && !c.outseen(c.before.Elems[i]) {
			return fmt.Errorf("edit %d took %q out of %s.%s at rev %d and had not seen it there", c.edit.ID, elem, c.key, c.field.Name, c.decision.Rev)
		}
	}
	return nil
}

// keeps reports whether an attention record of the decision holds the value: as
// the side that lost or waits, or among the ops to apply again.
func (d *Decision) keeps(v crm.Value) bool {
	text, err := v.MarshalJSON()
	if err != nil {
		return false
	}
	for _, n := range d.notes() {
		var s crm.Side
		if json.Unmarshal([]byte(n.Value(crm.AttentionLost).Str()), &s) == nil && string(s.Value) == string(text) {
			return true
		}
		if strings.Contains(n.Value(crm.AttentionOps).Str(), string(text)) {
			return true
		}
	}
	return false
}
