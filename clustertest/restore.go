package clustertest

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tradepost-crm/tradepost/replica"
)

func (w *world) backupPath(name string) string { return filepath.Join(w.dir, name+".backup") }

func backup(w *world, ctx context.Context, args []string) error {
	_, err := w.c.Backup(ctx, w.backupPath(args[0]))
	return err
}

func disaster(w *world, _ context.Context, _ []string) error {
	for _, m := range w.c.Masters() {
		if err := m.Crash(); err != nil {
			return err
		}
	}
	return nil
}

func recoverFrom(w *world, ctx context.Context, args []string) error {
	m, err := w.c.Member(args[0])
	if err != nil {
		return err
	}
	done, err := w.c.Restore(ctx, m, w.backupPath(args[1]))
	if err == nil {
		w.printf("restored; %d masters must join anew", len(done.Removed))
	}
	return err
}

func promote(w *world, ctx context.Context, args []string) error {
	m, err := w.c.Member(args[0])
	if err != nil {
		return err
	}
	done, err := w.c.Promote(ctx, m)
	if err == nil {
		w.printf("promoted; %d masters must join anew", len(done.Removed))
	}
	return err
}

func follow(w *world, ctx context.Context, args []string) error {
	at, err := w.c.Network().Matrix().Find(args[0])
	if err != nil {
		return err
	}
	_, err = w.c.AddFollower(ctx, at)
	return err
}

func enlist(w *world, ctx context.Context, _ []string) error {
	_, err := w.c.AddMaster(ctx)
	return err
}

// lost prints the branch's lists of what was lost, sorted.
func lost(w *world, ctx context.Context, args []string) error {
	m, err := w.node(ctx, args[0])
	if err != nil {
		return err
	}
	paths, err := filepath.Glob(filepath.Join(m.Dir(), "lost-*.jsonl"))
	if err != nil {
		return err
	}
	var lines []string
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		for scan := bufio.NewScanner(f); scan.Scan(); {
			var l replica.Loss
			if err := json.Unmarshal(scan.Bytes(), &l); err != nil {
				return err
			}
			lines = append(lines, l.Kind+" of "+w.name(l.Entity, l.Record)+" by "+l.Actor+": "+strings.Join(l.Fields, ", "))
		}
	}
	slices.Sort(lines)
	for _, l := range lines {
		w.printf("%s", l)
	}
	if len(lines) == 0 {
		w.printf("nothing")
	}
	return nil
}
