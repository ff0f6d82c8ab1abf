package processtest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/tradepost-crm/tradepost/httpapi"
	"github.com/tradepost-crm/tradepost/node"
)

// A Process is one tradepost node with a directory of its own. Its ports stay
// the same over restarts.
type Process struct {
	exited chan struct{} // closed when the process has ended and ended is set
	ended  error

	Name string
	Dir  string
	args []string
	http string
	bin  string
	cmd  *exec.Cmd
	log  *os.File

	place  Place
	client *http.Client
}

// freePorts returns n loopback addresses that nobody listens on now. They are
// below the ports that systems give to outgoing connections: one of those could
// take the port of a node while the node is down.
func freePorts(n int) ([]string, error) {
	const first, last, tries = 10_000, 32_000, 1000
	var out []string
	for range tries {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(last-first)))
		if err != nil {
			continue
		}
		defer l.Close()
		if out = append(out, l.Addr().String()); len(out) == n {
			return out, nil
		}
	}
	return nil, fmt.Errorf("no %d free ports between %d and %d", n, first, last)
}

// newProcess gives a node a directory below base and ports, at a place.
func newProcess(bin, base, name string, at Place) (*Process, error) {
	ports, err := at.ports(3)
	if err != nil {
		return nil, err
	}
	p := &Process{Name: name, Dir: filepath.Join(cmp.Or(at.Base, base), name), bin: bin, http: ports[0]}
	p.place, p.client = at, at.client(20*time.Second)
	p.args = []string{"--dir", p.Dir, "--http", ports[0], "--sync", ports[1], "--raft", ports[2]}
	p.log, err = os.Create(filepath.Join(base, name+".log"))
	return p, err
}

// run executes one command of the binary to its end and returns what it printed.
func (p *Process) run(ctx context.Context, verb string, args ...string) (string, error) {
	cmd := p.command(ctx, append(strings.Fields(verb), args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", p.Name, verb, err, errs.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// Start serves the directory.
func (p *Process) Start() error {
	p.cmd = p.command(context.Background(), append([]string{"serve"}, p.args...)...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.exited = make(chan struct{})
	go func() {
		p.ended = p.cmd.Wait()
		close(p.exited)
	}()
	return nil
}

// wait returns how the process ended, once it has.
func (p *Process) wait() error {
	<-p.exited
	return p.ended
}

// Kill ends the process with SIGKILL, as a power cut ends it as far as the
// process can tell.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil {
		return err
	}
	err := p.wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && !exit.Exited() {
		return nil
	}
	return err
}

// Stop asks the process to end and waits for it.
func (p *Process) Stop() error {
	if p.exited == nil || p.hasExited() {
		return nil
	}
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		return err
	}
	return p.wait()
}

func (p *Process) hasExited() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// Client returns a client of the node's API.
func (p *Process) Client() (*httpapi.Client, error) {
	token, err := node.ReadAdminToken(p.Dir)
	return &httpapi.Client{BaseURL: "http://" + p.http, Token: token, HTTP: p.client}, err
}

// Await polls until ok is true or ctx ends.
func Await(ctx context.Context, what string, ok func() (bool, error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		done, err := ok()
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w (last: %v)", what, ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// AwaitReady waits until the node serves. It fails at once if the process ends.
func (p *Process) AwaitReady(ctx context.Context) error {
	c, err := p.Client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return Await(ctx, p.Name+" to serve", func() (bool, error) {
		if p.hasExited() {
			cancel()
			return false, fmt.Errorf("the process has ended: %w; its log is %s", p.ended, p.log.Name())
		}
		err := c.Ready(ctx)
		return err == nil, err
	})
}
