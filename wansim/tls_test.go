package wansim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"testing"
	"time"
)

// TLS 1.3 costs one round trip beyond that of Dial.
func TestTLS_HandshakeRoundTrips(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, n *Network) {
		cert, pool := selfSigned(t, "p")
		l := tls.NewListener(listen(t, n.Host("pune", "p")), &tls.Config{Certificates: []tls.Certificate{cert}})
		start := time.Now()
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.Copy(c, c)
			c.Close()
		}()
		c := tls.Client(dial(t, n.Host("oslo", "o"), "p:7000"), &tls.Config{RootCAs: pool, ServerName: "p", MinVersion: tls.VersionTLS13})
		if err := c.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		took(t, start, 160*ms)
		write(t, c, "sealed")
		read(t, c, "sealed")
		took(t, start, 240*ms)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func selfSigned(tb testing.TB, name string) (tls.Certificate, *x509.CertPool) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}
