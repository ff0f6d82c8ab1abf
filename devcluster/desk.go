package devcluster

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/tradepost-crm/tradepost/httpapi"
	"github.com/tradepost-crm/tradepost/wansim"
)

// A Desk is a computer in a city from which people use the nodes' HTTP API. It
// reaches the node of its own city as every program on this machine does, and all
// others over the simulated WAN, so that what a request costs includes the
// distance. In virtual time there is only the WAN, with its 0.3 ms within a city.
type Desk struct {
	c    *Cluster
	at   wansim.Site
	host *wansim.Host
	http *http.Client
}

// Desk returns a new desk in m's city. The caller closes it.
func (c *Cluster) Desk(m *Member) *Desk {
	d := &Desk{c: c, at: m.Place, host: c.net.Host(m.Place.Name, m.Name+"-desk")}
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
	addr := m.Name + wanHTTP
	if d.at == m.Place {
		addr = n.HTTPAddr()
	}
	return &httpapi.Client{BaseURL: "http://" + addr, Token: token, HTTP: d.http}, nil
}

func (d *Desk) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) != nil {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	return d.host.Dial(ctx, addr)
}
