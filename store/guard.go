package store

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// guard runs fn and turns a crash inside bbolt or on a mapped page, which only
// a damaged file or a failing disk causes, into an error. Other panics go on.
func (f *file) guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		_, fault := r.(interface{ Addr() uintptr })
		_, lost := r.(lostBucket)
		if !fault && !lost && !panicInBolt() {
			panic(r)
		}
		err = f.corrupt("page", fmt.Errorf("%v", r))
	}()
	return fn()
}

// A lostBucket is the panic of who needs a bucket that every file has, after
// damage to the page that lists it.
type lostBucket string

func (b lostBucket) String() string { return "bucket " + string(b) + " is missing" }

// panicInBolt reports whether the function that panicked is bbolt's. It must
// be called by the deferred function.
func panicInBolt() bool {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		fr, more := frames.Next()
		if !strings.HasPrefix(fr.Function, "runtime.") {
			return strings.HasPrefix(fr.Function, "go.etcd.io/bbolt")
		}
		if !more {
			return false
		}
	}
}
