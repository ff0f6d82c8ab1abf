package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/gossip"
	"github.com/tradepost-crm/tradepost/httpapi"
	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/replica"
)

var (
	_ httpapi.Node = (*replica.Replica)(nil)
	_ httpapi.Node = (*master.Master)(nil)
)

// A Node is one running process: exactly one of master and replica is set.
type Node struct {
	id       Identity
	set      Settings
	env      Env
	master   *master.Master
	replica  *replica.Replica
	gossip   *gossip.Gossip // a replica's; a master runs its own
	registry *prometheus.Registry
	tokens   *auth.Tokens
	http     *httpapi.Server
	lis      net.Listener
}

// Open opens the node that lives in s.Dir and its ports; nothing is answered
// before Run. If it fails nothing stays open.
func Open(s Settings, env Env) (*Node, error) {
	env = env.real()
	if err := s.Validate(); err != nil {
		return nil, err
	}
	id, err := ReadIdentity(s.Dir)
	if err != nil {
		return nil, err
	}
	n := &Node{id: id, set: s, env: env, registry: prometheus.NewRegistry()}
	n.env.Logger = env.Logger.With("node", id.Node, "site", id.Site)
	n.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "tradepost", Name: "build_info", Help: "Which build this is; always 1."}, []string{"version", "goversion"})
	build.WithLabelValues(env.Version, runtime.Version()).Set(1)
	n.registry.MustRegister(build)
	if err := n.open(); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Node) open() error {
	ca, err := auth.LoadCACert(n.set.Dir)
	if err != nil {
		return err
	}
	cert, err := auth.LoadNode(n.set.Dir, ca, n.env.Now())
	if err != nil {
		return err
	}
	if err := n.id.bears(cert.Identity); err != nil {
		return err
	}
	if n.tokens, err = auth.LoadTokens(n.set.Dir); err != nil {
		return err
	}
	if n.id.Role == auth.RoleMaster {
		err = n.openMaster(cert)
	} else {
		err = n.openReplica(cert, ca)
	}
	if err != nil || n.env.NoHTTP {
		return err
	}
	if n.lis, err = n.env.ListenHTTP(n.set.Listen.HTTP); err != nil {
		return &crm.Error{Code: crm.CodeUnavailable, Op: "listen", Item: n.set.Listen.HTTP, Message: "the HTTP address cannot be used; choose another with --http", Err: err}
	}
	n.http, err = httpapi.New(n.apiConfig())
	return err
}

// Run serves until ctx ends or a part fails, and returns when all have ended.
// The HTTP server stops taking requests first, so that no request meets a
// closed store.
func (n *Node) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var loops []func(context.Context) error
	if n.master != nil {
		loops = append(loops, n.master.Run)
		if n.id.Bootstrap {
			loops = append(loops, n.bootstrap)
		}
	} else {
		loops = append(loops, n.replica.Run)
	}
	loops = append(loops, n.scrubbers()...)
	if n.gossip != nil {
		loops = append(loops, n.gossip.Run)
	}
	if n.http != nil {
		loops = append(loops, func(ctx context.Context) error { return n.http.Run(ctx, n.lis) })
	}
	n.announce()
	stopped := context.AfterFunc(ctx, func() { n.log().Info("the node is stopping") })
	defer stopped()
	done := make(chan error, len(loops))
	for _, loop := range loops {
		go func() {
			err := loop(ctx)
			if err != nil {
				cancel(err)
			}
			done <- err
		}()
	}
	var errs []error
	for range loops {
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// announce logs where the node can be reached.
func (n *Node) announce() {
	at := []any{"role", n.id.Role, "cluster", n.id.Cluster, "version", n.env.Version, "dir", n.set.Dir, "http", n.HTTPAddr()}
	if n.master != nil {
		at = append(at, "sync", n.set.Listen.Sync, "raft", n.set.Listen.Raft)
	}
	if n.serves() && n.master == nil {
		at = append(at, "sync", n.set.Listen.Sync)
	}
	if n.gossip != nil || n.master != nil && n.set.Listen.Gossip != "" {
		at = append(at, "gossip", n.set.Listen.Gossip)
	}
	n.log().Info("the node runs", at...)
}

// Close closes the files and ports. Call it after Run has returned.
func (n *Node) Close() error {
	var errs []error
	if n.lis != nil {
		if err := n.lis.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if n.gossip != nil {
		errs = append(errs, n.gossip.Close())
	}
	if n.replica != nil {
		errs = append(errs, n.replica.Close())
	}
	if n.master != nil {
		errs = append(errs, n.master.Close())
	}
	return errors.Join(errs...)
}

// Identity says who the node is.
func (n *Node) Identity() Identity { return n.id }

// API is the node as the HTTP server sees it.
func (n *Node) API() httpapi.Node {
	if n.master != nil {
		return n.master
	}
	return n.replica
}

// Master returns the master, nil at a replica.
func (n *Node) Master() *master.Master { return n.master }

// Replica returns the replica, nil at a master.
func (n *Node) Replica() *replica.Replica { return n.replica }

// Registry holds the node's metrics.
func (n *Node) Registry() *prometheus.Registry { return n.registry }

// HTTPAddr returns the address of the HTTP port, "" without one.
func (n *Node) HTTPAddr() string {
	if n.lis == nil {
		return ""
	}
	return n.lis.Addr().String()
}

// AdminToken returns the node's first bearer token.
func (n *Node) AdminToken() (string, error) { return ReadAdminToken(n.set.Dir) }

// ReadAdminToken reads the first bearer token of the node in dir.
func ReadAdminToken(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, "admin.token"))
	if err != nil {
		return "", dirError("read token", dir, "%v", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func (n *Node) log() *slog.Logger { return n.env.Logger }
