package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

// TestSettings_Samples: every sample configuration loads and is valid.
func TestSettings_Samples(t *testing.T) {
	files, err := filepath.Glob("../configs/*.yaml")
	if err != nil || len(files) < 2 {
		t.Fatalf("samples: %v, %v", files, err)
	}
	for _, f := range files {
		s := DefaultSettings()
		if err := s.LoadFile(f); err != nil {
			t.Errorf("%s: %v", f, err)
		}
		if err := s.Validate(); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
}

func TestSettings_BadInput(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"UnknownKey":   {"dirr: x\n", "line 1: there is no setting dirr"},
		"WrongType":    {"dir: x\nlisten: 7\n", "line 2"},
		"Tabs":         {"dir:\tx\n\tb: 2\n", "line 2"},
		"NestedKey":    {"dir: x\nlisten:\n  synk: a:1\n", "line 3: there is no setting synk"},
		"Syntax":       {"listen: {sync: [}\n", "line 1: did not find"},
		"TwoDocuments": {"dir: x\n---\ndir: y\n", "more than one document"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "settings.yaml")
			if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			s := DefaultSettings()
			err := s.LoadFile(path)
			if crm.CodeOf(err) != crm.CodeInvalid || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Fatalf("got %v, want %q and the file's name", err, c.want)
			}
		})
	}
	for item, edit := range map[string]func(*Settings){
		"dir": func(s *Settings) { s.Dir = "" }, "preset": func(s *Settings) { s.Preset = "moon" }, "raft_log": func(s *Settings) { s.RaftLog = "tape" }, "protocol": func(s *Settings) { s.Protocol = 99 },
		"log_level": func(s *Settings) { s.LogLevel = "loud" }, "log_format": func(s *Settings) { s.LogFormat = "xml" },
		"listen.http": func(s *Settings) { s.Listen.HTTP = "nowhere" }, "advertise.raft": func(s *Settings) { s.Advertise.Raft = "a:b:c" },
		"listen.sync": func(s *Settings) { s.Listen.Sync = "127.0.0.1:99999" }, "listen.raft": func(s *Settings) { s.Listen.Raft = "127.0.0.1:-1" },
		"scrub.every": func(s *Settings) { s.Scrub.Every = time.Second }, "scrub.mb_per_second": func(s *Settings) { s.Scrub.MBPerSecond = 0 },
	} {
		s := DefaultSettings()
		edit(&s)
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), item) {
			t.Errorf("%s: got %v", item, err)
		}
	}
}

func TestSettings_Precedence(t *testing.T) {
	path := filepath.Join(t.TempDir(), "settings.yaml")
	if err := os.WriteFile(path, []byte("city: Oslo\ncountry: NO\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := DefaultSettings()
	if err := s.LoadFile(path); err != nil {
		t.Fatal(err)
	}
	s.LoadEnv(func(name string) (string, bool) { return "Bergen", name == "TRADEPOST_CITY" })
	if s.City != "Bergen" || s.Country != "NO" || s.Preset != "region" {
		t.Fatalf("environment over file over default: %+v", s)
	}
}

func TestInit_RefusesWhatIsThere(t *testing.T) {
	s := DefaultSettings()
	s.Dir = filepath.Join(t.TempDir(), "n")
	id, err := Init(t.Context(), InitOptions{Settings: s, Site: "hq"}, Env{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadIdentity(s.Dir)
	if err != nil || got.Cluster != id.Cluster || got.Node != 1 || !got.Bootstrap {
		t.Fatalf("identity %+v, %v", got, err)
	}
	if _, err := Init(t.Context(), InitOptions{Settings: s, Site: "hq"}, Env{}); crm.CodeOf(err) != crm.CodeInvalid {
		t.Fatalf("a second init in one directory: %v", err)
	}
	if _, err := Init(t.Context(), InitOptions{Settings: s, Site: "No Such"}, Env{}); crm.CodeOf(err) != crm.CodeInvalid {
		t.Fatalf("a bad site name: %v", err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "node.json"), []byte(`{"format":99}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadIdentity(s.Dir); crm.CodeOf(err) != crm.CodeFormat {
		t.Fatalf("a newer format: %v", err)
	}
	if _, err := Open(DefaultSettings(), Env{}); err == nil || !strings.Contains(err.Error(), "tradepost init") {
		t.Fatalf("no node: %v", err)
	}
}
