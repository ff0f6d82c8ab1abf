package processtest

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Figures are what a run measures. Their methods may be called by any goroutine.
type Figures struct {
	began time.Time

	mu       sync.Mutex                 // protects what follows
	kills    map[string]int             // by what the process was: replica, follower, leader, starting
	together int                        // times that a majority of the masters was down
	starts   map[string][]time.Duration // by what it was: start of the process to serving
	files    map[string]int64           // the largest of each name, in bytes
	memory   map[string]int64           // by role, the most of one process: resident, in bytes
}

// NewFigures begins to measure.
func NewFigures() *Figures {
	return &Figures{began: time.Now(), kills: map[string]int{}, starts: map[string][]time.Duration{}, files: map[string]int64{}, memory: map[string]int64{}}
}

// Kill counts a kill.
func (f *Figures) Kill(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kills[what]++
}

// Majority counts a kill of most masters at once.
func (f *Figures) Majority() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.together++
}

// Start notes how long a node took to serve.
func (f *Figures) Start(what string, d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.starts[what] = append(f.starts[what], d)
}

// Look measures the node's files and memory.
func (f *Figures) Look(p *Post) {
	files := map[string]int64{}
	_ = filepath.WalkDir(p.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // it went away while we looked
		}
		if info, err := d.Info(); err == nil {
			name := d.Name()
			if strings.HasPrefix(path, filepath.Join(p.Dir, "raft")) {
				name = "raft/"
			}
			files[name] += info.Size()
		}
		return nil
	})
	role := "replica"
	if p.Master {
		role = "master"
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, size := range files {
		f.files[name] = max(f.files[name], size)
	}
	if p.cmd != nil {
		f.memory[role] = max(f.memory[role], resident(p.cmd.Process.Pid))
	}
}

// resident returns the resident memory of a process that is not mapped files, in
// bytes; 0 where the system does not tell.
func resident(pid int) int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			return kib << 10
		}
	}
	return 0
}

// Kills returns the number of kills and their kinds.
func (f *Figures) Kills() (n int, kinds string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, what := range slices.Sorted(maps.Keys(f.kills)) {
		n += f.kills[what]
		out = append(out, fmt.Sprintf("%s %d", what, f.kills[what]))
	}
	return n, strings.Join(out, ", ")
}

// Majorities returns how often most masters were killed at once.
func (f *Figures) Majorities() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.together
}

// Starts tells how long the nodes took to serve: median and 99th percentile.
func (f *Figures) Starts() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, what := range slices.Sorted(maps.Keys(f.starts)) {
		d := slices.Sorted(slices.Values(f.starts[what]))
		out = append(out, fmt.Sprintf("%s %s/%s", what, milliseconds(d[len(d)/2]), milliseconds(d[len(d)*99/100])))
	}
	return strings.Join(out, ", ")
}

func milliseconds(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }

// Sizes tells of the largest files and processes.
func (f *Figures) Sizes() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, name := range slices.Sorted(maps.Keys(f.files)) {
		if f.files[name] >= 1<<20 {
			out = append(out, fmt.Sprintf("%s %d MiB", name, f.files[name]>>20))
		}
	}
	for _, role := range slices.Sorted(maps.Keys(f.memory)) {
		out = append(out, fmt.Sprintf("memory of a %s %d MiB", role, f.memory[role]>>20))
	}
	return strings.Join(out, ", ")
}

// Elapsed returns how long the run has taken, to the second.
func (f *Figures) Elapsed() time.Duration { return time.Since(f.began).Round(time.Second) }
