package main

import (
	"context"
	"io"
	"time"
)

// A world is what a command sees of the process it runs in.
type world struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	stdinTTY       bool // a person can answer questions
	stderrTTY      bool // a person watches
	lookup         func(variable string) (string, bool)
	now            func() time.Time

	open     func(name string) (file, error) // to read
	create   func(name string) (file, error) // empty, to write
	extend   func(name string) (file, error) // to write at its end; made if missing
	readFile func(name string) ([]byte, error)
	rename   func(from, to string) error
	remove   func(name string) error
	exit     func(code int) // at once: of a node that must not go on
}

// A file is an *os.File, or what stands for one in a test.
type file interface {
	io.Reader
	io.Writer
	io.Seeker
	io.Closer
	Sync() error
	Truncate(size int64) error
}

// replace writes a file whole: under another name first, so that a crash leaves
// the old content or the new.
func (w *world) replace(name string, content []byte) error {
	f, err := w.create(name + ".new")
	if err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return w.rename(name+".new", name)
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, w *world, args []string) int {
	c := &cli{world: w}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(w.stdin)
	root.SetOut(w.stdout)
	root.SetErr(w.stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	c.complain(cmd, err)
	return exitCode(err)
}
