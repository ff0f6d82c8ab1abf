package lossyfs

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	bolt "go.etcd.io/bbolt"
)

// childVariable names what this binary runs instead of tests, because a process
// must not map files of a mount that it serves itself.
const childVariable = "TRADEPOST_LOSSYFS_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(childVariable); what != "" {
		if err := runChild(what, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// runChild writes to dir and prints a number for each that is committed, without
// end, or reads the last number committed and prints that.
func runChild(what, dir string) error {
	switch what {
	case "bbolt":
		return writeBolt(dir, false)
	case "bbolt unsynced":
		return writeBolt(dir, true)
	case "bbolt last":
		return lastBolt(dir)
	case "wal":
		return writeWAL(dir)
	case "wal last":
		return lastWAL(dir)
	}
	return errors.New("no such child: " + what)
}

var bucket = []byte("numbers")

func openBolt(dir string) (*bolt.DB, error) {
	db, err := bolt.Open(filepath.Join(dir, "db"), 0o600, &bolt.Options{NoFreelistSync: true, InitialMmapSize: 1 << 20})
	if err != nil {
		return nil, err
	}
	return db, syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// writeBolt commits the next number again and again. Each transaction also reads
// the numbers before it through the map, and writes enough to use many pages.
func writeBolt(dir string, unsynced bool) error {
	db, err := openBolt(dir)
	if err != nil {
		return err
	}
	db.NoSync = unsynced
	for {
		var n uint64
		err := db.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists(bucket)
			if err != nil {
				return err
			}
			if n, err = b.NextSequence(); err != nil {
				return err
			}
			if err := checkNumbers(b, n-1); err != nil {
				return err
			}
			return b.Put(key(n), value(n))
		})
		if err != nil {
			return err
		}
		fmt.Println(n)
	}
}

func key(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// value is of a length and bytes that only its number has.
func value(n uint64) []byte { return []byte(strings.Repeat(strconv.FormatUint(n, 10)+",", int(n%300))) }

// checkNumbers reads the last few of n numbers back.
func checkNumbers(b *bolt.Bucket, n uint64) error {
	for i := n - min(n, 50); i < n; i++ {
		if string(b.Get(key(i+1))) != string(value(i+1)) {
			return fmt.Errorf("number %d is not what was written", i+1)
		}
	}
	return nil
}

// lastBolt checks the whole file first.
func lastBolt(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "db")); err != nil {
		return err
	}
	db, err := openBolt(dir)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		b := tx.Bucket(bucket)
		if b == nil {
			fmt.Println(0)
			return nil
		}
		for i := range b.Sequence() {
			if string(b.Get(key(i+1))) != string(value(i+1)) {
				return fmt.Errorf("number %d is damaged", i+1)
			}
		}
		fmt.Println(b.Sequence())
		return nil
	})
}

func writeWAL(dir string) error {
	w, err := wal.Open(dir)
	if err != nil {
		return err
	}
	n, err := w.LastIndex()
	for err == nil {
		n++
		if err = w.StoreLog(&raft.Log{Index: n, Data: value(n)}); err == nil {
			fmt.Println(n)
		}
	}
	return err
}

func lastWAL(dir string) error {
	w, err := wal.Open(dir)
	if err != nil {
		return err
	}
	last, err := w.LastIndex()
	if err != nil {
		return err
	}
	for i := range last {
		var l raft.Log
		if err := w.GetLog(i+1, &l); err != nil || string(l.Data) != string(value(i+1)) {
			return fmt.Errorf("entry %d of %d is damaged: %w", i+1, last, err)
		}
	}
	fmt.Println(last)
	return w.Close()
}

// A child is this binary at work in dir.
type child struct {
	cmd     *exec.Cmd
	numbers *bufio.Scanner
	stderr  strings.Builder
	last    int // number read so far
}

func startChild(t *testing.T, what, dir string) *child {
	t.Helper()
	c := &child{cmd: exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0], dir)}
	c.cmd.Env = append(os.Environ(), childVariable+"="+what)
	c.cmd.Stderr = &c.stderr
	out, err := c.cmd.StdoutPipe()
	must(t, err)
	c.numbers = bufio.NewScanner(out)
	must(t, c.cmd.Start())
	return c
}

// await reads numbers until n or the child's end.
func (c *child) await(n int) {
	for c.last < n && c.numbers.Scan() {
		c.last, _ = strconv.Atoi(c.numbers.Text())
	}
}

// end reads to the child's end, which is an error of its own, and returns that.
func (c *child) end() error {
	c.await(1 << 62)
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, c.stderr.String())
	}
	return nil
}

// lastCommitted is the last number in dir, by a child that checks all.
func lastCommitted(t *testing.T, what, dir string) int {
	t.Helper()
	c := startChild(t, what, dir)
	if err := c.end(); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return c.last
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
