package wansim

import (
	"fmt"
	"time"
)

// Cut makes both directions between two sites a black hole. What is on its way
// or written later waits, and flows on after a heal, unless its connection stalls
// for Config.StallTimeout; datagrams are lost. Cut returns an error if a site is
// unknown or both are one, as all methods here do.
func (n *Network) Cut(a, b string) error { return n.between(a, b, true, true) }

// CutOneWay cuts only the direction from one site to another: the other can still
// send, but hears no acknowledgement.
func (n *Network) CutOneWay(from, to string) error { return n.between(from, to, true, false) }

// Heal restores both directions between two sites.
func (n *Network) Heal(a, b string) error { return n.between(a, b, false, true) }

// Isolate cuts a site from all others. Hosts within it still talk.
func (n *Network) Isolate(site string) error { return n.around(site, true) }

// HealSite restores all links of a site, whoever cut them.
func (n *Network) HealSite(site string) error { return n.around(site, false) }

// HealAll restores every link.
func (n *Network) HealAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	var links []*link
	for _, row := range n.links {
		links = append(links, row...)
	}
	n.set(links, false)
}

func (n *Network) between(a, b string, cut, bothWays bool) error {
	i, j, err := n.pair(a, b)
	if err != nil {
		return err
	}
	if i == j {
		return fmt.Errorf("wansim: %s and %s are one site", a, b)
	}
	links := []*link{n.links[i][j]}
	if bothWays {
		links = append(links, n.links[j][i])
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.set(links, cut)
	return nil
}

func (n *Network) around(site string, cut bool) error {
	i, err := n.cfg.Matrix.find(site)
	if err != nil {
		return fmt.Errorf("wansim: %w", err)
	}
	var links []*link
	for j := range n.links {
		if j != i {
			links = append(links, n.links[i][j], n.links[j][i])
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.set(links, cut)
	return nil
}

// set cuts or heals those of links that are not so yet, and moves what they carry.
func (n *Network) set(links []*link, cut bool) {
	now := time.Now()
	changed := map[*link]bool{}
	for _, l := range links {
		if l.cut != cut {
			changed[l] = true
			l.set(cut, now)
		}
	}
	for _, c := range n.ordered() {
		c.turn(changed, cut, now)
	}
	for _, h := range n.hosts {
		for _, p := range h.packets {
			p.drop(changed, now)
		}
		h.gate.wake()
	}
}

func (n *Network) pair(a, b string) (int, int, error) {
	i, err := n.cfg.Matrix.find(a)
	if err != nil {
		return 0, 0, fmt.Errorf("wansim: %w", err)
	}
	j, err := n.cfg.Matrix.find(b)
	if err != nil {
		return 0, 0, fmt.Errorf("wansim: %w", err)
	}
	return i, j, nil
}

// A Link is the state of both directions between two sites.
type Link struct {
	A, B             string
	RTT              time.Duration // there and back
	BytesAB, BytesBA int64         // payload carried, streams and datagrams
	CutAB, CutBA     bool
}

// Links returns the links between sites where hosts stand, in the matrix's order.
func (n *Network) Links() []Link {
	n.mu.Lock()
	defer n.mu.Unlock()
	inhabited := make([]bool, len(n.links))
	for _, h := range n.hosts {
		inhabited[h.site] = true
	}
	var links []Link
	for i := range n.links {
		for j := i + 1; j < len(n.links); j++ {
			if inhabited[i] && inhabited[j] {
				links = append(links, newLink(n.links[i][j], n.links[j][i]))
			}
		}
	}
	return links
}

func newLink(ab, ba *link) Link {
	return Link{
		A: ab.from, B: ab.to,
		RTT:     ab.delay + ba.delay,
		BytesAB: ab.bytes, BytesBA: ba.bytes,
		CutAB: ab.cut, CutBA: ba.cut,
	}
}

// Bytes returns the payload carried from one site to another so far, by streams
// and datagrams; from and to may be one site. It panics if a site is unknown.
func (n *Network) Bytes(from, to string) int64 {
	i, j, err := n.pair(from, to)
	if err != nil {
		panic(err.Error())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.links[i][j].bytes
}
