package session

import (
	"sync"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

const (
	// knockEvery is how often one node may introduce itself in the long run: each
	// time costs the leader a round of the masters, and maybe a log entry.
	knockEvery = time.Second
	// knockBurst is how often it may do so at once.
	knockBurst = 16
)

// Knocks bound how often each node introduces itself, by the generic cell rate
// algorithm (ITU-T I.371). Their size is bounded by the certificates that the
// cluster has signed. The zero value is ready; any goroutine may use it.
type knocks struct {
	mu     sync.Mutex                   // protects byNode
	byNode map[crm.NodeID]time.Duration // how far ahead of knockEvery a node is, since the first knock of all
	since  time.Time
}

// allow reports whether the node may introduce itself now. One that may not
// loses nothing by having tried.
func (k *knocks) allow(n crm.NodeID, now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byNode == nil {
		k.byNode, k.since = map[crm.NodeID]time.Duration{}, now
	}
	at := now.Sub(k.since)
	next := max(k.byNode[n], at)
	if next-at > (knockBurst-1)*knockEvery {
		return false
	}
	k.byNode[n] = next + knockEvery
	return true
}
