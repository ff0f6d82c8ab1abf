package master

import (
	"fmt"
	"time"
)

// A watchdog ends the process when the disk stalls. An error instead would do
// harm: the late write still lands, and Raft, told that it failed, writes other
// entries at the same indices. Meanwhile heartbeats go on, so no other master
// would take over from a leader that cannot write.
type watchdog struct {
	after time.Duration
	fatal func(error)
}

// watch starts the clock on an operation; the caller calls the result when the
// operation returns, however it does.
func (w *watchdog) watch(op string) (done func()) {
	t := time.AfterFunc(w.after, func() {
		w.fatal(fmt.Errorf("%s has taken %v: the disk has stalled", op, w.after))
	})
	return func() { t.Stop() }
}
