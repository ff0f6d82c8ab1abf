package httpapi

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

// A listener is one open stream of changes.
type listener struct {
	t     *testing.T
	lines *bufio.Scanner
	last  string // id of the last event that had one
}

func (s *site) listen(t *testing.T, path, lastID string) *listener {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.url+path, nil)
	must(t, err)
	r.Header.Set("Authorization", "Bearer "+s.token)
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := s.client.HTTP.Do(r)
	must(t, err)
	t.Cleanup(func() { resp.Body.Close() })
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || got != "text/event-stream" {
		t.Fatalf("%d %s", resp.StatusCode, got)
	}
	return &listener{t: t, lines: bufio.NewScanner(resp.Body)}
}

// next returns the next event as "name data", "comment" for a heartbeat and ""
// at the end.
func (l *listener) next() string {
	l.t.Helper()
	name := ""
	for l.lines.Scan() {
		key, value, _ := strings.Cut(l.lines.Text(), ": ")
		switch key {
		case "event":
			name = value
		case "id":
			l.last = value
		case "data":
			return name + " " + value
		case ":":
			return "comment"
		}
	}
	return ""
}

func (l *listener) want(event string) {
	l.t.Helper()
	if got := l.next(); got != event {
		l.t.Fatalf("event %q, want %q", got, event)
	}
}

func TestChanges(t *testing.T) {
	s := newSite(t, nil)
	all := s.listen(t, "/api/v1/changes", "")
	all.want("ready {}")
	users := s.listen(t, "/api/v1/changes?entity=user", "")
	users.want("ready {}")
	if _, err := ParseMark(all.last); err != nil {
		t.Errorf("id: %v", err)
	}
	same := s.listen(t, "/api/v1/changes", all.last)
	same.want("ready {}")

	made := s.mustCreate(t, "account", Fields{"name": "Acme"})
	change := `change {"entity":"account","id":"` + made.Item.ID + `","rev":` + revOf(t, made.Item.Token)
	all.want(change + `}`)
	same.want(change + `}`)
	user := s.mustCreate(t, "user", Fields{"name": "Ana", "email": "ana@example.com"})
	users.want(`change {"entity":"user","id":"` + user.Item.ID + `","rev":` + revOf(t, user.Item.Token) + `}`)

	again := s.listen(t, "/api/v1/changes", all.last)
	again.want(`reload {"reason":"changes happened while the stream was cut"}`)
	again.want("")

	s.hold()
	_, err := s.client.Patch(t.Context(), "user", user.Item.ID, "", Fields{"name": "Anna"}, 0)
	must(t, err)
	users.want(`change {"entity":"user","id":"` + user.Item.ID + `"}`)
	s.run(t, scenario{name: "unknown entity", method: "GET", path: "/api/v1/changes?entity=zebra", status: 404, code: "unknown_entity"})
}

// A reader that is too slow is told to read again, not fed holes.
func TestChanges_Overflow(t *testing.T) {
	s := newSite(t, nil)
	l := s.listen(t, "/api/v1/changes", "")
	l.want("ready {}")
	s.mu.Lock()
	for w := range s.watchers {
		close(w)
		delete(s.watchers, w)
	}
	s.mu.Unlock()
	l.want(`reload {"reason":"changes came faster than this client took them"}`)
	l.want("")
}

func TestChanges_Heartbeat(t *testing.T) {
	s := newSite(t, func(c *Config) { c.Heartbeat = time.Millisecond })
	l := s.listen(t, "/api/v1/changes", "")
	l.want("ready {}")
	l.want("comment")
	l.want("comment")
}

func TestClient_Changes(t *testing.T) {
	s := newSite(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var made Edited
	started := make(chan struct{})
	go func() {
		defer close(started)
		s.waitFor(func() bool { return len(s.watchers) > 0 })
		made = s.mustCreate(t, "account", Fields{"name": "Acme"})
	}()
	for ev, err := range s.client.Changes(ctx, "account", "user") {
		must(t, err)
		<-started
		if ev.Entity != "account" || ev.ID != made.Item.ID || ev.Rev == 0 {
			t.Errorf("%+v", ev)
		}
		cancel()
	}
	for _, err := range s.client.Changes(t.Context(), "zebra") {
		if crm.CodeOf(err) != crm.CodeUnknownEntity {
			t.Errorf("changes of no entity: %v", err)
		}
	}
}

// Run ends open streams, finishes requests and returns.
func TestRun(t *testing.T) {
	s := newSite(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	done := make(chan error, 1)
	go func() { done <- s.server.Run(ctx, ln) }()
	client := &Client{BaseURL: "http://" + ln.Addr().String(), Token: s.token}
	must(t, client.Ready(t.Context()))
	got := make(chan error, 1)
	open := make(chan struct{})
	go func() {
		for ev, err := range client.Changes(t.Context()) {
			if err != nil {
				got <- err
				return
			}
			if ev.Entity == "account" {
				close(open)
			}
		}
	}()
	s.waitFor(func() bool { return len(s.watchers) > 0 })
	s.mustCreate(t, "account", Fields{"name": "Acme"})
	<-open
	cancel()
	must(t, <-done)
	if err := <-got; crm.CodeOf(err) != crm.CodeUnavailable {
		t.Errorf("the stream ended with %v", err)
	}
	if err := client.Ready(t.Context()); crm.CodeOf(err) != crm.CodeUnavailable {
		t.Errorf("after the end: %v", err)
	}
	if err := s.server.Run(t.Context(), closed{ln}); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("Run of a closed listener: %v", err)
	}
}

// closed is a listener that fails.
type closed struct{ net.Listener }

func (closed) Accept() (net.Conn, error) { return nil, net.ErrClosed }
