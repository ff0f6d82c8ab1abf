package auth

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// meet runs a handshake over a pipe. In TLS 1.3 a client is done before the server
// has judged its certificate, so the server sends one byte when it is content and
// clientErr includes reading it.
func meet(server, client *tls.Config) (state tls.ConnectionState, serverErr, clientErr error) {
	state, _, serverErr, clientErr = meetBoth(server, client)
	return state, serverErr, clientErr
}

func meetBoth(server, client *tls.Config) (serverState, clientState tls.ConnectionState, serverErr, clientErr error) {
	a, b := net.Pipe()
	// A pipe holds nothing, so two ends that both complain would wait for each other.
	deadline := time.Now().Add(10 * time.Second)
	if err := errors.Join(a.SetDeadline(deadline), b.SetDeadline(deadline)); err != nil {
		return serverState, clientState, err, err
	}
	s, c := tls.Server(a, server), tls.Client(b, client)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer a.Close()
		if serverErr = s.Handshake(); serverErr == nil {
			_, serverErr = s.Write([]byte{1})
		}
	})
	if clientErr = c.Handshake(); clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	}
	b.Close()
	wg.Wait()
	return s.ConnectionState(), c.ConnectionState(), serverErr, clientErr
}

func TestTLS_NodesKnowEachOther(t *testing.T) {
	ca := mustCA(t, cluster)
	master, replica := mustNode(t, ca, RoleMaster, 1), mustNode(t, ca, RoleReplica, 7)
	for _, server := range []*tls.Config{
		ServerTLS(master, ca.Cert, at(epoch), ALPNRaft, ALPNSync),
		JoinServerTLS(master, ca.Cert, at(epoch), ALPNJoin, ALPNSync),
	} {
		got, clientState, serverErr, clientErr := meetBoth(server, ClientTLS(replica, ca.Cert, at(epoch), ExpectMaster, ALPNSync))
		if err := errors.Join(serverErr, clientErr); err != nil {
			t.Fatal(err)
		}
		if got.Version != tls.VersionTLS13 || got.NegotiatedProtocol != ALPNSync {
			t.Errorf("version %#x, protocol %q", got.Version, got.NegotiatedProtocol)
		}
		if id, err := PeerIdentity(got); err != nil || id != replica.Identity {
			t.Errorf("the server met %s (%v), want %s", id, err, replica.Identity)
		}
		if id, err := PeerIdentity(clientState); err != nil || id != master.Identity {
			t.Errorf("the client met %s (%v), want %s", id, err, master.Identity)
		}
	}
}

