package httpapi

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// Limits of the server.
const (
	headerTimeout = 10 * time.Second
	readTimeout   = 60 * time.Second // of the body; also ends a handler, so above MaxWait and commitTimeout
	writeTimeout  = 90 * time.Second
	idleTimeout   = 2 * time.Minute
	stopTimeout   = 10 * time.Second
	maxHeader     = 64 << 10 // bytes
)

// A Server answers the requests of one node.
type Server struct {
	cfg     Config
	log     *slog.Logger
	now     func() time.Time
	mux     *http.ServeMux
	origin  *http.CrossOriginProtection
	metrics *metrics
	columns *store.Columns         // of reports
	other   [5]prometheus.Observer // of requests that no route takes

	requestPrefix string
	requests      atomic.Uint64
	openapi       atomic.Pointer[document]
	schema        atomic.Pointer[document]

	stopping chan struct{} // closed when Run ends, so that streams end too
	stopOnce sync.Once
}

// New returns a server. It registers its metrics in cfg.Registry.
func New(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	cfg.Heartbeat = cmp.Or(cfg.Heartbeat, 15*time.Second)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Reader
	}
	m, err := newMetrics(cfg.Registry)
	if err != nil {
		return nil, fmt.Errorf("httpapi: metrics: %w", err)
	}
	s := &Server{cfg: cfg, log: cfg.Logger, now: cfg.Now, mux: http.NewServeMux(), origin: http.NewCrossOriginProtection(), metrics: m,
		columns: store.NewColumns(cfg.ReportMemory), other: m.classes("other", "other", cfg.Role), requestPrefix: requestPrefix(cfg.Rand), stopping: make(chan struct{})}
	for _, r := range s.routes() {
		s.mux.Handle(r.method+" "+r.path, s.wrap(r))
	}
	s.mux.Handle("/", s.wrap(route{method: "other", path: "other", open: true, handle: s.noRoute}))
	return s, nil
}

// A route is one line of the API. Its path is the metrics' route label.
type route struct {
	method, path string
	handle       handler
	open         bool // served without a token
}

// A handler answers a request of actor; an error becomes a problem, unless the
// answer has begun.
type handler func(w http.ResponseWriter, r *http.Request, actor string) error

// routes is the API.
func (s *Server) routes() []route {
	metrics := promhttp.HandlerFor(s.cfg.Registry, promhttp.HandlerOpts{EnableOpenMetrics: true})
	return []route{
		{method: "GET", path: "/livez", handle: s.live, open: true},
		{method: "GET", path: "/readyz", handle: s.ready, open: true},
		{method: "GET", path: "/metrics", open: s.cfg.OpenMetrics, handle: func(w http.ResponseWriter, r *http.Request, _ string) error {
			metrics.ServeHTTP(w, r)
			return nil
		}},
		{method: "GET", path: "/openapi.json", handle: s.getOpenAPI},
		{method: "GET", path: "/api/v1/schema", handle: s.getSchema},
		{method: "GET", path: "/api/v1/{entity}", handle: s.list},
		{method: "POST", path: "/api/v1/{entity}", handle: s.create},
		{method: "GET", path: "/api/v1/{entity}/{id}", handle: s.get},
		{method: "PATCH", path: "/api/v1/{entity}/{id}", handle: s.patch},
		{method: "DELETE", path: "/api/v1/{entity}/{id}", handle: s.remove},
		{method: "POST", path: "/api/v1/{entity}/{id}/restore", handle: s.restore},
		{method: "POST", path: "/api/v1/mutations", handle: s.mutate},
		{method: "GET", path: "/api/v1/reports", handle: s.report},
		{method: "GET", path: "/api/v1/search", handle: s.search},
		{method: "GET", path: "/api/v1/attention", handle: s.listAttention},
		{method: "GET", path: "/api/v1/attention/{id}", handle: s.getAttention},
		{method: "POST", path: "/api/v1/attention/{id}/resolve", handle: s.resolve},
		{method: "GET", path: "/api/v1/changes", handle: s.changes},
		{method: "GET", path: "/api/v1/status", handle: s.status},
		{method: "GET", path: "/api/v1/nodes", handle: s.nodes},
		{method: "GET", path: "/api/v1/outbox", handle: s.outbox},
		{method: "GET", path: "/api/v1/check", handle: s.check},
		{method: "GET", path: "/api/v1/backup", handle: s.backup},
		{method: "POST", path: "/api/v1/backup", handle: s.announceBackup},
		{method: "GET", path: "/api/v1/raft/peers", handle: s.listPeers},
		{method: "DELETE", path: "/api/v1/raft/peers/{id}", handle: s.removePeer},
		{method: "POST", path: "/api/v1/raft/peers/transfer", handle: s.transfer},
		{method: "POST", path: "/api/v1/tokens", handle: s.createToken},
		{method: "GET", path: "/api/v1/wan", handle: s.showWan},
		{method: "POST", path: "/api/v1/wan", handle: s.changeWan},
	}
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Run serves ln until ctx ends, then lets open requests finish for a while. It
// closes ln. A Server runs once.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	server := &http.Server{Handler: s, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn)}
	failed := make(chan error, 1)
	var serving sync.WaitGroup
	serving.Go(func() { failed <- server.Serve(ln) })
	defer serving.Wait()
	select {
	case err := <-failed:
		s.stop()
		return fmt.Errorf("httpapi: serve %s: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	s.stop()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		return errors.Join(fmt.Errorf("httpapi: stop %s: %w", ln.Addr(), err), server.Close())
	}
	return nil
}

func (s *Server) stop() { s.stopOnce.Do(func() { close(s.stopping) }) }

// wrap puts around a route what every request needs, cheapest first.
func (s *Server) wrap(rt route) http.Handler {
	classes := s.other
	if rt.method != "other" {
		classes = s.metrics.classes(rt.path, rt.method, s.cfg.Role)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := s.now()
		rec := &recorder{ResponseWriter: w}
		w.Header()[headerRequestID] = []string{s.requestID(r)}
		s.metrics.inFlight.Inc()
		if r.ContentLength > 0 {
			s.metrics.size.Observe(float64(r.ContentLength))
		}
		defer func() {
			s.metrics.inFlight.Dec()
			classes[min(max(rec.status/100, 1), 5)-1].Observe(s.now().Sub(start).Seconds())
		}()
		defer func() {
			if p := recover(); p != nil {
				s.survive(rec, r, p)
			}
		}()
		if err := s.serve(rt, rec, r); err != nil && rec.status == 0 {
			s.fail(rec, r, err)
		}
	})
}

