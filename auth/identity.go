package auth

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// A Role is the part a node plays in its cluster.
type Role string

// The roles.
const (
	RoleMaster  Role = "master"  // Raft voter or relay
	RoleReplica Role = "replica" // a branch

	// RoleRelay is what a master asks to join as that is not to vote. No identity
	// has it: the node is a RoleMaster.
	RoleRelay Role = "relay"
)

// Joined is the role that a node of the cluster has after it has asked to join as
// r.
func (r Role) Joined() Role {
	if r == RoleRelay {
		return RoleMaster
	}
	return r
}

// An Identity names one node for as long as the cluster lives. The cluster CA
// vouches for it; it holds no address.
type Identity struct {
	Cluster string // see ValidCluster
	Role    Role
	Site    string // see ValidSite
	Node    uint32 // from 1; 0 is no node
}

const (
	uriScheme     = "spiffe://"
	maxClusterLen = 46 // with "tradepost cluster " in front this fits X.520's 64 characters of common name
	maxSiteLen    = 63
)

// String returns the URI of id, as it stands in the node's certificate.
func (id Identity) String() string {
	return fmt.Sprintf("%s%s/%s/%s/%d", uriScheme, id.Cluster, id.Role, id.Site, id.Node)
}

// ServerName returns the DNS name in id's certificate. It is never looked up; it is
// for TLS clients that insist on a name.
func (id Identity) ServerName() string {
	return fmt.Sprintf("node-%d.%s.tradepost", id.Node, id.Cluster)
}

// Validate returns an [*Error] if a field of id is out of its bounds.
func (id Identity) Validate() error {
	if err := ValidCluster(id.Cluster); err != nil {
		return err
	}
	if id.Role != RoleMaster && id.Role != RoleReplica {
		return refuse(CodeIdentityInvalid, "role %q is unknown: use %q or %q", id.Role, RoleMaster, RoleReplica)
	}
	if err := ValidSite(id.Site); err != nil {
		return err
	}
	if id.Node == 0 {
		return refuse(CodeIdentityInvalid, "node 0 does not exist: number nodes from 1")
	}
	return nil
}

// ValidSite returns an [*Error] unless name is 1 to 63 lower-case letters a-z,
// digits and dashes, starting with a letter.
func ValidSite(name string) error {
	if len(name) < 1 || len(name) > maxSiteLen || !isLower(name[0]) || !isLabel(name) {
		return refuse(CodeIdentityInvalid,
			"site %.70q is not a site name: use 1 to %d lower-case letters, digits and dashes, starting with a letter", name, maxSiteLen)
	}
	return nil
}

// ValidCluster returns an [*Error] unless id is 1 to 46 lower-case letters a-z,
// digits and dashes, neither starting nor ending with a dash. A UUID will do.
func ValidCluster(id string) error {
	if len(id) < 1 || len(id) > maxClusterLen || id[0] == '-' || id[len(id)-1] == '-' || !isLabel(id) {
		return refuse(CodeIdentityInvalid,
			"cluster %.70q is not a cluster id: use 1 to %d lower-case letters, digits and dashes, with no dash at either end", id, maxClusterLen)
	}
	return nil
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }

func isLabel(s string) bool {
	for i := range len(s) {
		if c := s[i]; !isLower(c) && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// ParseIdentity returns the identity whose String is uri. Only that one spelling
// is accepted: no other case, no leading zeros, no query, nothing after the node.
func ParseIdentity(uri string) (Identity, error) {
	bad := refuse(CodeIdentityInvalid,
		"%.200q is not a node identity: expected spiffe://<cluster>/master/<site>/<node> or spiffe://<cluster>/replica/<site>/<node>", uri)
	rest, ok := strings.CutPrefix(uri, uriScheme)
	parts := strings.SplitN(rest, "/", 5)
	if !ok || len(parts) != 4 {
		return Identity{}, bad
	}
	node, err := strconv.ParseUint(parts[3], 10, 32)
	if err != nil {
		return Identity{}, bad
	}
	id := Identity{Cluster: parts[0], Role: Role(parts[1]), Site: parts[2], Node: uint32(node)}
	if err := id.Validate(); err != nil {
		return Identity{}, err
	}
	if id.String() != uri {
		return Identity{}, bad
	}
	return id, nil
}

// PeerIdentity returns who is at the other end of a connection that was made with
// a configuration of this package; only such a connection has a verified peer.
// It returns an [*Error] with [CodeCertMissing] if the peer, a node that is
// joining, showed no certificate.
func PeerIdentity(state tls.ConnectionState) (Identity, error) {
	if len(state.PeerCertificates) == 0 {
		return Identity{}, refuse(CodeCertMissing, "the peer showed no certificate: it must join the cluster first")
	}
	return certIdentity(state.PeerCertificates[0])
}

func certIdentity(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 {
		return Identity{}, refuse(CodeCertInvalid,
			"certificate %q is not a node's, it has %d URI names instead of 1: use the certificate the cluster issued", cert.Subject, len(cert.URIs))
	}
	return ParseIdentity(cert.URIs[0].String())
}

func (id Identity) url() *url.URL {
	return &url.URL{Scheme: "spiffe", Host: id.Cluster, Path: fmt.Sprintf("/%s/%s/%d", id.Role, id.Site, id.Node)}
}

// ExpectMaster refuses an identity that is not a master's. It fits [ClientTLS].
func ExpectMaster(id Identity) error {
	if id.Role != RoleMaster {
		return refuse(CodeWrongRole, "%s is a %s, but only a master may answer here: check the address", id, id.Role)
	}
	return nil
}
