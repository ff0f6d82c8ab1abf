package master

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/gossip"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// The ports that Config.Listen is asked for.
const (
	ListenSync = "sync" // replicas, joining nodes, and masters that forward
	ListenRaft = "raft" // masters among themselves
)

// A Config is what a Master needs.
type Config struct {
	Dir     string     // holds master.db and raft/
	Node    *auth.Node // certificate and key of this master
	CA      *auth.CA   // of the cluster; signs for nodes that join
	CAKey   []byte     // the CA's key, PKCS #8 DER: given to masters that join; nil: none can join here
	City    string     // where the master stands, for its node record
	Country string     // ISO 3166 alpha-2, for the first site's record

	Listen func(kind string) (net.Listener, error)                  // opens ListenSync or ListenRaft, without TLS
	Dial   func(ctx context.Context, addr string) (net.Conn, error) // reaches another master's port, without TLS

	SyncAddress string // host:port under which others reach this master
	RaftAddress string // host:port under which masters reach this one
	HTTPAddress string // of the HTTP port; may be ""

	Preset   string         // of Raft's time-outs: "region", the default, or "wide"
	LogStore string         // "wal", the default, "bbolt", or "memory" in tests
	Protocol uint16         // the newest version to speak and to activate; default syncproto.MaxVersion
	Gossip   *gossip.Config // nil: this master does not gossip

	Now     func() time.Time    // default time.Now
	Rand    io.Reader           // default crypto/rand
	Logger  *slog.Logger        // default: silent
	Metrics *Metrics            // default: registered nowhere
	tune    func(*ledgerConfig) // nil; tests put faults under the ledger
	Fatal   func(error)         // default: ends Run; must end the process: the master has stopped to keep its files
}

func (c Config) withDefaults() Config {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Protocol = cmp.Or(c.Protocol, syncproto.MaxVersion)
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.Dir == "":
		return errors.New("config: Dir is empty")
	case c.Node == nil || c.CA == nil:
		return errors.New("config: Node and CA must be set")
	case c.Node.Identity.Role != auth.RoleMaster:
		return fmt.Errorf("config: the certificate is a %s's", c.Node.Identity.Role)
	case c.Listen == nil || c.Dial == nil:
		return errors.New("config: Listen and Dial must be set")
	case c.SyncAddress == "" || c.RaftAddress == "":
		return errors.New("config: SyncAddress and RaftAddress must be set")
	case c.Protocol > syncproto.MaxVersion:
		return fmt.Errorf("config: protocol %d is newer than this program, which speaks %d to %d", c.Protocol, syncproto.MinVersion, syncproto.MaxVersion)
	}
	return nil
}

// A Master decides. It serves replicas, joining nodes and other masters on its
// sync port, and takes part in Raft on another. Its methods may be called by any
// goroutine once Open has returned; those that change something need Run.
type Master struct {
	cfg       Config
	id        auth.Identity
	node      crm.NodeID
	log       *slog.Logger
	ledger    *ledger
	lis       net.Listener
	tls       *tls.Config
	gossip    *gossip.Gossip // nil: none
	clock     *syncproto.Clock
	author    *author
	links     *links
	server    *session.Server
	rehearsal *rehearsal
	flight    atomic.Int64 // bytes of Mutations on their way through the log
	reports   reports
	changes   store.Subscribers
	lag       lag
	joining   chan struct{} // holds a token for each open connection of a node that wants to join
	failed    chan error    // capacity 1: why the ledger stopped
	randMu    sync.Mutex    // protects cfg.Rand
}

// Open opens the files, starts Raft and listens on both ports. Nothing is
// answered before Run. If it fails, nothing stays open.
func Open(cfg Config) (*Master, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("open master: %w", err)
	}
	cfg = cfg.withDefaults()
	m := &Master{cfg: cfg, id: cfg.Node.Identity, node: crm.NodeID(cfg.Node.Identity.Node), log: cfg.Logger,
		clock: &syncproto.Clock{Now: cfg.Now}, joining: make(chan struct{}, maxJoins), failed: make(chan error, 1)}
	m.author, m.links = newAuthor(m), newLinks(m)
	if err := m.open(); err != nil {
		return nil, fmt.Errorf("open master: %w", errors.Join(err, m.Close()))
	}
	return m, nil
}

func (m *Master) open() (err error) {
	m.tls = auth.JoinServerTLS(m.cfg.Node, m.cfg.CA.Cert, m.cfg.Now, auth.ALPNSync, auth.ALPNLink, auth.ALPNJoin)
	if m.lis, err = m.cfg.Listen(ListenSync); err != nil {
		return fmt.Errorf("listen for replicas at %s: %w", m.cfg.SyncAddress, err)
	}
	if m.cfg.Gossip != nil {
		if m.gossip, err = gossip.Open(*m.cfg.Gossip); err != nil {
			return err
		}
	}
	if m.ledger, err = openLedger(m.ledgerConfig()); err != nil {
		return err
	}
	m.server = session.New(m.sessionConfig())
	m.rehearsal, err = openRehearsal(m.cfg.Dir, m.ledger.db(), m.server.Rosters(), m.log)
	return err
}

func (m *Master) sessionConfig() session.Config {
	return session.Config{
		Cluster: m.id.Cluster, DB: m.ledger.db(), Protocol: m.cfg.Protocol, Upstream: upstream{m}, Head: m.ledger.head, Changed: m.ledger.changed,
		Leader: func() (crm.NodeID, bool) {
			id, _, self := m.ledger.leader()
			return nodeOf(id), self
		},
		LeaderChanged: m.ledger.leaderChanged, Age: m.age, Reported: m.heard, Damaged: func(err error) { m.met(err) }, Now: m.cfg.Now, Jitter: m.jitter, Logger: m.log,
		Observe: m.cfg.Metrics.sessions(),
	}
}

