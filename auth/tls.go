package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"time"
)

// Protocols between nodes, negotiated by ALPN so that one port serves them all.
const (
	ALPNSync = "tradepost-sync/1" // a replica's session
	ALPNRaft = "tradepost-raft/1" // among masters only
	ALPNJoin = "tradepost-join/1" // a node without a certificate asks for one
	ALPNLink = "tradepost-link/1" // a relay asks on behalf of those it serves
)

// ServerTLS returns the configuration of a listener for nodes of n's cluster. Both
// sides show certificates signed by ca, which are valid by the clock now. A peer
// must agree on one of protos, and [ALPNRaft] is refused to all but masters.
// After the handshake [PeerIdentity] tells who called; what a caller may do beyond
// that is the listener's business.
func ServerTLS(n *Node, ca *x509.Certificate, now func() time.Time, protos ...string) *tls.Config {
	return serverTLS(n, ca, now, tls.RequireAndVerifyClientCert, protos)
}

// JoinServerTLS is ServerTLS for a listener that also admits nodes without a
// certificate, to [ALPNJoin] and nothing else. A certificate that is shown must be
// good.
func JoinServerTLS(n *Node, ca *x509.Certificate, now func() time.Time, protos ...string) *tls.Config {
	return serverTLS(n, ca, now, tls.VerifyClientCertIfGiven, protos)
}

func serverTLS(n *Node, ca *x509.Certificate, now func() time.Time, clients tls.ClientAuthType, protos []string) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{n.tlsCertificate(ca)},
		ClientAuth:   clients,
		ClientCAs:    roots,
		NextProtos:   protos,
		Time:         now,
		// A session lasts for days, so resuming one saves nothing, and it would admit
		// a peer on the strength of an older handshake.
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return admitStranger(state)
			}
			_, err := admitNode(state, ca)
			return err
		},
	}
}

// ClientTLS returns the configuration for calling a node of n's cluster whose
// identity satisfies expect; nil accepts any node of the cluster. The server must
// agree to speak alpn.
func ClientTLS(n *Node, ca *x509.Certificate, now func() time.Time, expect func(Identity) error, alpn string) *tls.Config {
	cert := n.tlsCertificate(ca)
	config := callerTLS(now, alpn, func(state tls.ConnectionState) error {
		leaf := state.PeerCertificates[0]
		if err := verifyChain("the server's certificate", leaf, ca, now(), x509.ExtKeyUsageServerAuth); err != nil {
			return err
		}
		id, err := admitNode(state, ca)
		if err != nil || expect == nil {
			return err
		}
		return expect(id)
	})
	// Certificates would be withheld from a server that names another CA, which then
	// reports a missing certificate instead of a foreign one.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	return config
}

// PinnedTLS returns the configuration with which a node without certificate calls a
// master: it trusts the chain whose CA key has the SHA-256 pin (see [Pin]) and no
// other. [PinnedCA] returns that CA after the handshake.
func PinnedTLS(pin [sha256.Size]byte, now func() time.Time, alpn string) *tls.Config {
	return callerTLS(now, alpn, func(state tls.ConnectionState) error {
		ca, err := PinnedCA(state, pin)
		if err != nil {
			return err
		}
		leaf := state.PeerCertificates[0]
		if err := verifyChain("the server's certificate", leaf, ca, now(), x509.ExtKeyUsageServerAuth); err != nil {
			return err
		}
		id, err := admitNode(state, ca)
		if err != nil {
			return err
		}
		return ExpectMaster(id) // a join secret is for masters
	})
}

// PinnedCA returns the cluster CA's certificate from the chain the server showed,
// if its key has the SHA-256 pin.
func PinnedCA(state tls.ConnectionState, pin [sha256.Size]byte) (*x509.Certificate, error) {
	if len(state.PeerCertificates) < 2 {
		return nil, refuse(CodePinMismatch, "the server showed no cluster CA, so it is no tradepost master: check the address in the join string")
	}
	ca := state.PeerCertificates[len(state.PeerCertificates)-1]
	got := Pin(ca)
	if subtle.ConstantTimeCompare(got[:], pin[:]) != 1 {
		return nil, refuse(CodePinMismatch, "the server's CA is not the one the join string names: check the address, and that no one intercepts the connection; then get a new join string")
	}
	if err := checkCA(ca); err != nil {
		return nil, refuseFor(CodeCAInvalid, err, "the server's CA certificate is not usable: get a new join string from a master")
	}
	return ca, nil
}

// callerTLS is the client side common to all. It skips crypto/tls's own
// verification because that wants to know the server's name beforehand, and a
// caller knows an address at most: any master will do, and a node keeps its name
// when it moves. verify, which must check the whole chain itself, takes its
// place; crypto/tls calls it in every handshake, with the server's certificates,
// of which there is at least one.
func callerTLS(now func() time.Time, alpn string, verify func(tls.ConnectionState) error) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{alpn},
		Time:               now,
		InsecureSkipVerify: true,
		VerifyConnection:   verify,
	}
}

// admitNode checks what a verified chain leaves open: the peer's identity, its
// cluster, and whether it may speak the protocol.
func admitNode(state tls.ConnectionState, ca *x509.Certificate) (Identity, error) {
	id, err := PeerIdentity(state)
	if err != nil {
		return Identity{}, err
	}
	if err := checkCluster(id, ca); err != nil {
		return Identity{}, err
	}
	// crypto/tls lets a peer that offers no ALPN pass, and no protocol has no rules.
	if state.NegotiatedProtocol == "" {
		return Identity{}, refuse(CodeProtocol, "%s named no protocol: run the same tradepost release on both nodes", id)
	}
	if state.NegotiatedProtocol == ALPNRaft && id.Role != RoleMaster {
		return Identity{}, refuse(CodeWrongRole, "%s may not speak %s, which is for masters: check its configuration", id, ALPNRaft)
	}
	return id, nil
}

func admitStranger(state tls.ConnectionState) error {
	if state.NegotiatedProtocol != ALPNJoin {
		return refuse(CodeProtocol, "a caller without certificate asked for protocol %q, and may only speak %s: join that node with a join string", state.NegotiatedProtocol, ALPNJoin)
	}
	return nil
}