func (s *Server) serve(rt route, w http.ResponseWriter, r *http.Request) error {
	if err := s.origin.Check(r); err != nil {
		return &crm.Error{Code: crm.CodeForbidden, Item: "Origin", Message: "a page of another site may not write here"}
	}
	if rt.open {
		return rt.handle(w, r, "")
	}
	actor, err := s.cfg.Authenticate(r.Header.Get("Authorization"))
	if err != nil {
		return unauthorized(err)
	}
	return rt.handle(w, r, actor)
}

// unauthorized makes a refusal of credentials one code, whatever refused them.
func unauthorized(err error) error {
	e := crm.Error{Code: crm.CodeUnauthorized, Item: "Authorization", Message: "these credentials are not accepted"}
	if a, ok := errors.AsType[*auth.Error](err); ok {
		e.Item, e.Message = a.Code, a.Msg
	}
	return &e
}

// survive answers a request whose handler panicked, if it can still be answered.
func (s *Server) survive(w *recorder, r *http.Request, p any) {
	if p == http.ErrAbortHandler {
		panic(p)
	}
	s.log.Error("handler panicked", slog.String("path", r.URL.Path), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
	if w.status != 0 {
		panic(http.ErrAbortHandler) // half an answer must not look whole
	}
	s.fail(w, r, &crm.Error{Code: crm.CodeInternal, Message: fmt.Sprint(p)})
}

// A recorder remembers the status.
type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// unhurried lifts the time limits off a request that is read and takes long to answer.
func unhurried(w http.ResponseWriter) {
	control := http.NewResponseController(w)
	for _, lift := range []func(time.Time) error{control.SetReadDeadline, control.SetWriteDeadline} {
		if err := lift(time.Time{}); err != nil {
			return // a writer without deadlines has none to lift
		}
	}
}

// requestPrefix tells the requests of one start of the server from another's.
func requestPrefix(rand interface{ Read([]byte) (int, error) }) string {
	var b [4]byte
	if _, err := rand.Read(b[:]); err != nil {
		panic("httpapi: no randomness for request ids: " + err.Error())
	}
	return hex.EncodeToString(b[:]) + "-"
}

// requestID returns the caller's id of the request if it is a plain word, else a new one.
func (s *Server) requestID(r *http.Request) string {
	if id := r.Header.Get(headerRequestID); id != "" && len(id) <= 64 && !strings.ContainsFunc(id, unplain) {
		return id
	}
	return s.requestPrefix + strconv.FormatUint(s.requests.Add(1), 10)
}

func unplain(c rune) bool {
	return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.')
}

// noRoute says that a path or a method does not exist.
func (s *Server) noRoute(w http.ResponseWriter, r *http.Request, _ string) error {
	var allowed []string
	probe := *r
	for _, probe.Method = range []string{"GET", "POST", "PATCH", "DELETE"} {
		if _, pattern := s.mux.Handler(&probe); pattern != "/" && pattern != "" {
			allowed = append(allowed, probe.Method)
		}
	}
	if allowed == nil {
		return &crm.Error{Code: crm.CodeNotFound, Item: short(r.URL.Path), Message: "no such path; /openapi.json lists them"}
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	return &crm.Error{Code: CodeMethod, Item: short(r.URL.Path), Message: "the path takes " + strings.Join(allowed, ", ") + ", not " + short(r.Method)}
}

func (s *Server) live(w http.ResponseWriter, _ *http.Request, _ string) error {
	return writeJSON(w, http.StatusOK, map[string]string{"status": "live"})
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request, _ string) error {
	if err := s.cfg.Node.Ready(); err != nil {
		return &crm.Error{Code: crm.CodeUnavailable, Op: "ready", Message: err.Error()}
	}
	return writeJSON(w, http.StatusOK, map[string]string{"status": "ready"})
}
