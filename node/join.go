package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// Join makes a node in s.Dir with a one-use join string: it asks the masters
// named there, in order, trusting only the pinned cluster CA, and writes the
// identity they give. The role [auth.RoleRelay] makes a master that does not vote.
// A directory that holds a node is refused before the token is spent.
func Join(ctx context.Context, s Settings, role auth.Role, joinString string, env Env) (Identity, error) {
	env = env.real()
	js, err := auth.ParseJoinString(joinString)
	if err != nil {
		return Identity{}, fmt.Errorf("join: %w", err)
	}
	if err := prepareDir("join", s.Dir); err != nil {
		return Identity{}, err
	}
	key, err := auth.NewKey()
	if err != nil {
		return Identity{}, err
	}
	csr, err := auth.NewRequest(key)
	if err != nil {
		return Identity{}, err
	}
	ask := &syncproto.Join{TokenID: js.Token.ID, Secret: js.Token.Secret, CSR: csr, Role: string(role), City: s.City,
		HTTP: advertised(s.Advertise.HTTP, s.Listen.HTTP)}
	if role.Joined() == auth.RoleMaster || s.Relay {
		ask.Sync = advertised(s.Advertise.Sync, s.Listen.Sync)
	}
	if role.Joined() == auth.RoleMaster {
		ask.Raft = advertised(s.Advertise.Raft, s.Listen.Raft)
	}
	got, err := askAny(ctx, js, ask, env)
	if err != nil {
		return Identity{}, err
	}
	n, err := auth.NewNode(got.Cert, key)
	if err != nil {
		return Identity{}, fmt.Errorf("join: the master's certificate: %w", err)
	}
	return writeJoined(s.Dir, role.Joined(), got, n, env)
}

// askAny tries the endpoints until one answers. A refusal ends the search: it
// would be the same everywhere.
func askAny(ctx context.Context, js auth.JoinString, ask *syncproto.Join, env Env) (*syncproto.Joined, error) {
	var unreachable []string
	for _, addr := range js.Endpoints {
		got, err := askOne(ctx, addr, js, ask, env)
		if err == nil {
			return got, nil
		}
		if refused := new(crm.Error); errors.As(err, &refused) && refused.Code != crm.CodeNoLeader && refused.Code != crm.CodeUnavailable {
			return nil, err
		}
		unreachable = append(unreachable, fmt.Sprintf("%s: %v", addr, err))
	}
	return nil, &crm.Error{Code: crm.CodeUnavailable, Op: "join", Message: "no master could admit the node; check the network and that a master runs: " + strings.Join(unreachable, "; ")}
}

func askOne(ctx context.Context, addr string, js auth.JoinString, ask *syncproto.Join, env Env) (*syncproto.Joined, error) {
	raw, err := env.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	tc := tls.Client(raw, auth.PinnedTLS(js.CAPin, env.Now, auth.ALPNJoin))
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if _, err := auth.PinnedCA(tc.ConnectionState(), js.CAPin); err != nil {
		return nil, err
	}
	conn := syncproto.NewConn(tc)
	defer conn.Close()
	if err := conn.Send(ask); err != nil {
		return nil, err
	}
	f, err := conn.Receive()
	if err != nil {
		return nil, err
	}
	switch f := f.(type) {
	case *syncproto.Joined:
		return f, nil
	case *syncproto.Refused:
		return nil, &crm.Error{Code: crm.Code(f.Code), Op: "join", Item: ask.TokenID, Message: f.Message}
	}
	return nil, fmt.Errorf("the master answered with a %s frame", f.Kind())
}

func writeJoined(dir string, role auth.Role, got *syncproto.Joined, n *auth.Node, env Env) (Identity, error) {
	id := Identity{Cluster: got.Cluster, Role: role, Site: got.Site, Node: got.Node, Masters: got.Masters}
	for _, p := range got.RaftPeers {
		id.RaftPeers = append(id.RaftPeers, p.Address)
	}
	if err := writeTrust(dir, got); err != nil {
		return Identity{}, fmt.Errorf("join: %w", err)
	}
	if err := auth.WriteNode(dir, n); err != nil {
		return Identity{}, fmt.Errorf("join: %w", err)
	}
	if len(got.GossipKey) > 0 {
		if err := writeFile(filepath.Join(dir, "gossip.key"), got.GossipKey, 0o600); err != nil {
			return Identity{}, fmt.Errorf("join: %w", err)
		}
	}
	if _, err := newAdminToken(dir, env); err != nil {
		return Identity{}, fmt.Errorf("join: %w", err)
	}
	return id, writeIdentity(dir, id)
}

// writeTrust keeps the cluster's CA: the key too at a master, which may admit
// others.
func writeTrust(dir string, got *syncproto.Joined) error {
	if len(got.CAKey) > 0 {
		ca, err := auth.RestoreCA(got.CACert, got.CAKey)
		if err != nil {
			return err
		}
		return ca.WriteFiles(dir)
	}
	cert, err := x509.ParseCertificate(got.CACert)
	if err != nil {
		return fmt.Errorf("the cluster's CA certificate: %w", err)
	}
	return auth.WriteCACert(dir, cert)
}
