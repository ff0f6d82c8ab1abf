// Command tradepost runs a node of a Tradepost cluster, and is the command line
// for its admins and for scripts.
//
// The package is main.go and one file a noun. Only main.go touches the process:
// a command sees its arguments, streams, environment and files through a world,
// so that the commands run in memory in a test. Data goes to standard output and
// nothing else does; what is for people's eyes only goes to standard error.
// exit.go has the one table of error codes and exit codes.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"
)

// version is set with -ldflags "-X main.version=…"; see programVersion.
var version string

func main() { os.Exit(mainCode()) }

// mainCode runs the command of this process and returns its exit code.
func mainCode() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	w := &world{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		stdinTTY: terminal(os.Stdin), stderrTTY: terminal(os.Stderr),
		lookup: os.LookupEnv, now: time.Now,
		open:     func(name string) (file, error) { return os.Open(name) },
		create:   func(name string) (file, error) { return os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600) },
		extend:   func(name string) (file, error) { return os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600) },
		readFile: os.ReadFile, rename: os.Rename, remove: os.Remove, exit: os.Exit,
	}
	return run(ctx, w, os.Args[1:])
}

func terminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
