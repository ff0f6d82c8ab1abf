package store

import (
	"syscall"

	bolt "go.etcd.io/bbolt"
)

// release gives back the memory of the pages that opening looked at: bbolt reads
// a file whole to find its free pages, and a mapped page that was read once
// counts as resident until the system needs it. Nothing is lost; what is read
// again comes from the page cache. It is advice, so a refusal does not matter.
func release(db *bolt.DB, size int64) {
	info := db.Info()
	if info == nil || size <= 0 {
		return
	}
	_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, info.Data, uintptr(size), syscall.MADV_DONTNEED)
}
