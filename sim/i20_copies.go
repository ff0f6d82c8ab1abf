package sim

import "fmt"

// notDropped is I20: if a node says that an edit it has taken is decided, then
// that very edit was, and not another one under its number. A disk that was put
// back or copied is where the two part.
func notDropped(h *History) error {
	for _, a := range h.Answers {
		if e := h.Edit(a.Edit); a.Decided && e.Excused == "" && h.Decided(a.Edit) == nil {
			return fmt.Errorf("%s says that edit %d is decided, as number %d, and it never was", h.name(a.Disk), a.Edit, a.Seq)
		}
	}
	return nil
}
