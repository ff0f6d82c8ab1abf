package master

import (
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// A transport is Raft's network, except for heartbeats of a term that is new
// here. Raft takes heartbeats in the goroutine of their connection, beside its
// main loop, so that a slow disk delays none. One of a newer term then makes a
// leader a follower behind the back of its main loop, which may go on to log a
// proposal under that term as if it led it: two masters hold different entries
// of one index and term, and their states part for ever (hashicorp/raft issue
// 695). Here the main loop takes those; they are few, and whoever sends one
// does not wait for it to commit anything.
type transport struct {
	*raft.NetworkTransport
	raft atomic.Pointer[raft.Raft] // nil until Raft runs: every term is new then
	rpcs chan raft.RPC             // for Raft's main loop

	closing chan struct{}
	once    sync.Once
	passing sync.WaitGroup
}

// newTransport starts to pass calls on. Raft closes it.
func newTransport(config *raft.NetworkTransportConfig) *transport {
	t := &transport{NetworkTransport: raft.NewNetworkTransportWithConfig(config), rpcs: make(chan raft.RPC), closing: make(chan struct{})}
	t.passing.Go(t.pass)
	return t
}

// Consumer returns what Raft's main loop takes.
func (t *transport) Consumer() <-chan raft.RPC { return t.rpcs }

func (t *transport) pass() {
	for {
		select {
		case rpc := <-t.NetworkTransport.Consumer():
			t.queue(rpc)
		case <-t.closing:
			return
		}
	}
}

func (t *transport) queue(rpc raft.RPC) {
	select {
	case t.rpcs <- rpc:
	case <-t.closing:
		rpc.Respond(nil, raft.ErrTransportShutdown)
	}
}

// SetHeartbeatHandler lets fast take the heartbeats of terms that Raft knows.
// Terms only grow, so one that is known stays so.
func (t *transport) SetHeartbeatHandler(fast func(raft.RPC)) {
	t.NetworkTransport.SetHeartbeatHandler(func(rpc raft.RPC) {
		beat, ok := rpc.Command.(*raft.AppendEntriesRequest)
		if r := t.raft.Load(); ok && r != nil && beat.Term <= r.CurrentTerm() {
			fast(rpc)
			return
		}
		t.queue(rpc)
	})
}

// leads reports whether Raft, which runs over the transport, leads.
func (t *transport) leads() bool {
	r := t.raft.Load()
	return r != nil && r.State() == raft.Leader
}

// Close ends the network and waits for what is passed on.
func (t *transport) Close() error {
	var err error
	t.once.Do(func() {
		close(t.closing)
		err = t.NetworkTransport.Close()
	})
	t.passing.Wait()
	return err
}
