package devcluster

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/node"
	"github.com/tradepost-crm/tradepost/wansim"
)

func TestOptions_Refused(t *testing.T) {
	tiny := wansim.Uniform(time.Millisecond, "a", "b", "c", "d")
	for name, c := range map[string]struct {
		o    Options
		item string
	}{
		"no branches":          {Options{Sites: -1}, "sites"},
		"cities and sites":     {Options{Sites: 2, Cities: []string{"Tokyo"}}, "cities"},
		"unknown city":         {Options{Cities: []string{"Atlantis"}}, "cities"},
		"city twice":           {Options{Cities: []string{"Tokyo", "tokyo"}}, "cities"},
		"a master's city":      {Options{Cities: []string{"Amsterdam"}}, "cities"},
		"too few cities":       {Options{Matrix: tiny, Sites: 2}, "sites"},
		"too many masters":     {Options{Masters: 9}, "masters"},
		"accounts":             {Options{Accounts: -1}, "accounts"},
		"ports":                {Options{HTTPPort: 65533}, "http-port"},
		"loss":                 {Options{Loss: 1}, "loss"},
		"bandwidth":            {Options{Bandwidth: -1}, "bandwidth"},
		"no such table":        {Options{WAN: filepath.Join(t.TempDir(), "none.csv")}, "wan"},
		"story needs branches": {Options{Sites: 2, Story: true}, "sites"},
		"story needs masters":  {Options{Masters: 1, Story: true}, "masters"},
	} {
		_, err := New(t.Context(), c.o, node.Env{})
		e, ok := err.(*crm.Error)
		if !ok || e.Code != crm.CodeInvalid || e.Item != c.item {
			t.Errorf("%s: error %v, want invalid and %s", name, err, c.item)
		}
	}
}

func TestSiteName(t *testing.T) {
	for city, want := range map[string]string{"São Paulo": "sao-paulo", "New York": "new-york", "Tokyo": "tokyo"} {
		if got := siteName(city); got != want {
			t.Errorf("siteName(%q) = %q, want %q", city, got, want)
		}
	}
}

// A script is a writer that calls then once it has seen the text.
type script struct {
	mu   sync.Mutex // protects text
	text strings.Builder
	wait string
	then func(text string)
	once sync.Once
}

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(p)
	if text := s.text.String(); strings.Contains(text, s.wait) {
		s.once.Do(func() { s.then(text) })
	}
	return len(p), nil
}

// The nodes that Run introduces answer on this machine, and end with it.
func TestRun_RealTime(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var addrs []string
	out := &script{wait: "Stop with Ctrl-C", then: func(text string) {
		defer cancel()
		for _, word := range strings.Fields(text) {
			if strings.HasPrefix(word, "http://") && len(addrs) < 4 {
				addrs = append(addrs, word)
			}
		}
		for _, addr := range addrs {
			resp, err := http.Get(addr + "/readyz")
			if err != nil {
				t.Error(err)
				continue
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("%s/readyz answers %s", addr, resp.Status)
			}
		}
	}}
	o := Options{Cities: []string{"Tokyo"}, Accounts: 5, Dir: dir}
	if err := Run(ctx, o, node.Env{Logger: slog.New(slog.DiscardHandler)}, out); err != nil {
		t.Fatal(err)
	}
	if len(addrs) != 4 {
		t.Errorf("%d nodes were introduced in\n%s", len(addrs), out.text.String())
	}
	for _, addr := range addrs {
		if resp, err := http.Get(addr + "/livez"); err == nil {
			resp.Body.Close()
			t.Errorf("%s still answers", addr)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "tokyo", "node.json")); err != nil {
		t.Errorf("the directory that was given is kept: %v", err)
	}
}
