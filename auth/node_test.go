package auth

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestNode_FilesRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	ca := mustCA(t, cluster)
	for node := range uint32(2) { // the second over the first
		n := mustNode(t, ca, RoleReplica, node+1)
		if err := WriteNode(dir, n); err != nil {
			t.Fatal(err)
		}
		got, err := LoadNode(dir, ca.Cert, epoch)
		if err != nil {
			t.Fatal(err)
		}
		if got.Identity != n.Identity || !got.Cert.Equal(n.Cert) || !got.Key.Equal(n.Key) {
			t.Errorf("read back %s, want %s", got.Identity, n.Identity)
		}
	}
	wantMode(t, filepath.Join(dir, "node.crt"), 0o644)
	wantMode(t, filepath.Join(dir, "node.key"), 0o600)
	if names, err := os.ReadDir(dir); err != nil || len(names) != 2 {
		t.Errorf("directory holds %v (%v), want node.crt and node.key only", names, err)
	}
}

func TestLoadNode_Errors(t *testing.T) {
	ca := mustCA(t, cluster)
	n := mustNode(t, ca, RoleReplica, 7)
	otherKey, err := keyPEM(mustNode(t, ca, RoleReplica, 8).Key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), data, 0o600) }
	}
	remove := func(name string) func(string) error {
		return func(dir string) error { return os.Remove(filepath.Join(dir, name)) }
	}
	nothing := func(string) error { return nil }
	for _, c := range []struct {
		name, code, file string
		damage           func(dir string) error
		ca               *CA
		now              time.Time
	}{
		{"NoCert", CodeCertMissing, "node.crt", remove("node.crt"), ca, epoch},
		{"NoKey", CodeCertMissing, "node.key", remove("node.key"), ca, epoch},
		{"JunkCert", CodeCertInvalid, "node.crt", write("node.crt", []byte("junk")), ca, epoch},
		{"JunkKey", CodeCertInvalid, "node.key", write("node.key", []byte("junk")), ca, epoch},
		{"TwoCerts", CodeCertInvalid, "node.crt", write("node.crt", append(certPEM(n.Cert), certPEM(n.Cert)...)), ca, epoch},
		{"OtherKey", CodeCertKeyMismatch, "node.key", write("node.key", otherKey), ca, epoch},
		{"OtherCA", CodeCertWrongCA, "node.crt", nothing, mustCA(t, "globex"), epoch},
		{"OtherCASameName", CodeCertWrongCA, "node.crt", nothing, mustCA(t, cluster), epoch},
		{"Expired", CodeCertExpired, "node.crt expired on 2027-03-01 09:00 UTC", nothing, ca, epoch.Add(NodeCertTTL + time.Second)},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := WriteNode(dir, n); err != nil {
				t.Fatal(err)
			}
			if err := c.damage(dir); err != nil {
				t.Fatal(err)
			}
			_, err := LoadNode(dir, c.ca.Cert, c.now)
			wantCode(t, err, c.code)
			if !strings.Contains(err.Error(), filepath.Join(dir, c.file)) {
				t.Errorf("%q does not name %s", err, c.file)
			}
		})
	}
}

func TestLoadNode_ExposedKey(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes are a Unix matter")
	}
	dir, ca := t.TempDir(), mustCA(t, cluster)
	if err := WriteNode(dir, mustNode(t, ca, RoleReplica, 7)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "node.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := LoadNode(dir, ca.Cert, epoch)
	wantCode(t, err, CodeFileExposed)
}

func TestNode_VerifyBounds(t *testing.T) {
	ca := mustCA(t, cluster)
	n := mustNode(t, ca, RoleMaster, 1)
	for _, c := range []struct {
		at   time.Time
		code string
	}{
		{epoch.Add(-5*time.Minute - time.Second), CodeCertNotYetValid},
		{epoch.Add(-5 * time.Minute), ""},
		{epoch.Add(NodeCertTTL), ""},
		{epoch.Add(NodeCertTTL + time.Second), CodeCertExpired},
		{epoch.Add(CATTL + time.Second), CodeCAExpired},
	} {
		if got := CodeOf(n.Verify(ca.Cert, c.at)); got != c.code {
			t.Errorf("at %s: code %q, want %q", c.at, got, c.code)
		}
	}
}

// A CA key that signs for a cluster other than its own must not be believed.
func TestNode_VerifyRefusesOtherCluster(t *testing.T) {
	ca := mustCA(t, cluster)
	liar := &CA{Cluster: "globex", Cert: ca.Cert, key: ca.key, rand: ca.rand}
	wantCode(t, mustNode(t, liar, RoleMaster, 1).Verify(ca.Cert, epoch), CodeWrongCluster)
}

func TestNewNode_Refuses(t *testing.T) {
	ca := mustCA(t, cluster)
	n := mustNode(t, ca, RoleMaster, 1)
	_, err := NewNode([]byte("junk"), n.Key)
	wantCode(t, err, CodeCertInvalid)
	_, err = NewNode(ca.Cert.Raw, ca.key)
	wantCode(t, err, CodeCertInvalid)
	_, err = NewNode(n.Cert.Raw, ca.key)
	wantCode(t, err, CodeCertKeyMismatch)
}
