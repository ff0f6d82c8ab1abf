package node

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
)

// identityFormat is the version of node.json.
const identityFormat = 1

// An Identity is the content of node.json.
type Identity struct {
	Format    int        `json:"format"`
	Cluster   string     `json:"cluster"`
	Role      auth.Role  `json:"role"`
	Site      string     `json:"site"`
	Node      crm.NodeID `json:"node"`
	Masters   []string   `json:"masters"`              // sync addresses known when it joined
	RaftPeers []string   `json:"raft_peers,omitempty"` // of a master: the others' Raft addresses when it joined
	Bootstrap bool       `json:"bootstrap,omitempty"`  // the first master, which starts the cluster
}

func dirError(op, item, format string, args ...any) error {
	return &crm.Error{Code: crm.CodeInvalid, Op: op, Item: item, Message: fmt.Sprintf(format, args...)}
}

// prepareDir makes the directory and refuses one that holds a node already.
func prepareDir(op, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "node.json")); err == nil {
		return dirError(op, dir, "the directory holds a node already; run it with `tradepost serve --dir %s`, or choose another directory", dir)
	}
	if err := makeDir(dir); err != nil {
		return dirError(op, dir, "the directory cannot be made: %v", err)
	}
	return nil
}

// makeDir makes a directory and those above it, each with a durable name.
func makeDir(dir string) error {
	var parents []string
	for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); !errors.Is(err, fs.ErrNotExist) {
			break
		}
		parents = append(parents, filepath.Dir(d))
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range parents {
		if err := syncDir(d); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// writeIdentity writes node.json last and durably: its presence says that all
// the rest is there.
func writeIdentity(dir string, id Identity) error {
	id.Format = identityFormat
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "node.json"), append(b, '\n'), 0o600)
}

// writeFile replaces a file whole: temporary file, fsync, rename, fsync of the
// directory.
func writeFile(path string, b []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, werr := f.Write(b)
	if err := errors.Join(werr, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// ReadIdentity reads a directory's node.json.
func ReadIdentity(dir string) (Identity, error) {
	const op = "open node"
	path := filepath.Join(dir, "node.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Identity{}, dirError(op, dir, "no node lives here; make one with `tradepost init` (first master) or `tradepost join`; after a loss put back the saved identity first (docs/restore.md)")
	}
	if err != nil {
		return Identity{}, dirError(op, path, "%v", err)
	}
	var id Identity
	err = json.Unmarshal(b, &id)
	switch {
	case err == nil && id.Format > identityFormat:
		return Identity{}, &crm.Error{Code: crm.CodeFormat, Op: op, Item: path, Message: fmt.Sprintf("format %d was written by a newer tradepost; upgrade this one", id.Format)}
	case err == nil:
		err = id.validate()
	}
	if err != nil {
		return Identity{}, &crm.Error{Code: crm.CodeCorrupt, Op: op, Item: path, Message: fmt.Sprintf("the file is damaged (%v); put back the saved copy", err)}
	}
	return id, nil
}

func (id Identity) validate() error {
	switch {
	case id.Format != identityFormat:
		return fmt.Errorf("format %d does not exist", id.Format)
	case id.Role != auth.RoleMaster && id.Role != auth.RoleReplica:
		return fmt.Errorf("role %q is neither master nor replica", id.Role)
	case id.Cluster == "" || id.Site == "" || id.Node == 0:
		return errors.New("cluster, site or node is missing")
	}
	return nil
}

// bears says that a certificate is this node's.
func (id Identity) bears(cert auth.Identity) error {
	want := auth.Identity{Cluster: id.Cluster, Role: id.Role, Site: id.Site, Node: uint32(id.Node)}
	if cert == want {
		return nil
	}
	return &crm.Error{Code: crm.CodeInvalid, Op: "open node", Item: "node.crt", Message: fmt.Sprintf("the certificate is of %s, node.json of %s: files of two nodes lie in this directory; put back the saved identity of one", cert, want)}
}

// newAdminToken makes the first bearer token of a node and leaves it in
// admin.token for the CLI on this machine.
func newAdminToken(dir string, env Env) (string, error) {
	token, err := auth.NewBearer(env.Rand)
	if err != nil {
		return "", err
	}
	tokens, err := auth.LoadTokens(dir)
	if err != nil {
		return "", err
	}
	if err := tokens.Add("admin", "admin", token, env.Now()); err != nil {
		return "", err
	}
	return token, writeFile(filepath.Join(dir, "admin.token"), []byte(token+"\n"), 0o600)
}

func newGossipKey() []byte {
	key := make([]byte, 32)
	rand.Read(key)
	return key
}
