package node

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
)

// InitOptions describe a new cluster and its first master.
type InitOptions struct {
	Settings Settings
	Site     string // head office's site name, as in certificates and commands
	Cluster  string // cluster id; empty: a random one
}

// Init makes the directory of a new cluster's first master: a CA, the node's
// certificate, a gossip key and the first API token. The cluster itself starts
// when the directory is first run.
func Init(_ context.Context, o InitOptions, env Env) (Identity, error) {
	env = env.real()
	const op = "init"
	if err := o.Settings.Validate(); err != nil {
		return Identity{}, err
	}
	if err := auth.ValidSite(o.Site); err != nil {
		return Identity{}, &crm.Error{Code: crm.CodeInvalid, Op: op, Item: "site", Message: err.Error()}
	}
	if o.Cluster == "" {
		o.Cluster = newClusterID(env)
	}
	dir := o.Settings.Dir
	if err := prepareDir(op, dir); err != nil {
		return Identity{}, err
	}
	id := Identity{Cluster: o.Cluster, Role: auth.RoleMaster, Site: o.Site, Node: 1, Bootstrap: true}
	if err := writeFirst(dir, id, env); err != nil {
		return Identity{}, fmt.Errorf("%s: %w", op, err)
	}
	return id, writeIdentity(dir, id)
}

func newClusterID(env Env) string {
	var b [6]byte
	if _, err := io.ReadFull(env.Rand, b[:]); err != nil {
		panic("node: no randomness for a cluster id: " + err.Error())
	}
	return "tp-" + hex.EncodeToString(b[:])
}

// writeFirst writes what a joining node would be given.
func writeFirst(dir string, id Identity, env Env) error {
	ca, err := auth.NewCA(id.Cluster, env.Now(), env.Rand)
	if err != nil {
		return err
	}
	if err := ca.WriteFiles(dir); err != nil {
		return err
	}
	key, err := auth.NewKey()
	if err != nil {
		return err
	}
	csr, err := auth.NewRequest(key)
	if err != nil {
		return err
	}
	cert, err := ca.Sign(csr, auth.Identity{Cluster: id.Cluster, Role: id.Role, Site: id.Site, Node: uint32(id.Node)}, env.Now(), auth.NodeCertTTL)
	if err != nil {
		return err
	}
	n, err := auth.NewNode(cert, key)
	if err != nil {
		return err
	}
	if err := auth.WriteNode(dir, n); err != nil {
		return err
	}
	if err := writeFile(dir+"/gossip.key", newGossipKey(), 0o600); err != nil {
		return err
	}
	_, err = newAdminToken(dir, env)
	return err
}
