package auth

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
)

// KeyDER returns the CA's private key (PKCS #8), which one master hands to
// another when that joins. Whoever holds it can admit nodes: it never goes to a
// replica, a log or a metric.
func (ca *CA) KeyDER() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(ca.key) }

// RestoreCA rebuilds a CA from its certificate and what KeyDER returned.
func RestoreCA(certDER, keyDER []byte) (*CA, error) {
	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		return nil, refuseFor(CodeCAInvalid, err, "the CA certificate handed over is damaged: join again")
	}
	if err := checkCA(cert); err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return nil, refuseFor(CodeCAInvalid, err, "the CA key handed over is damaged: join again")
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, refuse(CodeCAInvalid, "the CA key handed over does not belong to the CA certificate: join again")
	}
	return &CA{Cluster: caCluster(cert), Cert: cert, key: key, rand: rand.Reader}, nil
}
