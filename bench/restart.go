package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/node"
)

const (
	opRestart       = "restart of a node: start of the process to the first answer over HTTP"
	opMemory        = "resident memory of the node after reads and lists"
	opMemoryReports = "resident memory of the node after reports as well"
)

// childCommand is the argument that makes this program serve a node instead of
// measuring.
const childCommand = "serve-child"

// servesChild serves the node whose settings are the program's argument, if
// that is what the program was started for, until its standard input ends.
func servesChild(args []string) bool {
	if len(args) != 3 || args[1] != childCommand {
		return false
	}
	if err := serveChild(args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

func serveChild(settings string) error {
	s := node.DefaultSettings()
	if err := json.Unmarshal([]byte(settings), &s); err != nil {
		return err
	}
	n, err := node.Open(s, node.Env{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	fmt.Println(n.HTTPAddr())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	_, err = io.Copy(io.Discard, os.Stdin)
	cancel()
	return errors.Join(err, <-done, n.Close())
}

// A child is the node in a process of its own.
type child struct {
	cmd   *exec.Cmd
	stdin io.Closer
	base  string // URL of its API
	token string
}

// startChild starts the process and waits for its first answer.
func startChild(ctx context.Context, s node.Settings, probe string) (_ *child, took time.Duration, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, 0, err
	}
	settings, err := json.Marshal(s)
	if err != nil {
		return nil, 0, err
	}
	c := &child{cmd: exec.CommandContext(ctx, self, childCommand, string(settings))}
	c.cmd.Stderr = os.Stderr
	if c.token, err = node.ReadAdminToken(s.Dir); err != nil {
		return nil, 0, err
	}
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, 0, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, 0, err
	}
	began := time.Now()
	if err := c.cmd.Start(); err != nil {
		return nil, 0, err
	}
	addr, err := bufio.NewReader(out).ReadString('\n')
	c.base = "http://" + strings.TrimSpace(addr) + "/api/v1/"
	if err == nil {
		err = poll(ctx, func() error { return c.get(ctx, probe) })
	}
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("start the node's process: %w", err), c.stop())
	}
	return c, time.Since(began), nil
}

func (c *child) stop() error { return errors.Join(c.stdin.Close(), c.cmd.Wait()) }

func (c *child) get(ctx context.Context, path string) error {
	req, err := http.NewRequestWithContext(ctx, "GET", c.base+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", path, resp.Status, body)
	}
	return err
}

// memory returns the resident set and its part that is not mapped files, in MiB.
func (c *child) memory() (all, anonymous int, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	for line := range strings.Lines(string(b)) {
		name, v, _ := strings.Cut(line, ":")
		kib, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(v), " kB"))
		switch name {
		case "VmRSS":
			all = kib >> 10
		case "RssAnon":
			anonymous = kib >> 10
		}
	}
	return all, anonymous, err
}

// restarted starts the branch in a process of its own, some times.
func (f *fed) restarted(ctx context.Context) error {
	if !f.wantsAny([]string{opRestart, opMemory, opMemoryReports}) {
		return nil
	}
	var times []time.Duration
	var reads, reports [2]int
	for range f.restarts {
		c, took, err := startChild(ctx, f.settings(), f.contactPath())
		if err != nil {
			return err
		}
		times = append(times, took)
		reads, reports, err = f.use(ctx, c)
		if err := errors.Join(err, c.stop()); err != nil {
			return err
		}
	}
	if p50 := median(times); f.wants(opRestart) {
		f.add(row{operation: opRestart, ours: span(p50) + ", files in the page cache", budget: "≤ 2 s", met: p50 <= 2*time.Second})
	}
	for _, m := range []struct {
		operation string
		mib       [2]int
	}{{opMemory, reads}, {opMemoryReports, reports}} {
		if f.wants(m.operation) {
			f.add(row{operation: m.operation, ours: fmt.Sprintf("%d MiB, of which %d MiB are not mapped files", m.mib[0], m.mib[1]), budget: "≤ 200 MiB", met: m.mib[0] <= 200})
		}
	}
	return nil
}

func (f *fed) contactPath() string {
	return "contact/" + recordID(catalog.Contact, 1+rand.IntN(f.size.contacts)).String()
}

// use asks the node for what people ask for, and returns its memory after reads
// and after reports.
func (f *fed) use(ctx context.Context, c *child) (reads, reports [2]int, err error) {
	for range 200 {
		if err := c.get(ctx, f.contactPath()); err != nil {
			return reads, reports, err
		}
	}
	for range 100 {
		of := recordID(catalog.Account, 1+rand.IntN(f.size.big))
		for _, q := range []string{
			"contact?sort=last_name,first_name&limit=50&filter=" + url.QueryEscape(fmt.Sprintf("account == %q", of)),
			"activity?sort=-at&limit=20&filter=" + url.QueryEscape(fmt.Sprintf("account == %q", of)),
		} {
			if err := c.get(ctx, q); err != nil {
				return reads, reports, err
			}
		}
	}
	if reads[0], reads[1], err = c.memory(); err != nil {
		return reads, reports, err
	}
	for range 5 {
		for _, q := range []string{
			"reports?entity=order_line&group=" + url.QueryEscape("order.order_date:month,order.region") + "&measure=" + url.QueryEscape("count,sum(unit_price)"),
			"reports?entity=opportunity&group=" + url.QueryEscape("stage,owner") + "&measure=" + url.QueryEscape("count,sum(amount)"),
		} {
			if err := c.get(ctx, q); err != nil {
				return reads, reports, err
			}
		}
	}
	reports[0], reports[1], err = c.memory()
	return reads, reports, err
}
