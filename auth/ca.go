package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Lifetimes of certificates.
const (
	CATTL       = 10 * 365 * 24 * time.Hour // of the cluster CA
	NodeCertTTL = 365 * 24 * time.Hour      // of a node's certificate unless the caller says otherwise
)

const (
	caNamePrefix = "tradepost cluster "
	clockSkew    = 5 * time.Minute // certificates start this much early, for peers whose clocks run behind
)

// A CA is a cluster's certificate authority: an ECDSA P-256 key and a self-signed
// certificate that may sign node certificates but no further authorities.
// Whoever holds ca.key can be any node of the cluster.
type CA struct {
	Cluster string            // the cluster id, part of every identity the CA signs
	Cert    *x509.Certificate // self-signed

	key  *ecdsa.PrivateKey
	rand io.Reader // for serial numbers
}

// NewCA makes the authority of a new cluster, valid for [CATTL] from now. Serial
// numbers come from rand, keys and signatures from the system's own generator:
// since Go 1.26 crypto/ecdsa takes no other. NewCA writes nothing; see WriteFiles.
func NewCA(cluster string, now time.Time, rand io.Reader) (*CA, error) {
	if err := ValidCluster(cluster); err != nil {
		return nil, err
	}
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	ca := &CA{Cluster: cluster, key: key, rand: rand}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: caNamePrefix + cluster},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(CATTL),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := ca.issue(template, template, &key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("new CA of cluster %s: %w", cluster, err)
	}
	if ca.Cert, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("new CA of cluster %s: %w", cluster, err)
	}
	return ca, nil
}

// Sign answers a certificate request with a certificate for id, in DER, valid from
// five minutes before now until ttl after it, or until the CA itself ends.
// The request only proves that its sender holds the key: names it asks for are
// ignored, so the caller decides who the sender is before calling Sign.
//
// The certificate serves both ends of a connection. Its URI is id.String(), its DNS
// name id.ServerName(). Sign returns an [*Error] for a request that is damaged,
// not self-signed or not for an ECDSA P-256 key, for an identity that is invalid
// or of another cluster, for ttl <= 0, and when the CA has expired.
func (ca *CA) Sign(csrDER []byte, id Identity, now time.Time, ttl time.Duration) (certDER []byte, err error) {
	if err := ca.permit(id, now, ttl); err != nil {
		return nil, err
	}
	public, err := requestKey(csrDER)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: fmt.Sprintf("tradepost node %d", id.Node)},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(ttl),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		DNSNames:              []string{id.ServerName()},
		URIs:                  []*url.URL{id.url()},
	}
	if template.NotAfter.After(ca.Cert.NotAfter) {
		template.NotAfter = ca.Cert.NotAfter
	}
	certDER, err = ca.issue(template, ca.Cert, public)
	if err != nil {
		return nil, fmt.Errorf("sign certificate of %s: %w", id, err)
	}
	return certDER, nil
}

func (ca *CA) permit(id Identity, now time.Time, ttl time.Duration) error {
	if err := id.Validate(); err != nil {
		return err
	}
	if id.Cluster != ca.Cluster {
		return refuse(CodeWrongCluster, "the CA of cluster %s does not sign for %s: ask a master of cluster %s", ca.Cluster, id, id.Cluster)
	}
	if ttl <= 0 {
		return refuse(CodeNotPermitted, "a certificate for %s cannot last %s: ask for a positive lifetime", id, ttl)
	}
	return checkCATime(ca.Cert, now)
}

func (ca *CA) issue(template, parent *x509.Certificate, public *ecdsa.PublicKey) ([]byte, error) {
	serial := make([]byte, 16)
	if _, err := io.ReadFull(ca.rand, serial); err != nil {
		return nil, fmt.Errorf("serial number: %w", err)
	}
	template.SerialNumber = new(big.Int).SetBytes(serial)
	return x509.CreateCertificate(rand.Reader, template, parent, public, ca.key)
}

// NewKey returns a new ECDSA P-256 key from the system's random generator.
func NewKey() (*ecdsa.PrivateKey, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// NewRequest returns a certificate request for key in DER. It names nobody: the
// cluster decides who the node is. To renew a certificate use the key at hand, so
// that only node.crt changes on disk.
func NewRequest(key *ecdsa.PrivateKey) (csrDER []byte, err error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
}

func requestKey(csrDER []byte) (*ecdsa.PublicKey, error) {
	request, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, refuseFor(CodeNotPermitted, err, "the certificate request cannot be read: let the node make a new one")
	}
	// The kind of key is checked before the signature: verifying a hostile RSA key is costly.
	public, ok := request.PublicKey.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil, refuse(CodeNotPermitted, "the certificate request is not for an ECDSA P-256 key: let the node make a new one")
	}
	if err := request.CheckSignature(); err != nil {
		return nil, refuseFor(CodeNotPermitted, err, "the certificate request was changed on its way or its sender lacks the key: let the node make a new one")
	}
	return public, nil
}