// Every caller a server must turn away, and why. The server's own error is text of
// crypto/tls where the chain is at fault.
func TestServerTLS_Refuses(t *testing.T) {
	ca, twin, globex := mustCA(t, cluster), mustCA(t, cluster), mustCA(t, "globex")
	master, replica := mustNode(t, ca, RoleMaster, 1), mustNode(t, ca, RoleReplica, 7)
	strict := ServerTLS(master, ca.Cert, at(epoch), ALPNSync, ALPNRaft)
	join := JoinServerTLS(master, ca.Cert, at(epoch), ALPNSync, ALPNRaft, ALPNJoin)
	late := at(epoch.Add(NodeCertTTL + time.Minute))
	liar := &CA{Cluster: "globex", Cert: ca.Cert, key: ca.key, rand: ca.rand}

	// as is what a caller without scruples sends: any certificate, verifying nothing.
	as := func(n *Node, ca *CA, alpn ...string) *tls.Config {
		cert := n.tlsCertificate(ca.Cert)
		return &tls.Config{
			InsecureSkipVerify: true, NextProtos: alpn, Time: at(epoch),
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil },
		}
	}
	nobody := func(alpn ...string) *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, NextProtos: alpn, Time: at(epoch)}
	}
	tls12 := as(replica, ca, ALPNSync)
	tls12.MinVersion, tls12.MaxVersion = tls.VersionTLS12, tls.VersionTLS12

	for _, c := range []struct {
		name, want string // want is a code or a part of crypto/tls's text
		server     *tls.Config
		client     *tls.Config
	}{
		{"NoCertificate", "client didn't provide a certificate", strict, nobody(ALPNSync)},
		{"NoCertificateForSync", CodeProtocol, join, nobody(ALPNSync)},
		{"NoCertificateForRaft", CodeProtocol, join, nobody(ALPNRaft)},
		{"NoCertificateNoProtocol", CodeProtocol, join, nobody()},
		{"ForeignCA", "unknown authority", strict, as(mustNode(t, globex, RoleMaster, 1), globex, ALPNSync)},
		{"ForeignCAForJoin", "unknown authority", join, as(mustNode(t, globex, RoleMaster, 1), globex, ALPNJoin)},
		{"ForeignCASameName", "unknown authority", strict, as(mustNode(t, twin, RoleMaster, 1), twin, ALPNSync)},
		{"OtherClusterSameCA", CodeWrongCluster, strict, as(mustNode(t, liar, RoleMaster, 1), ca, ALPNSync)},
		{"TheCAItself", CodeCertInvalid, strict, as(&Node{Cert: ca.Cert, Key: ca.key}, ca, ALPNSync)},
		{"Expired", "expired", ServerTLS(master, ca.Cert, late, ALPNSync), as(replica, ca, ALPNSync)},
		{"NotYetValid", "not yet valid", ServerTLS(master, ca.Cert, at(epoch.Add(-time.Hour)), ALPNSync), as(replica, ca, ALPNSync)},
		{"ReplicaForRaft", CodeWrongRole, strict, as(replica, ca, ALPNRaft)},
		{"ReplicaForRaftOnJoin", CodeWrongRole, join, as(replica, ca, ALPNRaft)},
		{"NoProtocol", CodeProtocol, strict, as(replica, ca)},
		{"UnknownProtocol", "unsupported application protocols", strict, as(replica, ca, "h2")},
		{"JoinOnStrict", "unsupported application protocols", strict, as(replica, ca, ALPNJoin)},
		{"TLS12", "unsupported versions", strict, tls12},
		{"WrongUse", "incompatible key usage", strict, as(serverOnly(t, ca), ca, ALPNSync)},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, serverErr, clientErr := meet(c.server, c.client)
			if clientErr == nil {
				t.Error("the client was let in")
			}
			if serverErr == nil || (CodeOf(serverErr) != c.want && !strings.Contains(serverErr.Error(), c.want)) {
				t.Errorf("server: got %v, want %s", serverErr, c.want)
			}
		})
	}
}

// serverOnly is a node whose certificate the CA signed for servers alone.
func serverOnly(tb testing.TB, ca *CA) *Node {
	tb.Helper()
	key, err := NewKey()
	if err != nil {
		tb.Fatal(err)
	}
	id := Identity{Cluster: ca.Cluster, Role: RoleMaster, Site: "porto", Node: 3}
	der, err := ca.issue(&x509.Certificate{
		Subject:      pkix.Name{CommonName: "tradepost node 3"},
		SerialNumber: big.NewInt(3),
		NotBefore:    epoch,
		NotAfter:     epoch.Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		URIs:         []*url.URL{id.url()},
	}, ca.Cert, &key.PublicKey)
	if err != nil {
		tb.Fatal(err)
	}
	n, err := NewNode(der, key)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

// openServer is a server that takes anyone and shows n's certificate, good or not.
func openServer(n *Node, ca *CA, alpn ...string) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{n.tlsCertificate(ca.Cert)},
		ClientAuth:   tls.RequestClientCert,
		NextProtos:   alpn,
	}
}

