package auth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

const cluster = "acme"

var epoch = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

func mustCA(tb testing.TB, cluster string) *CA {
	tb.Helper()
	ca, err := NewCA(cluster, epoch, rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return ca
}

func mustNode(tb testing.TB, ca *CA, role Role, node uint32) *Node {
	tb.Helper()
	key, csr := mustRequest(tb)
	id := Identity{Cluster: ca.Cluster, Role: role, Site: "porto", Node: node}
	der, err := ca.Sign(csr, id, epoch, NodeCertTTL)
	if err != nil {
		tb.Fatal(err)
	}
	n, err := NewNode(der, key)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

func mustRequest(tb testing.TB) (*ecdsa.PrivateKey, []byte) {
	tb.Helper()
	key, err := NewKey()
	if err != nil {
		tb.Fatal(err)
	}
	csr, err := NewRequest(key)
	if err != nil {
		tb.Fatal(err)
	}
	return key, csr
}

// wantCode fails unless err has code and, for people, says more than the cause.
func wantCode(tb testing.TB, err error, code string) {
	tb.Helper()
	if got := CodeOf(err); got != code {
		tb.Fatalf("got code %q (%v), want %q", got, err, code)
	}
	if !strings.ContainsAny(err.Error(), ":;") {
		tb.Errorf("%q does not say what to do", err)
	}
}

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func TestCA_Shape(t *testing.T) {
	cert := mustCA(t, cluster).Cert
	if got, want := cert.Subject.CommonName, "tradepost cluster acme"; got != want {
		t.Errorf("common name %q, want %q", got, want)
	}
	if !cert.IsCA || cert.MaxPathLen != 0 || !cert.MaxPathLenZero {
		t.Errorf("IsCA %v, path length %d (zero %v), want a CA of path length 0", cert.IsCA, cert.MaxPathLen, cert.MaxPathLenZero)
	}
	if got, want := cert.NotAfter, epoch.Add(CATTL); !got.Equal(want) {
		t.Errorf("ends %s, want %s", got, want)
	}
}

func TestCA_RefusesBadClusterAndBrokenRand(t *testing.T) {
	_, err := NewCA("Acme!", epoch, rand.Reader)
	wantCode(t, err, CodeIdentityInvalid)
	if _, err := NewCA(cluster, epoch, strings.NewReader("short")); err == nil {
		t.Error("made a CA without 16 random bytes for its serial number")
	}
}

func TestCA_FilesRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	ca := mustCA(t, cluster)
	if err := ca.WriteFiles(dir); err != nil {
		t.Fatal(err)
	}
	back, err := LoadCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	if back.Cluster != cluster || !back.Cert.Equal(ca.Cert) || !back.key.Equal(ca.key) {
		t.Error("the CA read back is another one")
	}
	if err := mustNode(t, back, RoleMaster, 1).Verify(ca.Cert, epoch); err != nil {
		t.Errorf("a certificate of the CA read back: %v", err)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 2 {
		t.Errorf("directory holds %v (%v), want ca.crt and ca.key only", names, err)
	}
	wantMode(t, filepath.Join(dir, "ca.crt"), 0o644)
	wantMode(t, filepath.Join(dir, "ca.key"), 0o600)
}

func wantMode(tb testing.TB, path string, want os.FileMode) {
	tb.Helper()
	info, err := os.Stat(path)
	if err != nil {
		tb.Fatal(err)
	}
	if got := info.Mode().Perm(); runtime.GOOS != "windows" && got != want {
		tb.Errorf("%s has mode %o, want %o", path, got, want)
	}
}

func TestCA_NeverOverwrites(t *testing.T) {
	for _, name := range []string{"ca.crt", "ca.key"} {
		dir := t.TempDir()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		wantCode(t, mustCA(t, cluster).WriteFiles(dir), CodeCAExists)
		if got, _ := os.ReadFile(path); string(got) != "precious" {
			t.Errorf("%s is now %q", name, got)
		}
	}
	// The guard against a second process that passed the check at the same time.
	dir := t.TempDir()
	for _, want := range []string{"", CodeCAExists} {
		if got := CodeOf(createCAFile(dir, "ca.key", []byte("x"), secretMode)); got != want {
			t.Errorf("create ca.key: code %q, want %q", got, want)
		}
	}
}

func TestLoadCA_Errors(t *testing.T) {
	write := func(t *testing.T, dir, name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	node := mustNode(t, mustCA(t, cluster), RoleMaster, 1)
	otherKey, err := keyPEM(mustCA(t, cluster).key)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, code, file string
		damage           func(t *testing.T, dir string)
	}{
		{"NoCert", CodeCAMissing, "ca.crt", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "ca.crt")) }},
		{"NoKey", CodeCAMissing, "ca.key", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "ca.key")) }},
		{"JunkCert", CodeCAInvalid, "ca.crt", func(t *testing.T, dir string) { write(t, dir, "ca.crt", []byte("junk")) }},
		{"JunkKey", CodeCAInvalid, "ca.key", func(t *testing.T, dir string) { write(t, dir, "ca.key", []byte("junk")) }},
		{"HugeKey", CodeCAInvalid, "ca.key", func(t *testing.T, dir string) { write(t, dir, "ca.key", make([]byte, maxFileSize+1)) }},
		{"NodeCert", CodeCAInvalid, "ca.crt", func(t *testing.T, dir string) { write(t, dir, "ca.crt", certPEM(node.Cert)) }},
		{"OtherKey", CodeCAInvalid, "ca.key", func(t *testing.T, dir string) { write(t, dir, "ca.key", otherKey) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := mustCA(t, cluster).WriteFiles(dir); err != nil {
				t.Fatal(err)
			}
			c.damage(t, dir)
			_, err := LoadCA(dir)
			wantCode(t, err, c.code)
			if !strings.Contains(err.Error(), filepath.Join(dir, c.file)) {
				t.Errorf("%q does not name %s", err, c.file)
			}
		})
	}
}

