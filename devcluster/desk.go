package devcluster

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/tradepost-crm/tradepost/httpapi"
	"github.com/tradepost-crm/tradepost/wansim"
)

// A Desk is a computer in a city, on the simulated WAN, from which people use
// the nodes' HTTP API: what a request costs there includes the distance.
type Desk struct {
	c    *Cluster
	host *wansim.Host
	http *http.Client
}

// Desk returns a new desk in m's city. The caller closes it.
func (c *Cluster) Desk(m *Member) *Desk {
	d := &Desk{c: c, host: c.net.Host(m.Place.Name, m.Name+"-desk")}
	d.http = &http.Client{Transport: &http.Transport{DialContext: d.dial, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute}}
	return d
}

// Close closes idle connections; none may be in use.
func (d *Desk) Close() { d.http.CloseIdleConnections() }

// To returns a client of m's API with its first token.
func (d *Desk) To(m *Member) (*httpapi.Client, error) {
	n, err := m.Node()
	if err != nil {
		return nil, err
	}
	token, err := n.AdminToken()
	if err != nil {
		return nil, err
	}
	return &httpapi.Client{BaseURL: "http://" + m.Name + wanHTTP, Token: token, HTTP: d.http}, nil
}

func (d *Desk) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	return d.host.Dial(ctx, addr)
}
