package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// A Node is what the API needs of a replica or a master.
type Node interface {
	// Commit takes an edit. When it returns, the edit is durable at this node,
	// or an error says that nothing was taken (or, with crm.CodeTimeout, that it
	// is unknown whether it was).
	Commit(ctx context.Context, req crm.Request) (crm.Receipt, error)
	// Await returns the outcome of this node's edit once it is decided and
	// shown here.
	Await(ctx context.Context, seq crm.Seq) (crm.Outcome, error)
	// Read calls fn, once, with a state that meets the demand, and says what
	// state that was. The Reader is fn's only until it returns.
	Read(ctx context.Context, d crm.Demand, fn func(*store.Reader) error) (crm.Freshness, error)
	// Subscribe returns the changes from now on. The channel is closed when ctx
	// ends, or earlier if the reader is too slow: then changes were dropped.
	Subscribe(ctx context.Context) <-chan crm.Change
	// Ready returns nil if the node can serve, or why not.
	Ready() error
}

// Config says what a server serves. The funcs after Ready are powers that only
// some nodes have; where one is nil its paths answer not_found.
type Config struct {
	Node Node
	Role string     // "master" or "replica": the role label of the metrics
	Self crm.NodeID // marked in the list of nodes; 0: unknown
	// Authenticate returns the actor of an Authorization header's value.
	Authenticate func(header string) (actor string, err error)
	// Status returns what /api/v1/status shows; it must encode as JSON.
	Status func(ctx context.Context) (any, error)

	Members     func(ctx context.Context) ([]Member, error)
	Outbox      func(ctx context.Context) ([]OutboxEntry, error)
	Check       func(ctx context.Context) ([]Finding, error)
	CreateToken func(ctx context.Context, site, role string, ttl time.Duration) (JoinToken, error)
	Peers       *Peers
	Backups     *Backups
	Wan         *Wan

	Registry    *prometheus.Registry // the metrics of the whole node; the server adds its own
	OpenMetrics bool                 // whether /metrics is served without a token
	Logger      *slog.Logger         // nil: slog.Default
	Now         func() time.Time     // nil: time.Now
	Rand        io.Reader            // of record ids; nil: crypto/rand.Reader
	Heartbeat   time.Duration        // between comments on an idle stream of changes; 0: 15 s
	// ReportMemory bounds the bytes that columns for reports hold between reports;
	// 0: store.DefaultColumnBytes.
	ReportMemory int64
}

// A Member is a node as this node's gossip sees it.
type Member struct {
	Node  crm.NodeID    `json:"node"`
	State string        `json:"state"` // alive, suspect, dead or left
	RTT   time.Duration `json:"-"`     // smoothed round trip from here; 0 if unknown
	Since time.Time     `json:"-"`     // when State last changed; zero if unknown
}

// An OutboxEntry is an edit of this node that the master has not decided.
type OutboxEntry struct {
	Seq    crm.Seq      `json:"seq"`
	At     time.Time    `json:"at"`
	Actor  string       `json:"actor"`
	Intent string       `json:"intent"`
	Bytes  int          `json:"bytes"`
	Ops    []crm.OpText `json:"ops"`
}

// A Finding is something wrong that a check of the stored files found. Territory
// and Bucket say which part of the digest it concerns, if it does: at a replica
// that is what a repair would fetch again.
type Finding struct {
	Kind      string          `json:"kind"`
	Item      string          `json:"item"`
	Message   string          `json:"message"`
	Territory crm.TerritoryID `json:"territory,omitempty"`
	Bucket    *byte           `json:"bucket,omitempty"`
}

// A JoinToken is what lets one new node join; Token is a secret until used.
type JoinToken struct {
	Token   string    `json:"token"`
	Site    string    `json:"site"`
	Role    string    `json:"role"`
	Expires time.Time `json:"expires"`
}

// Backups are the operations on copies of a master's data.
type Backups struct {
	// Write writes a backup file: a database, and a trailer that describes it.
	Write func(ctx context.Context, w io.Writer) error
	// Announce tells the cluster that the file which the trailer describes is safe.
	Announce func(ctx context.Context, trailer json.RawMessage) error
}

// Peers are the operations on the masters' Raft configuration.
type Peers struct {
	List     func(ctx context.Context) ([]Peer, error)
	Remove   func(ctx context.Context, id string) error
	Transfer func(ctx context.Context, id string) error // "": to whom Raft likes
}

// A Peer is a server of the masters' Raft configuration.
type Peer struct {
	ID       string `json:"id"`
	Address  string `json:"address"`
	Suffrage string `json:"suffrage"` // voter or nonvoter
	Leader   bool   `json:"leader"`
}

// Wan are the operations on a simulated WAN.
type Wan struct {
	Links func(ctx context.Context) ([]WanLink, error)
	Cut   func(ctx context.Context, site string) error
	Heal  func(ctx context.Context, site string) error // "": every link
}

// A WanLink is a simulated line between two sites.
type WanLink struct {
	A         string  `json:"a"`
	B         string  `json:"b"`
	RTTMillis float64 `json:"rtt_ms"`
	Cut       bool    `json:"cut"`
	Bytes     int64   `json:"bytes"` // carried both ways
}

// validate reports what a Config lacks.
func (c Config) validate() error {
	switch {
	case c.Node == nil:
		return errors.New("httpapi: Config.Node is nil")
	case c.Authenticate == nil:
		return errors.New("httpapi: Config.Authenticate is nil")
	case c.Status == nil:
		return errors.New("httpapi: Config.Status is nil")
	case c.Registry == nil:
		return errors.New("httpapi: Config.Registry is nil")
	case c.Role != "master" && c.Role != "replica":
		return errors.New("httpapi: Config.Role is neither master nor replica")
	}
	return nil
}

// OutcomeText is the master's verdict as the API writes it.
type OutcomeText struct {
	Kind    string   `json:"kind"` // accepted, merged, parked or rejected
	Rev     crm.Rev  `json:"rev"`
	Code    crm.Code `json:"code,omitempty"`
	Message string   `json:"message,omitempty"`
}

func outcomeText(o *crm.Outcome) *OutcomeText {
	if o == nil {
		return nil
	}
	return &OutcomeText{Kind: o.Kind.String(), Rev: o.Rev, Code: o.Code, Message: o.Message}
}

// Written is the answer to an edit.
type Written struct {
	Saved   string            `json:"saved"` // here or everywhere
	Node    crm.NodeID        `json:"node"`
	Seq     crm.Seq           `json:"seq"`
	Outcome *OutcomeText      `json:"outcome"`           // null until the master decided
	Record  json.RawMessage   `json:"record,omitempty"`  // of an edit of one record: as this node shows it now, null if deleted
	Records []json.RawMessage `json:"records,omitempty"` // of a mutation: the same for each of its records, in its order
}