func TestLoadCA_ExposedKey(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes are a Unix matter")
	}
	dir := t.TempDir()
	if err := mustCA(t, cluster).WriteFiles(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "ca.key"), 0o640); err != nil {
		t.Fatal(err)
	}
	_, err := LoadCA(dir)
	wantCode(t, err, CodeFileExposed)
}

func TestWriteCACert(t *testing.T) {
	dir := t.TempDir()
	ca := mustCA(t, cluster)
	for range 2 {
		if err := WriteCACert(dir, ca.Cert); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, WriteCACert(dir, mustCA(t, cluster).Cert), CodeCAExists)
	got, err := LoadCACert(dir)
	if err != nil || !got.Equal(ca.Cert) {
		t.Errorf("got %v (%v), want the first CA", got, err)
	}
}

func TestSign_IgnoresNamesAskedFor(t *testing.T) {
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	wish := Identity{Cluster: cluster, Role: RoleMaster, Site: "lisbon", Node: 1}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "root"},
		DNSNames: []string{"evil.example"},
		URIs:     append(mustNode(t, mustCA(t, cluster), RoleMaster, 9).Cert.URIs, wish.url()),
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	id := Identity{Cluster: cluster, Role: RoleReplica, Site: "porto", Node: 7}
	der, err := mustCA(t, cluster).Sign(csr, id, epoch, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	n, err := NewNode(der, key)
	if err != nil {
		t.Fatal(err)
	}
	if n.Identity != id || n.Cert.Subject.CommonName != "tradepost node 7" || n.Cert.IsCA {
		t.Errorf("got %s, subject %s, CA %v", n.Identity, n.Cert.Subject, n.Cert.IsCA)
	}
	if got := n.Cert.DNSNames; len(got) != 1 || got[0] != "node-7.acme.tradepost" {
		t.Errorf("DNS names %q", got)
	}
	if got, want := n.Cert.NotBefore, epoch.Add(-5*time.Minute); !got.Equal(want) {
		t.Errorf("starts %s, want %s", got, want)
	}
	if got, want := n.Cert.NotAfter, epoch.Add(time.Hour); !got.Equal(want) {
		t.Errorf("ends %s, want %s", got, want)
	}
}

