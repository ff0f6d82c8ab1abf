package replica

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// An ID says which node this is.
type ID struct {
	Cluster string
	Site    string // name of the site record
	Node    crm.NodeID
}

// A Config is what a Replica needs. Dir, ID, Dial and Masters must be set.
type Config struct {
	Dir string // holds journal.db and base.db; must exist
	ID  ID

	TLS     *tls.Config                                              // client side of the session; nil speaks plainly, for tests
	Dial    func(ctx context.Context, addr string) (net.Conn, error) // opens a transport to host:port
	Masters func() []string                                          // host:port of masters to try, nearest first; those a master named come after

	Protocol uint16 // the newest version to speak; default syncproto.MaxVersion

	Relay *Relay // nil: this node serves no other

	Now     func() time.Time // default time.Now
	Rand    io.Reader        // of the jitter; default crypto/rand
	Logger  *slog.Logger     // default: silent
	Metrics *Metrics         // default: not registered anywhere
	Store   store.Options    // of both files; Logger, OnCommit and OnDoubt are the Replica's

	HeartbeatEvery time.Duration // between questions to the master; three without any frame end a session. Default 10 s
	BackoffMin     time.Duration // first bound of the wait before another session. Default 1 s
	BackoffMax     time.Duration // last bound. Default 60 s
	DialTimeout    time.Duration // of dialing, TLS and handshake together. Default 10 s
	CompactEvery   time.Duration // least time between two compactions after single records left. Default 1 minute
	KeepTail       time.Duration // how long a Mutation is kept, once it is decided, for masters that lost it. Default 14 days
}

func (c Config) withDefaults() Config {
	setDefault(&c.HeartbeatEvery, 10*time.Second)
	setDefault(&c.BackoffMin, time.Second)
	setDefault(&c.BackoffMax, time.Minute)
	setDefault(&c.DialTimeout, 10*time.Second)
	setDefault(&c.CompactEvery, time.Minute)
	setDefault(&c.KeepTail, 14*24*time.Hour)
	c.Protocol = cmp.Or(c.Protocol, syncproto.MaxVersion)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
	return c
}

func setDefault(d *time.Duration, to time.Duration) {
	if *d == 0 {
		*d = to
	}
}

func (c Config) validate() error {
	switch {
	case c.Dir == "":
		return errors.New("config: Dir is empty")
	case c.ID.Cluster == "" || c.ID.Site == "" || c.ID.Node == 0:
		return errors.New("config: ID needs cluster, site and node")
	case c.Dial == nil || c.Masters == nil:
		return errors.New("config: Dial and Masters must be set")
	case c.Protocol > syncproto.MaxVersion:
		return errors.New("config: Protocol is newer than this program")
	case c.HeartbeatEvery < 0 || c.BackoffMin < 0 || c.BackoffMax < c.BackoffMin || c.DialTimeout < 0 || c.CompactEvery < 0 || c.KeepTail < 0:
		return errors.New("config: a duration is negative, or BackoffMax is below BackoffMin")
	}
	return c.Relay.validate()
}
