package auth

import (
	"crypto/rand"
	"testing"
	"time"
)

func TestRestoreCA(t *testing.T) {
	now := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	ca, err := NewCA("c1", now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewCA("c1", now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ca.KeyDER()
	if err != nil {
		t.Fatal(err)
	}
	got, err := RestoreCA(ca.Cert.Raw, key)
	if err != nil || got.Cluster != "c1" || !got.key.Equal(ca.key) {
		t.Fatalf("restored %+v, %v", got, err)
	}
	for name, pair := range map[string][2][]byte{"OtherKey": {other.Cert.Raw, key}, "DamagedKey": {ca.Cert.Raw, key[1:]}, "DamagedCert": {ca.Cert.Raw[1:], key}} {
		if _, err := RestoreCA(pair[0], pair[1]); CodeOf(err) != CodeCAInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
