package sim

import (
	"os"
	"sync"
	"testing"
)

var templates = sync.OnceValues(func() (*Template, error) {
	dir, err := os.MkdirTemp("", "tradepost-sim-template-")
	if err != nil {
		return nil, err
	}
	templateDir = dir
	return Found(dir, 3, 5)
})

var templateDir string

func TestMain(m *testing.M) {
	code := m.Run()
	if templateDir != "" {
		os.RemoveAll(templateDir)
	}
	os.Exit(code)
}

func mustTemplate(t testing.TB) *Template {
	t.Helper()
	tpl, err := templates()
	if err != nil {
		t.Fatal(err)
	}
	return tpl
}

func TestPlay_Sound(t *testing.T) {
	s, err := ParseScript(`seed 1
1.000 edit r1 1 set account/a0 description
1.100 edit r1 2 add contact/c0 5
2.000 edit hq 3 set account/a1 description
3.000 look r2 local
3.500 look r1 session
3.600 look r1 leader
3.700 look r1 bounded 1000
4.000 stock r1
`)
	if err != nil {
		t.Fatal(err)
	}
	r, err := mustTemplate(t).Play(s, Options{Trace: testWriter{t}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	t.Log(r.Acked, r.Counts, r.Events, r.Virtual, len(r.History.Looks))
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) { w.t.Logf("%s", p[:len(p)-1]); return len(p), nil }