func TestSign_SerialsAre128RandomBits(t *testing.T) {
	key, csr := mustRequest(t)
	serial := bytes.Repeat([]byte{0xfe}, 16)
	ca := mustCA(t, cluster)
	ca.rand = bytes.NewReader(serial)
	id := Identity{Cluster: cluster, Role: RoleMaster, Site: "porto", Node: 1}
	der, err := ca.Sign(csr, id, epoch, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	n, err := NewNode(der, key)
	if err != nil || !bytes.Equal(n.Cert.SerialNumber.Bytes(), serial) {
		t.Errorf("serial %x (%v), want %x", n.Cert.SerialNumber, err, serial)
	}
	if _, err := ca.Sign(csr, id, epoch, time.Hour); err == nil {
		t.Error("signed without random bytes for a serial number")
	}
}

func TestSign_NeverOutlivesTheCA(t *testing.T) {
	ca := mustCA(t, cluster)
	_, csr := mustRequest(t)
	id := Identity{Cluster: cluster, Role: RoleMaster, Site: "porto", Node: 1}
	der, err := ca.Sign(csr, id, epoch, 2*CATTL)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil || !cert.NotAfter.Equal(ca.Cert.NotAfter) {
		t.Errorf("ends %s (%v), want with the CA on %s", cert.NotAfter, err, ca.Cert.NotAfter)
	}
}

func TestSign_Refuses(t *testing.T) {
	ca := mustCA(t, cluster)
	_, csr := mustRequest(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaCSR, err1 := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, rsaKey)
	p384CSR, err2 := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, p384)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	ok := Identity{Cluster: cluster, Role: RoleMaster, Site: "porto", Node: 1}
	other, nobody := ok, ok
	other.Cluster, nobody.Node = "globex", 0
	for _, c := range []struct {
		name, code string
		csr        []byte
		id         Identity
		now        time.Time
		ttl        time.Duration
	}{
		{"Junk", CodeNotPermitted, []byte("junk"), ok, epoch, time.Hour},
		{"RSA", CodeNotPermitted, rsaCSR, ok, epoch, time.Hour},
		{"P384", CodeNotPermitted, p384CSR, ok, epoch, time.Hour},
		{"NoTTL", CodeNotPermitted, csr, ok, epoch, 0},
		{"OtherCluster", CodeWrongCluster, csr, other, epoch, time.Hour},
		{"NodeZero", CodeIdentityInvalid, csr, nobody, epoch, time.Hour},
		{"ExpiredCA", CodeCAExpired, csr, ok, epoch.Add(CATTL + time.Second), time.Hour},
		{"CAFromTheFuture", CodeCertNotYetValid, csr, ok, epoch.Add(-time.Hour), time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ca.Sign(c.csr, c.id, c.now, c.ttl)
			wantCode(t, err, c.code)
		})
	}
}

// A request changed in any one byte is refused, whatever the byte means.
func TestSign_RefusesTamperedRequest(t *testing.T) {
	ca := mustCA(t, cluster)
	_, csr := mustRequest(t)
	id := Identity{Cluster: cluster, Role: RoleMaster, Site: "porto", Node: 1}
	for i := range csr {
		bad := bytes.Clone(csr)
		bad[i] ^= 0x01
		if _, err := ca.Sign(bad, id, epoch, time.Hour); CodeOf(err) != CodeNotPermitted {
			t.Errorf("byte %d of %d changed: got %v, want %s", i, len(csr), err, CodeNotPermitted)
		}
	}
}
