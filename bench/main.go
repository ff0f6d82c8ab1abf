// Command bench measures Tradepost beside SQLite and PostgreSQL on one data set,
// in one run, and prints each operation with its budget of DESIGN.md §9.
//
//	go run . [-only regexp] [-rounds n] [-quick] [-records n] [-backlog n] [-markdown FILE] [-profile DIR]
//
// Engines take turns within every round and figures are medians over rounds, so
// a machine that slows down slows all of them; read the ratios, not the
// milliseconds. SQLite is modernc.org/sqlite in this process (WAL,
// synchronous=FULL). PostgreSQL runs if Debian's version 15 is installed: in a
// temporary directory, over a unix socket only. Their rows are fetched but not
// decoded into anything, ours are.
//
// The module is the bench's own, so that the peers stay out of the product's.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
)

func main() {
	if servesChild(os.Args) {
		return
	}
	o := full()
	flag.IntVar(&o.node, "records", o.node, "records of the node that is bootstrapped and restarted")
	flag.IntVar(&o.backlog, "backlog", o.backlog, "edits of the branch that comes back after 72 hours")
	only := flag.String("only", "", "measure only the operations that match this regular `expression`")
	quick := flag.Bool("quick", false, "tiny data and short rounds: shows that everything runs, not how fast")
	rounds := flag.Int("rounds", o.rounds, "rounds of each race; medians are taken over them")
	markdown := flag.String("markdown", "", "also write the result to this `file`")
	profile := flag.String("profile", "", "write CPU profiles of our side of each operation to this `directory`")
	flag.Parse()
	if *quick {
		o = smoke() // sizes given by other flags are of the full run
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil || *rounds < 1 || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "bench: give a regular expression to -only, 1 or more to -rounds, and no arguments:", err)
		os.Exit(2)
	}
	o.rounds, o.profiles = *rounds, *profile
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := publish(ctx, o, *markdown); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

// publish runs the bench, prints the table and writes it to the file, if any.
func publish(ctx context.Context, o options, markdown string) error {
	b, err := run(ctx, o)
	if err != nil {
		return err
	}
	text := b.markdown()
	fmt.Print("\n", text)
	if markdown == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(markdown), 0o755); err != nil {
		return err
	}
	return os.WriteFile(markdown, []byte(text), 0o644)
}
