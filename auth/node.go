package auth

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"
)

// A Node is a node's certificate with its private key.
type Node struct {
	Identity Identity // from Cert
	Cert     *x509.Certificate
	Key      *ecdsa.PrivateKey
}

// NewNode returns the node of a certificate that [CA.Sign] made for key. It checks
// that they belong together, but neither chain nor time; see Verify.
func NewNode(certDER []byte, key *ecdsa.PrivateKey) (*Node, error) {
	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		return nil, refuseFor(CodeCertInvalid, err, "the node certificate cannot be read: ask the cluster for a new one")
	}
	id, err := certIdentity(cert)
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, refuse(CodeCertKeyMismatch, "the certificate of %s is for another key: ask the cluster for a new one", id)
	}
	return &Node{Identity: id, Cert: cert, Key: key}, nil
}

// Verify returns an [*Error] unless ca signed n's certificate and it is valid at
// the given time.
func (n *Node) Verify(ca *x509.Certificate, at time.Time) error {
	return n.verify(ca, at, "the certificate of "+n.Identity.String())
}

func (n *Node) verify(ca *x509.Certificate, at time.Time, what string) error {
	if err := verifyChain(what, n.Cert, ca, at, x509.ExtKeyUsageClientAuth); err != nil {
		return err
	}
	return checkCluster(n.Identity, ca)
}

// WriteNode writes node.key and node.crt to dir, which it creates if need be, over
// what is there. A crash between the two is harmless when the key is the old one,
// as in a renewal; with a new key it may leave a pair that LoadNode refuses, and
// the node joins again.
func WriteNode(dir string, n *Node) error {
	data, err := keyPEM(n.Key)
	if err != nil {
		return fmt.Errorf("encode key of %s: %w", n.Identity, err)
	}
	if err := replaceFile(filepath.Join(dir, nodeKeyFile), data, secretMode); err != nil {
		return err
	}
	return replaceFile(filepath.Join(dir, nodeCertFile), certPEM(n.Cert), publicMode)
}

// LoadNode reads the node that WriteNode wrote to dir and checks it against ca at
// the time now. Its errors name the file and the remedy.
func LoadNode(dir string, ca *x509.Certificate, now time.Time) (*Node, error) {
	certPath, keyPath := filepath.Join(dir, nodeCertFile), filepath.Join(dir, nodeKeyFile)
	data, err := readPublic(certPath)
	if err != nil {
		return nil, nodeFileError(certPath, err)
	}
	cert, err := parseCertPEM(data)
	if err != nil {
		return nil, nodeFileError(certPath, err)
	}
	if data, err = readSecret(keyPath); err != nil {
		return nil, nodeFileError(keyPath, err)
	}
	key, err := parseKeyPEM(data)
	if err != nil {
		return nil, nodeFileError(keyPath, err)
	}
	n, err := NewNode(cert.Raw, key)
	if CodeOf(err) == CodeCertKeyMismatch {
		return nil, refuse(CodeCertKeyMismatch, "%s does not belong to %s: restore both from the same backup, or join the node again with a new join string", keyPath, certPath)
	}
	if err != nil {
		return nil, nodeFileError(certPath, err)
	}
	if err := n.verify(ca, now, certPath); err != nil {
		return nil, err
	}
	return n, nil
}

func nodeFileError(path string, err error) error {
	switch {
	case CodeOf(err) == CodeFileExposed:
		return err
	case errors.Is(err, fs.ErrNotExist):
		return refuseFor(CodeCertMissing, err, "%s is missing: join the cluster with a join string, or put back the saved copy of the file; a backup of the data holds no keys", path)
	}
	return refuseFor(CodeCertInvalid, err, "%s is not usable: put back the saved copy, or join the node again with a new join string", path)
}

// verifyChain checks that ca signed leaf and that both are valid at the given time
// for the given use. what names the certificate in errors: a file or a peer.
func verifyChain(what string, leaf, ca *x509.Certificate, at time.Time, use x509.ExtKeyUsage) error {
	if err := leaf.CheckSignatureFrom(ca); err != nil {
		return refuseFor(CodeCertWrongCA, err, "%s was not signed by the CA of cluster %s: join the node to this cluster with a join string from one of its masters", what, caCluster(ca))
	}
	if err := checkCATime(ca, at); err != nil {
		return err
	}
	switch {
	case at.After(leaf.NotAfter):
		return refuse(CodeCertExpired, "%s expired on %s: join the node again with a new join string; if it should be valid, check the clock, it says %s", what, day(leaf.NotAfter), day(at))
	case at.Before(leaf.NotBefore):
		return refuse(CodeCertNotYetValid, "%s starts on %s, in the future: set the clock of this machine, it says %s, or of the master that signed it", what, day(leaf.NotBefore), day(at))
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{use}})
	if err != nil {
		return refuseFor(CodeCertInvalid, err, "%s is not a node certificate: join the node again with a new join string", what)
	}
	return nil
}

func checkCluster(id Identity, ca *x509.Certificate) error {
	if id.Cluster != caCluster(ca) {
		return refuse(CodeWrongCluster, "%s is not of cluster %s: check the address, or join the node to this cluster", id, caCluster(ca))
	}
	return nil
}

// tlsCertificate is n's certificate followed by the CA's. TLS peers have the CA
// already; a node that is joining knows only its pin and learns it from here.
func (n *Node) tlsCertificate(ca *x509.Certificate) tls.Certificate {
	return tls.Certificate{
		Certificate: [][]byte{n.Cert.Raw, ca.Raw},
		PrivateKey:  n.Key,
		Leaf:        n.Cert,
	}
}
