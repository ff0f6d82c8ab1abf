package wansim

import (
	"net"
	"strconv"
)

// addr is "host:port" on the simulated network.
type addr struct{ host, port string }

func (a addr) Network() string { return "wansim" }
func (a addr) String() string  { return net.JoinHostPort(a.host, a.port) }

func parseAddr(s string) (addr, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return addr{}, err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return addr{}, &net.AddrError{Err: "port is not in 1..65535", Addr: s}
	}
	return addr{host, port}, nil
}

func opError(op string, local, remote net.Addr, err error) error {
	return &net.OpError{Op: op, Net: "wansim", Source: local, Addr: remote, Err: err}
}
