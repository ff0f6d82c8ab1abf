package processtest

import (
	"context"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"time"
)

// A Place is where a process stands. The zero value is this machine's loopback.
type Place struct {
	Base   string   // directory in which its own is made; "": the cluster's
	Host   string   // address that is its alone; "": loopback, on ports that are free
	Prefix []string // put before each of its commands, such as "ip netns exec NAME"
	// Dial connects as somebody who stands there; nil: from here.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// ports returns n addresses for a process to listen on.
func (pl Place) ports(n int) ([]string, error) {
	if pl.Host == "" {
		return freePorts(n)
	}
	var out []string
	for _, port := range []string{"8400", "7400", "7401"}[:n] {
		out = append(out, net.JoinHostPort(pl.Host, port))
	}
	return out, nil
}

// client returns an HTTP client of somebody who stands there.
func (pl Place) client(timeout time.Duration) *http.Client {
	c := &http.Client{Timeout: timeout}
	if pl.Dial != nil {
		c.Transport = &http.Transport{DialContext: pl.Dial, MaxIdleConnsPerHost: 16}
	}
	return c
}

// command runs the binary there.
func (p *Process) command(ctx context.Context, args ...string) *exec.Cmd {
	argv := slices.Concat(p.place.Prefix, []string{p.bin}, args)
	return exec.CommandContext(ctx, argv[0], argv[1:]...)
}