// Every server that a node with a certificate must not talk to.
func TestClientTLS_Refuses(t *testing.T) {
	ca, twin, globex := mustCA(t, cluster), mustCA(t, cluster), mustCA(t, "globex")
	master, replica := mustNode(t, ca, RoleMaster, 1), mustNode(t, ca, RoleReplica, 7)
	liar := &CA{Cluster: "globex", Cert: ca.Cert, key: ca.key, rand: ca.rand}
	client := ClientTLS(replica, ca.Cert, at(epoch), nil, ALPNSync)
	wantMaster := ClientTLS(replica, ca.Cert, at(epoch), ExpectMaster, ALPNSync)
	late := ClientTLS(replica, ca.Cert, at(epoch.Add(NodeCertTTL+time.Minute)), nil, ALPNSync)
	early := ClientTLS(replica, ca.Cert, at(epoch.Add(-time.Hour)), nil, ALPNSync)
	raft := ClientTLS(master, ca.Cert, at(epoch), nil, ALPNRaft)
	tls12 := openServer(master, ca, ALPNSync)
	tls12.MaxVersion = tls.VersionTLS12
	alone := openServer(master, ca, ALPNSync)
	alone.Certificates[0].Certificate = alone.Certificates[0].Certificate[:1]
	clientOnly := mustNode(t, ca, RoleMaster, 4)
	clientOnly.Cert = reissue(t, ca, clientOnly, x509.ExtKeyUsageClientAuth)

	for _, c := range []struct {
		name, want     string
		server, client *tls.Config
	}{
		{"OK", "", openServer(master, ca, ALPNSync), wantMaster},
		{"OKWithoutCAInChain", "", alone, wantMaster},
		{"OKAnyNode", "", openServer(replica, ca, ALPNSync), client},
		{"ReplicaAsMaster", CodeWrongRole, openServer(replica, ca, ALPNSync), wantMaster},
		{"ReplicaForRaft", CodeWrongRole, openServer(replica, ca, ALPNRaft), raft},
		{"ForeignCA", CodeCertWrongCA, openServer(mustNode(t, globex, RoleMaster, 1), globex, ALPNSync), client},
		{"ForeignCASameName", CodeCertWrongCA, openServer(mustNode(t, twin, RoleMaster, 1), twin, ALPNSync), client},
		{"OtherClusterSameCA", CodeWrongCluster, openServer(mustNode(t, liar, RoleMaster, 1), ca, ALPNSync), client},
		{"TheCAItself", CodeCertInvalid, openServer(&Node{Cert: ca.Cert, Key: ca.key}, ca, ALPNSync), client},
		{"WrongUse", CodeCertInvalid, openServer(clientOnly, ca, ALPNSync), client},
		{"Expired", CodeCertExpired, openServer(master, ca, ALPNSync), late},
		{"NotYetValid", CodeCertNotYetValid, openServer(master, ca, ALPNSync), early},
		{"NoProtocol", CodeProtocol, openServer(master, ca), client},
		{"TLS12", "protocol version not supported", tls12, client},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, serverErr, clientErr := meet(c.server, c.client)
			if c.want == "" {
				if err := errors.Join(serverErr, clientErr); err != nil {
					t.Fatal(err)
				}
				return
			}
			if serverErr == nil {
				t.Error("the server was taken at its word")
			}
			if clientErr == nil || (CodeOf(clientErr) != c.want && !strings.Contains(clientErr.Error()+serverErr.Error(), c.want)) {
				t.Errorf("client: got %v (server: %v), want %s", clientErr, serverErr, c.want)
			}
		})
	}
}

// reissue signs n's certificate again for one use only.
func reissue(tb testing.TB, ca *CA, n *Node, use x509.ExtKeyUsage) *x509.Certificate {
	tb.Helper()
	template := *n.Cert
	template.ExtKeyUsage = []x509.ExtKeyUsage{use}
	der, err := ca.issue(&template, ca.Cert, &n.Key.PublicKey)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return cert
}