// Pin returns the SHA-256 of cert's SubjectPublicKeyInfo. A CA keeps its pin when
// its certificate is renewed with the same key.
func Pin(cert *x509.Certificate) [sha256.Size]byte {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// WriteFiles writes ca.key and ca.crt to dir, which it creates if need be. It never
// overwrites: if either file is there it returns an [*Error] with [CodeCAExists],
// because replacing a CA locks every node out of its cluster.
func (ca *CA) WriteFiles(dir string) error {
	for _, name := range []string{caKeyFile, caCertFile} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return caExists(dir, name)
		}
	}
	data, err := keyPEM(ca.key)
	if err != nil {
		return fmt.Errorf("encode key of cluster %s: %w", ca.Cluster, err)
	}
	// The key comes first: of two processes that got here, one loses at the key and
	// writes no certificate.
	if err := createCAFile(dir, caKeyFile, data, secretMode); err != nil {
		return err
	}
	return createCAFile(dir, caCertFile, certPEM(ca.Cert), publicMode)
}

// WriteCACert writes cert to ca.crt in dir, for a node that has joined. The same
// certificate being there already is no error; another one is, [CodeCAExists].
func WriteCACert(dir string, cert *x509.Certificate) error {
	old, err := LoadCACert(dir)
	switch {
	case err == nil && old.Equal(cert):
		return nil
	case err == nil:
		return caExists(dir, caCertFile)
	case CodeOf(err) != CodeCAMissing:
		return err
	}
	return createCAFile(dir, caCertFile, certPEM(cert), publicMode)
}

func createCAFile(dir, name string, data []byte, mode fs.FileMode) error {
	err := createFile(filepath.Join(dir, name), data, mode)
	if errors.Is(err, fs.ErrExist) {
		return caExists(dir, name)
	}
	return err
}

func caExists(dir, name string) error {
	return refuse(CodeCAExists,
		"%s exists: this node belongs to a cluster already; use another directory, or move this one away if that cluster is gone for good", filepath.Join(dir, name))
}

// LoadCA reads the CA that WriteFiles wrote to dir. It does not look at the clock;
// Sign does.
func LoadCA(dir string) (*CA, error) {
	cert, err := LoadCACert(dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, caKeyFile)
	data, err := readSecret(path)
	if err != nil {
		return nil, caFileError(path, err)
	}
	key, err := parseKeyPEM(data)
	if err != nil {
		return nil, caFileError(path, err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, refuse(CodeCAInvalid, "%s does not belong to %s beside it: restore both from the same backup", path, caCertFile)
	}
	return &CA{Cluster: caCluster(cert), Cert: cert, key: key, rand: rand.Reader}, nil
}

// LoadCACert reads ca.crt in dir and checks that it is a cluster CA's certificate.
func LoadCACert(dir string) (*x509.Certificate, error) {
	path := filepath.Join(dir, caCertFile)
	data, err := readPublic(path)
	if err != nil {
		return nil, caFileError(path, err)
	}
	cert, err := parseCertPEM(data)
	if err == nil {
		err = checkCA(cert)
	}
	if err != nil {
		return nil, caFileError(path, err)
	}
	return cert, nil
}

func caFileError(path string, err error) error {
	switch {
	case CodeOf(err) == CodeFileExposed:
		return err
	case errors.Is(err, fs.ErrNotExist):
		return refuseFor(CodeCAMissing, err, "%s is missing: create the cluster, join it with a join string, or put back the saved copy of the file; a backup of the data holds no keys", path)
	}
	return refuseFor(CodeCAInvalid, err, "%s is not usable as the cluster's CA: put back the saved copy; a backup of the data holds no keys", path)
}

// checkCA reports whether cert has the shape NewCA gives it. The self-signature
// matters when cert came from a peer: a pinned key says nothing about the other
// fields unless that key signed them.
func checkCA(cert *x509.Certificate) error {
	if public, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || public.Curve != elliptic.P256() {
		return errors.New("not an ECDSA P-256 certificate")
	}
	if !cert.BasicConstraintsValid || !cert.IsCA || !cert.MaxPathLenZero {
		return errors.New("not a certificate authority of path length 0")
	}
	if err := ValidCluster(caCluster(cert)); err != nil {
		return err
	}
	return cert.CheckSignatureFrom(cert)
}

// caCluster returns the cluster id in cert's common name, or "" if it has none.
func caCluster(cert *x509.Certificate) string {
	cluster, ok := strings.CutPrefix(cert.Subject.CommonName, caNamePrefix)
	if !ok {
		return ""
	}
	return cluster
}

func checkCATime(cert *x509.Certificate, at time.Time) error {
	switch {
	case at.After(cert.NotAfter):
		return refuse(CodeCAExpired, "the CA of cluster %s expired on %s: check this machine's clock; if it is right the cluster needs a new CA", caCluster(cert), day(cert.NotAfter))
	case at.Before(cert.NotBefore):
		return refuse(CodeCertNotYetValid, "the CA of cluster %s starts on %s, in the future: set this machine's clock, it says %s", caCluster(cert), day(cert.NotBefore), day(at))
	}
	return nil
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
