package auth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

const (
	caCertFile   = "ca.crt"
	caKeyFile    = "ca.key"
	nodeCertFile = "node.crt"
	nodeKeyFile  = "node.key"
	tokensFile   = "tokens.json"

	secretMode fs.FileMode = 0o600
	publicMode fs.FileMode = 0o644

	maxFileSize = 1 << 20 // bytes; far above any file of this package
)

// replaceFile puts data at path so that a crash leaves the old file or the new one,
// never part of either.
func replaceFile(path string, data []byte, mode fs.FileMode) error {
	return writeFile(path, data, mode, os.Rename)
}

// createFile is replaceFile for a path that must be free; otherwise its error is
// fs.ErrExist. It links where replaceFile renames, because a link never replaces.
func createFile(path string, data []byte, mode fs.FileMode) error {
	return writeFile(path, data, mode, os.Link)
}

func writeFile(path string, data []byte, mode fs.FileMode, place func(temp, path string) error) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	temp, err := writeTemp(dir, data, mode)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(temp) // gone already after a rename
	if err := place(temp, path); err != nil {
		return err
	}
	return syncDir(dir)
}

func writeTemp(dir string, data []byte, mode fs.FileMode) (path string, err error) {
	f, err := os.CreateTemp(dir, ".auth-*") // created 0600
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// syncDir makes the names in dir durable. Windows cannot sync a directory; there
// the file system journals names itself.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func readPublic(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f)
}

// readSecret reads a file that only its owner may read or write.
func readSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return nil, refuse(CodeFileExposed,
			"%s has mode %04o, so others on this machine may use the secret in it: replace the secret if they are not trusted, then run chmod 600 on the file", path, mode)
	}
	return readBounded(f)
}

func readBounded(f *os.File) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err == nil && len(data) > maxFileSize {
		err = fmt.Errorf("%s is larger than %d bytes", f.Name(), maxFileSize)
	}
	return data, err
}

func certPEM(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseCertPEM(data []byte) (*x509.Certificate, error) {
	der, err := onlyBlock(data, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func parseKeyPEM(data []byte) (*ecdsa.PrivateKey, error) {
	der, err := onlyBlock(data, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("not an ECDSA P-256 key")
	}
	return key, nil
}

func onlyBlock(data []byte, kind string) ([]byte, error) {
	block, rest := pem.Decode(data)
	if block == nil || block.Type != kind || len(bytes.TrimSpace(rest)) != 0 {
		return nil, fmt.Errorf("not exactly one PEM block of type %s", kind)
	}
	return block.Bytes, nil
}
