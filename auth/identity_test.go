package auth

import (
	"crypto/tls"
	"strings"
	"testing"
)

func TestIdentity_Golden(t *testing.T) {
	for uri, want := range map[string]Identity{
		"spiffe://acme/master/porto/7":                    {cluster, RoleMaster, "porto", 7},
		"spiffe://4-2/replica/s-2-west/4294967295":        {"4-2", RoleReplica, "s-2-west", 1<<32 - 1},
		"spiffe://acme/replica/" + long(63) + "/1":        {cluster, RoleReplica, long(63), 1},
		"spiffe://" + long(maxClusterLen) + "/master/a/1": {long(maxClusterLen), RoleMaster, "a", 1},
	} {
		got, err := ParseIdentity(uri)
		if err != nil || got != want {
			t.Errorf("ParseIdentity(%q) = %+v, %v", uri, got, err)
		}
		if got := want.String(); got != uri {
			t.Errorf("String() = %q, want %q", got, uri)
		}
		if got := want.url().String(); got != uri {
			t.Errorf("url() = %q, want %q", got, uri)
		}
	}
}

func long(n int) string { return strings.Repeat("a", n) }

func TestParseIdentity_Strict(t *testing.T) {
	for _, uri := range []string{
		"",
		"acme/master/porto/7",
		"SPIFFE://acme/master/porto/7",
		"https://acme/master/porto/7",
		"spiffe://acme/master/porto",
		"spiffe://acme/master/porto/7/",
		"spiffe://acme/master/porto/7/8",
		"spiffe://acme/master/porto/7?x=1",
		"spiffe://acme/master/porto/7#x",
		"spiffe://acme/master/porto/07",
		"spiffe://acme/master/porto/+7",
		"spiffe://acme/master/porto/0",
		"spiffe://acme/master/porto/-1",
		"spiffe://acme/master/porto/4294967296",
		"spiffe://acme/master/porto/",
		"spiffe://acme/Master/porto/7",
		"spiffe://acme/witness/porto/7",
		"spiffe://acme/master//7",
		"spiffe://acme/master/Porto/7",
		"spiffe://acme/master/p%6frto/7",
		"spiffe://acme/master/1st/7",
		"spiffe://acme/master/" + long(64) + "/7",
		"spiffe:///master/porto/7",
		"spiffe://-acme/master/porto/7",
		"spiffe://acme-/master/porto/7",
		"spiffe://acme.example/master/porto/7",
		"spiffe://acme:80/master/porto/7",
		"spiffe://" + long(maxClusterLen+1) + "/master/porto/7",
	} {
		got, err := ParseIdentity(uri)
		if CodeOf(err) != CodeIdentityInvalid || got != (Identity{}) {
			t.Errorf("ParseIdentity(%q) = %+v, %v; want code %s", uri, got, err, CodeIdentityInvalid)
		}
	}
}

func TestValidSite(t *testing.T) {
	for name, want := range map[string]bool{
		"porto": true, "a": true, "sao-paulo-2": true, long(63): true,
		"": false, "2porto": false, "-porto": false, "Porto": false, "são-paulo": false, "a_b": false, "a.b": false, "a b": false, long(64): false,
	} {
		if err := ValidSite(name); (err == nil) != want {
			t.Errorf("ValidSite(%q) = %v, want valid %v", name, err, want)
		}
	}
}

func TestPeerIdentity_Nobody(t *testing.T) {
	_, err := PeerIdentity(tls.ConnectionState{})
	wantCode(t, err, CodeCertMissing)
	_, err = certIdentity(mustCA(t, cluster).Cert)
	wantCode(t, err, CodeCertInvalid)
}

func FuzzParseIdentity(f *testing.F) {
	f.Add("spiffe://acme/master/porto/7")
	f.Add("spiffe://acme/replica/porto/007")
	f.Add("spiffe:////")
	f.Fuzz(func(t *testing.T, uri string) {
		id, err := ParseIdentity(uri)
		if err != nil {
			if CodeOf(err) != CodeIdentityInvalid {
				t.Fatalf("error without its code: %v", err)
			}
			return
		}
		if got := id.String(); got != uri {
			t.Fatalf("%q was read as %q", uri, got)
		}
		if err := id.Validate(); err != nil {
			t.Fatalf("%q was accepted: %v", uri, err)
		}
	})
}
