package replica

import "errors"

// setUnfolded notes that the overlay could not follow the base. What changed is
// not remembered, so the next fold is one of all.
func (r *Replica) setUnfolded() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unfolded = true
}

func (r *Replica) isUnfolded() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unfolded
}

// folding calls fold, which is told whether it must fold all. If it fails, that
// is still to be done.
func (r *Replica) folding(fold func(all bool) error) error {
	r.mu.Lock()
	all := r.unfolded
	r.unfolded = false
	r.mu.Unlock()
	err := fold(all)
	if all && err != nil && !errors.Is(err, errNothing) {
		r.setUnfolded()
	}
	return err
}