func TestPinnedTLS_Joins(t *testing.T) {
	ca := mustCA(t, cluster)
	master := mustNode(t, ca, RoleMaster, 1)
	pin := Pin(ca.Cert)
	got, clientState, serverErr, clientErr := meetBoth(
		JoinServerTLS(master, ca.Cert, at(epoch), ALPNSync, ALPNJoin), PinnedTLS(pin, at(epoch), ALPNJoin))
	if err := errors.Join(serverErr, clientErr); err != nil {
		t.Fatal(err)
	}
	_, err := PeerIdentity(got)
	wantCode(t, err, CodeCertMissing)
	cert, err := PinnedCA(clientState, pin)
	if err != nil || !cert.Equal(ca.Cert) {
		t.Errorf("PinnedCA = %v, %v; want the cluster's", cert, err)
	}
}

func TestPinnedTLS_Refuses(t *testing.T) {
	ca, twin := mustCA(t, cluster), mustCA(t, cluster)
	master, replica := mustNode(t, ca, RoleMaster, 1), mustNode(t, ca, RoleReplica, 7)
	pin := Pin(ca.Cert)

	alone := openServer(master, ca, ALPNJoin)
	alone.Certificates[0].Certificate = alone.Certificates[0].Certificate[:1]
	// A real CA certificate proves nothing when the leaf is not of its making.
	borrowed := openServer(mustNode(t, twin, RoleMaster, 1), ca, ALPNJoin)
	// The pinned public key in a certificate that somebody else wrote.
	forged := *ca.Cert
	forged.NotAfter = epoch.Add(2 * CATTL)
	forger := mustCA(t, cluster)
	forgedDER, err := x509.CreateCertificate(rand.Reader, &forged, forger.Cert, &ca.key.PublicKey, forger.key)
	if err != nil {
		t.Fatal(err)
	}
	withForged := openServer(master, ca, ALPNJoin)
	withForged.Certificates[0].Certificate = [][]byte{master.Cert.Raw, forgedDER}

	for _, c := range []struct {
		name, want string
		server     *tls.Config
		now        time.Time
	}{
		{"OtherCA", CodePinMismatch, openServer(mustNode(t, twin, RoleMaster, 1), twin, ALPNJoin), epoch},
		{"NoCA", CodePinMismatch, alone, epoch},
		{"BorrowedCA", CodeCertWrongCA, borrowed, epoch},
		{"ForgedCA", CodeCAInvalid, withForged, epoch},
		{"Replica", CodeWrongRole, openServer(replica, ca, ALPNJoin), epoch},
		{"Expired", CodeCertExpired, openServer(master, ca, ALPNJoin), epoch.Add(NodeCertTTL + time.Minute)},
		{"ClockBehind", CodeCertNotYetValid, openServer(master, ca, ALPNJoin), epoch.Add(-time.Hour)},
		{"NoProtocol", CodeProtocol, openServer(master, ca), epoch},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, serverErr, clientErr := meet(c.server, PinnedTLS(pin, at(c.now), ALPNJoin))
			wantCode(t, clientErr, c.want)
			if serverErr == nil {
				t.Error("the server was taken at its word")
			}
		})
	}
}

// One configuration serves many connections, and an earlier one earns a later one
// nothing: there are no tickets to resume from.
func TestTLS_NoResumption(t *testing.T) {
	ca := mustCA(t, cluster)
	clock := epoch
	now := func() time.Time { return clock }
	server := ServerTLS(mustNode(t, ca, RoleMaster, 1), ca.Cert, now, ALPNSync)
	client := ClientTLS(mustNode(t, ca, RoleReplica, 7), ca.Cert, at(epoch), ExpectMaster, ALPNSync)
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	for range 2 {
		state, serverErr, clientErr := meet(server, client)
		if err := errors.Join(serverErr, clientErr); err != nil || state.DidResume {
			t.Fatalf("resumed %v, %v", state.DidResume, err)
		}
	}
	clock = epoch.Add(NodeCertTTL + time.Minute)
	if _, serverErr, _ := meet(server, client); serverErr == nil {
		t.Error("a certificate that expired meanwhile was let in")
	}
}
