package gossip

import (
	"crypto/sha256"
	"net"
	"net/netip"
	"strconv"
)

const (
	standInPrefix = 0xfd // fd00::/8, unique local addresses
	standInPort   = 7946 // for an address that has no port number
	maxAddresses  = 4096 // entries of an addressBook
)

// standIn returns the IP and port by which memberlist knows addr: its own if it
// is an IP:port, otherwise an IP in fd00::/8 from the SHA-256 of addr and the
// port at its end. Port is never 0, which memberlist would replace.
func standIn(addr string) (net.IP, uint16) {
	if ap, err := netip.ParseAddrPort(addr); err == nil && ap.Addr().Zone() == "" && ap.Port() != 0 {
		return ap.Addr().Unmap().AsSlice(), ap.Port()
	}
	sum := sha256.Sum256([]byte(addr))
	ip := net.IP(append([]byte{standInPrefix}, sum[:net.IPv6len-1]...))
	return ip, portOf(addr)
}

func portOf(addr string) uint16 {
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		return standInPort
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return standInPort
	}
	return uint16(port)
}

// An addressBook finds the address behind a stand-in's host:port. It has at
// most maxAddresses entries; when it is full, any one makes room. Addresses
// come from seeds and from announcements under the cluster's key, never from
// strangers, and a lost one returns with the next announcement.
type addressBook map[string]string

// add enters addr and returns its host:port.
func (b addressBook) add(addr string) string {
	ip, port := standIn(addr)
	hostPort := net.JoinHostPort(ip.String(), strconv.Itoa(int(port)))
	if hostPort == addr {
		return hostPort
	}
	if _, ok := b[hostPort]; !ok && len(b) >= maxAddresses {
		for victim := range b {
			delete(b, victim)
			break
		}
	}
	b[hostPort] = addr
	return hostPort
}

// find returns the address behind hostPort, which is hostPort itself if it is
// no known stand-in.
func (b addressBook) find(hostPort string) string {
	if addr, ok := b[hostPort]; ok {
		return addr
	}
	return hostPort
}

// opaque is the net.Addr of a network that is not UDP.
type opaque string

func (opaque) Network() string  { return "gossip" }
func (a opaque) String() string { return string(a) }
