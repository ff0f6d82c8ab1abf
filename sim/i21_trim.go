package sim

import "fmt"

// trimSpares is I21: the Rev below which tombstones and markers are dropped is
// at most the Cursor of every active replica. What a replica says of itself comes
// late to the masters; it is judged by what was so. An edit that was made from a
// page opened before its record was deleted may still find the tombstone gone:
// the masters hear of it too late to wait, and reject it, which I04 has shown.
func trimSpares(h *History) error {
	return each(h.Trims, func(t Trim) error { return t.spares(h) })
}

func trimSparesLast(h *History) error {
	return last(h.Trims, func(t Trim) error { return t.spares(h) })
}

func (t Trim) spares(h *History) error {
	for n, need := range t.Needs {
		if t.Rev > need {
			return fmt.Errorf("%s everything up to rev %d was trimmed and %s needs what is above %d", when(t.At), t.Rev, h.Sites[n].Name, need)
		}
	}
	return nil
}