func (m *Master) ledgerConfig() ledgerConfig {
	cfg := ledgerConfig{
		Dir: m.cfg.Dir, ID: serverID(m.node), Address: m.cfg.RaftAddress,
		Listen: func() (net.Listener, error) { return m.cfg.Listen(ListenRaft) }, Dial: m.cfg.Dial,
		Server: auth.ServerTLS(m.cfg.Node, m.cfg.CA.Cert, m.cfg.Now, auth.ALPNRaft),
		Client: auth.ClientTLS(m.cfg.Node, m.cfg.CA.Cert, m.cfg.Now, auth.ExpectMaster, auth.ALPNRaft),
		Preset: preset(m.cfg.Preset), Log: logKind(m.cfg.LogStore), Protocol: m.cfg.Protocol, Now: m.cfg.Now, Logger: m.log,
		Fatal: m.fatal, Observe: m.cfg.Metrics.observer(),
	}
	if m.cfg.tune != nil {
		m.cfg.tune(&cfg)
	}
	return cfg
}

// fatal ends Run, and the process if Config.Fatal does.
func (m *Master) fatal(err error) {
	select {
	case m.failed <- err:
	default:
	}
	if m.cfg.Fatal != nil {
		m.cfg.Fatal(err)
	}
}

// Run serves until ctx ends, or until the ledger fails, which is the error. It
// returns when every goroutine it started has ended.
func (m *Master) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	loops := []func(context.Context) error{m.ledger.run, m.accept, m.author.run, m.reportLoop, m.trimLoop,
		m.memberLoop, m.lagLoop, m.changeLoop, m.awaitFailure}
	if m.gossip != nil {
		loops = append(loops, m.gossip.Run)
	}
	var wg sync.WaitGroup
	for _, loop := range loops {
		wg.Go(func() {
			if err := loop(ctx); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	m.links.close()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("run master: %w", err)
	}
	return nil
}

func (m *Master) awaitFailure(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-m.failed:
		return err
	}
}

// Close leaves Raft and closes the ports and files. Call it after Run has
// returned.
func (m *Master) Close() error {
	var errs []error
	if m.lis != nil {
		if err := m.lis.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if m.gossip != nil {
		errs = append(errs, m.gossip.Close())
	}
	if m.rehearsal != nil {
		errs = append(errs, m.rehearsal.close())
	}
	if m.ledger != nil {
		errs = append(errs, m.ledger.close())
	}
	return errors.Join(errs...)
}

// accept serves connections to the sync port until ctx ends, and then waits for
// them.
func (m *Master) accept(ctx context.Context) error {
	return session.Door{TLS: m.tls, Protocol: m.cfg.Protocol, Serve: m.serve, Failed: func(from net.Addr, err error) {
		m.cfg.Metrics.handshakes.WithLabelValues("failed").Inc()
		m.log.Debug("a handshake failed", "from", from, "error", err)
	}}.Accept(ctx, m.lis)
}

// serve gives a connection to whom its certificate and protocol call for.
func (m *Master) serve(ctx context.Context, c *tls.Conn, conn *syncproto.Conn) {
	state := c.ConnectionState()
	if state.NegotiatedProtocol == auth.ALPNJoin {
		m.serveJoin(ctx, c, conn)
		return
	}
	id, err := auth.PeerIdentity(state)
	switch {
	case err != nil:
		m.log.Debug("a peer has no identity", "from", c.RemoteAddr(), "error", err)
	case id.Role == auth.RoleMaster:
		m.serveMaster(ctx, conn, id)
	case state.NegotiatedProtocol == auth.ALPNLink:
		err := m.server.ServeRelay(ctx, conn, id, upstream{m})
		m.log.Debug("a relay hung up", "node", id.Node, "error", err)
	default:
		m.server.Serve(ctx, c, conn, id)
	}
}

// newConn returns a Conn that offers no newer version than this master speaks.
func (m *Master) newConn(c net.Conn) *syncproto.Conn {
	conn := syncproto.NewConn(c)
	conn.Limit(m.cfg.Protocol)
	return conn
}

// standing reads where a node stands.
func (m *Master) standing(n crm.NodeID) (session.Standing, error) { return m.server.Standing(n) }

// facts returns a node's record as this master knows it.
func (m *Master) facts(n crm.NodeID) (session.NodeFacts, bool) {
	s, err := m.standing(n)
	return s.Facts, err == nil && s.Listed
}

// sendRefusal ends a conversation. Whether the peer hears it is its affair.
func (m *Master) sendRefusal(conn *syncproto.Conn, why error) {
	m.log.Info("a peer was refused", "error", why)
	conn.Send(session.Refusal(why))
}

// jitter returns a random duration below bound.
func (m *Master) jitter(bound time.Duration) time.Duration {
	var b [8]byte
	m.random(b[:])
	return time.Duration(binary.BigEndian.Uint64(b[:]) % uint64(bound))
}

// random fills b. A master without randomness must not go on.
func (m *Master) random(b []byte) {
	m.randMu.Lock()
	defer m.randMu.Unlock()
	if _, err := io.ReadFull(m.cfg.Rand, b); err != nil {
		panic("master: no randomness: " + err.Error())
	}
}

func (m *Master) newRecordID() crm.RecordID {
	m.randMu.Lock()
	defer m.randMu.Unlock()
	return crm.NewRecordID(m.now(), m.cfg.Rand)
}

func (m *Master) now() time.Time { return m.cfg.Now() }

func (m *Master) millis() int64 { return m.cfg.Now().UnixMilli() }
