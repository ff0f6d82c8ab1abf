package processtest

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/tradepost-crm/tradepost/httpapi"
)

// A Post is a node where clerks work and that is killed again and again. Its
// lives are counted: whatever a client hears of a dead process, it hears after
// the life has ended.
type Post struct {
	*Process
	Master bool

	started time.Time // of the goroutine that kills and starts the process

	mu      sync.Mutex    // protects what follows
	life    int           // counts the kills
	serving chan struct{} // closed while the node can serve
}

// newPost returns the post of a node that serves.
func newPost(p *Process, master bool) *Post {
	serving := make(chan struct{})
	close(serving)
	return &Post{Process: p, Master: master, serving: serving}
}

// Kill ends the node's life.
func (p *Post) Kill() error {
	p.mu.Lock()
	p.life++
	select {
	case <-p.serving:
		p.serving = make(chan struct{})
	default: // it was starting
	}
	p.mu.Unlock()
	return p.Process.Kill()
}

// Start starts the process.
func (p *Post) Start() error {
	p.started = time.Now()
	return p.Process.Start()
}

// AwaitReady waits until the node serves, lets the clerks in and returns how
// long that took from the start of the process.
func (p *Post) AwaitReady(ctx context.Context) (time.Duration, error) {
	if err := p.Process.AwaitReady(ctx); err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.serving)
	return time.Since(p.started), nil
}

// Await waits until the node serves and returns its life.
func (p *Post) Await(ctx context.Context) (life int, err error) {
	for {
		p.mu.Lock()
		life, serving := p.life, p.serving
		p.mu.Unlock()
		select {
		case <-serving:
		case <-ctx.Done():
			return life, ctx.Err()
		}
		if life == p.Life() {
			return life, nil
		}
	}
}

// Life returns which life the node is in.
func (p *Post) Life() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.life
}

// clients returns a client that keeps a connection for each of n users.
func (p *Process) clients(n int) (*httpapi.Client, error) {
	c, err := p.Client()
	if err != nil {
		return nil, err
	}
	c.HTTP = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConns: n, MaxIdleConnsPerHost: n, DisableCompression: true}}
	return c, nil
}
