package devcluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
	"github.com/tradepost-crm/tradepost/node"
	"github.com/tradepost-crm/tradepost/wansim"
)

// A Member is a node of the cluster, up or down.
type Member struct {
	Name  string // its host on the WAN; of a branch the site's name too
	Role  auth.Role
	Site  string
	Place wansim.Site
	c     *Cluster

	mu       sync.Mutex // protects the rest
	settings node.Settings
	host     *wansim.Host
	node     *node.Node // nil while down
	leaving  bool       // Run is meant to end
	follows  bool       // it is a master without a vote
	cancel   context.CancelFunc
	ended    chan struct{} // closed when Run has returned
	images   int           // crash images taken so far
}

// env returns the world as this node sees it.
func (m *Member) env(h *wansim.Host) node.Env {
	env := m.c.env
	env.Dial = h.Dial
	env.Listen = func(addr string) (net.Listener, error) {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		return h.Listen(port)
	}
	env.ListenPacket = func(addr string) (net.PacketConn, error) {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		return h.ListenPacket(port)
	}
	env.ListenHTTP = func(addr string) (net.Listener, error) { return m.listenHTTP(h, addr) }
	env.Fatal = m.c.fail
	env.Wan = m.c.wan()
	return env
}

// listenHTTP listens on the WAN, where the branch's own people are, and on this
// machine.
func (m *Member) listenHTTP(h *wansim.Host, addr string) (net.Listener, error) {
	wan, err := h.Listen(wanHTTP[1:])
	if err != nil || m.c.opts.Virtual {
		return wan, err
	}
	outside, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, errors.Join(err, wan.Close())
	}
	return listenBoth(outside, wan), nil
}

// Start opens the node's directory and runs it. It does nothing if the node is
// up.
func (m *Member) Start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.node != nil {
		return nil
	}
	m.host = m.host.Revive()
	n, err := node.Open(m.settings, m.env(m.host))
	if err != nil {
		return fmt.Errorf("start %s: %w", m.Name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.node, m.leaving, m.cancel, m.ended = n, false, cancel, make(chan struct{})
	ended := m.ended
	m.c.running.Go(func() {
		defer close(ended)
		if err := n.Run(ctx); err != nil && !m.isLeaving() {
			m.c.fail(fmt.Errorf("node %s stopped: %w", m.Name, err))
		}
	})
	return nil
}

func (m *Member) isLeaving() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leaving
}

// halt ends Run, after crashing the host if asked to, and returns the node,
// still open; nil if it was down.
func (m *Member) halt(crash bool) *node.Node {
	m.mu.Lock()
	n, cancel, ended := m.node, m.cancel, m.ended
	m.node, m.leaving = nil, true
	host := m.host
	m.mu.Unlock()
	if n == nil {
		return nil
	}
	if crash {
		host.Crash()
	}
	cancel()
	<-ended
	return n
}

// Stop stops the node as a signal would. It does nothing if the node is down.
func (m *Member) Stop() error {
	if n := m.halt(false); n != nil {
		return closed(m, n.Close())
	}
	return nil
}

func closed(m *Member, err error) error {
	if err != nil {
		return fmt.Errorf("close %s: %w", m.Name, err)
	}
	return nil
}

// Crash drops the node as the package comment tells. It does nothing if the
// node is down.
func (m *Member) Crash() error {
	n := m.halt(true)
	if n == nil {
		return nil
	}
	if m.Role == auth.RoleMaster {
		return closed(m, n.Close())
	}
	m.mu.Lock()
	m.images++
	from, to := m.settings.Dir, filepath.Join(m.c.dir, fmt.Sprintf("%s-%d", m.Name, m.images))
	m.settings.Dir = to
	m.mu.Unlock()
	if err := CopyDir(to, from); err != nil {
		return errors.Join(fmt.Errorf("crash %s: %w", m.Name, err), n.Close())
	}
	// What closing writes goes to files that nobody opens again.
	return errors.Join(closed(m, n.Close()), os.RemoveAll(from))
}

// CopyDir copies a node's directory, of which nothing may be running.
func CopyDir(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		return copyFile(filepath.Join(to, rel), path)
	})
}

func copyFile(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

// Node returns the running node; the error is of code unavailable if it is down.
func (m *Member) Node() (*node.Node, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.node == nil {
		return nil, &crm.Error{Code: crm.CodeUnavailable, Op: "use node", Item: m.Name, Message: "the node is down"}
	}
	return m.node, nil
}

// API returns what the node's HTTP server answers from.
func (m *Member) API() (httpapi.Node, error) {
	n, err := m.Node()
	if err != nil {
		return nil, err
	}
	return n.API(), nil
}

// Hold holds the node at a version of the protocol, 0 for the newest, from its
// next start on: it then acts as a program that knows no newer one.
func (m *Member) Hold(protocol uint16) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settings.Protocol = protocol
}

// Follows reports whether the node joined as a master without a vote, and was not
// promoted since.
func (m *Member) Follows() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.follows
}

func (m *Member) setFollows(follows bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.follows = follows
}

// Up reports whether the node runs.
func (m *Member) Up() bool {
	_, err := m.Node()
	return err == nil
}

// Dir returns the node's directory, which changes when it crashes.
func (m *Member) Dir() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.settings.Dir
}
