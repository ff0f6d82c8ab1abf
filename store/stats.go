package store

import (
	"os"
	"time"
)

// CommitStats describes one commit.
type CommitStats struct {
	Duration time.Duration // all of it
	Write    time.Duration // writing and syncing pages
	Pages    int           // pages written
	Lost     int           // records that could not be read and were replaced or dropped
}

// Stats describes a file.
type Stats struct {
	Bytes       int64 // of the file
	FreePages   int   // reusable now
	HeldPages   int   // freed, but some open read transaction may see them
	OpenReads   int   // read transactions
	Commits     uint64
	LastCommit  time.Duration
	MaxCommit   time.Duration
	TotalCommit time.Duration
	Lost        uint64 // records that could not be read and were replaced or dropped since the file was opened
}

func (f *file) committed(c CommitStats) {
	f.statsMu.Lock()
	f.stats.Commits++
	f.stats.LastCommit = c.Duration
	f.stats.MaxCommit = max(f.stats.MaxCommit, c.Duration)
	f.stats.TotalCommit += c.Duration
	f.stats.Lost += uint64(c.Lost)
	f.statsMu.Unlock()
	if f.opts.OnCommit != nil {
		f.opts.OnCommit(c)
	}
}

// Stats returns the state of the file now.
func (f *file) Stats() Stats {
	f.statsMu.Lock()
	s := f.stats
	f.statsMu.Unlock()
	f.swap.RLock()
	defer f.swap.RUnlock()
	if f.bolt == nil {
		return s
	}
	b := f.bolt.Stats()
	s.FreePages, s.HeldPages, s.OpenReads = b.FreePageN, b.PendingPageN, b.OpenTxN
	if info, err := os.Stat(f.path); err == nil {
		s.Bytes = info.Size()
	}
	return s
}
