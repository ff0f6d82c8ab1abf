package sim

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/replica"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// How a relay does its work, as package replica does.
const (
	announcePace   = 10 * time.Second
	belowPace      = 10 * time.Second
	relayPatience  = time.Second      // of a handshake that waits for the relay to catch up
	nearerPace     = 20 * time.Second // between two thoughts of going over to a relay
	announcedSince = 3                // version of the protocol
)

// relays has a branch serve others from now on.
func (w *world) relays(words []string) error {
	n, err := w.named(words[0])
	if err != nil {
		return err
	}
	b := w.branchOf(n)
	if b == nil {
		return notReplica(n)
	}
	b.relay, w.relayed = true, true
	if b.up {
		w.crash(n, "an administrator, who makes it a relay", true)
		w.start(n)
	}
	return nil
}

// port is what a relay listens at; streams of the network come without it.
type port struct{ net.Listener }

func (port) Close() error { return nil }

// relaying is the part of a node's configuration that makes it a relay, nil if it
// is none.
func (b *branchNode) relaying() *replica.Relay {
	if !b.relay {
		return nil
	}
	return &replica.Relay{Listen: func() (net.Listener, error) { return port{}, nil }, Address: b.w.record.Sites[b.id].Name, TLS: &tls.Config{}, Link: &tls.Config{}}
}

// open begins to serve others.
func (b *branchNode) open() {
	if b.serving == nil {
		b.serving = &server{node: b.node}
	}
	b.serving.begin(b.rep.Server(), b, func() crm.Rev { return b.rep.Status().Cursor }, relayPatience)
	b.after(announcePace, b.announce)
	b.after(belowPace, b.tellAbove)
}

// announce has the node say where it serves others.
func (b *branchNode) announce() {
	b.after(announcePace, b.announce)
	done, err := b.rep.Announce(context.Background())
	if err != nil {
		b.failed("say where it serves", err)
	}
	if done {
		b.note("says where it serves")
		b.moved()
		b.pump()
	}
}

// tellAbove passes on how far the nodes below are.
func (b *branchNode) tellAbove() {
	b.after(belowPace, b.tellAbove)
	list := b.rep.Below()
	b.serving.committed()
	if to, err := b.way("report"); err == nil && len(list) > 0 {
		b.serving.post(to, &syncproto.Reports{Reports: list}, func(f syncproto.Frame) { to.passed(b.identity(), f, func(syncproto.Frame) {}) })
	}
}

// way returns the server that this node is in session with. The error has code
// no_leader.
func (b *branchNode) way(op string) (*server, error) {
	for _, v := range b.w.servers() {
		if b.talk != nil && v.name == b.with {
			return v, nil
		}
	}
	return nil, session.NoLeader(op)
}

// servers are those of masters and relays.
func (w *world) servers() (out []*server) {
	for _, m := range w.masters {
		out = append(out, &m.server)
	}
	for _, b := range w.branches {
		if b.serving != nil {
			out = append(out, b.serving)
		}
	}
	return out
}

// ask puts a question of a node below to the node above.
func (b *branchNode) ask(op string, make func(id uint64) syncproto.Frame, then func(reply)) {
	to, err := b.way(op)
	if err != nil {
		then(reply{err: err})
		return
	}
	b.serving.ask(to, make, func(f syncproto.Frame, then func(syncproto.Frame)) { to.passed(b.identity(), f, then) }, then)
}

func (b *branchNode) greet(h *syncproto.Hello, then func(syncproto.Frame, error)) {
	b.ask("connect", func(uint64) syncproto.Frame { return h }, func(r reply) { then(r.f, r.err) })
}

func (b *branchNode) submit(s session.Submission, then func(session.Reply, error)) {
	s = b.rep.OnBehalf(s)
	b.ask("submit edits", func(id uint64) syncproto.Frame { return session.ForwardOf(id, s) }, func(r reply) { forwarded(s, r, then) })
}

func (b *branchNode) leaderRev(then func(*syncproto.Answer, error)) {
	b.ask("ask the leader", func(id uint64) syncproto.Frame { return &syncproto.Ask{ID: id, What: syncproto.AskLeader} }, func(r reply) { answered(r, then) })
}

// passed is what a server does with a relay's question, as session.ServeRelay does.
func (v *server) passed(relay auth.Identity, f syncproto.Frame, then func(syncproto.Frame)) {
	switch f := f.(type) {
	case *syncproto.Hello:
		greeted := func(a syncproto.Frame, err error) {
			if err != nil {
				a = v.srv.Busy(err)
			}
			then(a)
		}
		if err := v.srv.MaySpeak(relay, f.Node); err != nil {
			greeted(nil, err)
			return
		}
		v.above.greet(f, greeted)
	case *syncproto.Forward:
		s, err := session.SubmissionOf(f)
		if err == nil {
			err = v.srv.MaySpeak(relay, s.Node)
		}
		if err != nil {
			then(session.ForwardedOf(f.ID, session.Reply{}, err))
			return
		}
		v.above.submit(s, func(r session.Reply, err error) { then(session.ForwardedOf(f.ID, r, err)) })
	case *syncproto.Ask:
		v.above.leaderRev(func(a *syncproto.Answer, err error) { then(session.AnswerTo(f, a, err)) })
	case *syncproto.Reports:
		m := v.w.masterOf(v.node)
		for _, r := range f.Reports {
			if m != nil && v.srv.MaySpeak(relay, r.Node) == nil {
				m.reported(r.Node, r.Cursor, r.LowBase, r.SeenMillis)
			}
		}
	}
}

// relaysFor returns the relays that may serve the node, by its own base.
func (b *branchNode) relaysFor() (out []string) {
	if !b.w.relayed {
		return nil
	}
	_, base := b.rep.Files()
	err := base.View(func(tx *store.Tx) error {
		ros, err := b.rosters.At(tx)
		if err != nil {
			return err
		}
		for _, host := range ros.Hosts(0, b.id) {
			if n := b.w.node(host); n != nil && b.w.branchOf(n) != nil {
				out = append(out, host)
			}
		}
		return nil
	})
	if err != nil {
		b.failed("read who may serve it", err)
	}
	return out
}

// nearer has the node leave a master for a relay now and then, as one does whose
// relay answers sooner.
func (b *branchNode) nearer() {
	b.after(nearerPace, b.nearer)
	relays := b.relaysFor()
	if b.talk == nil || len(relays) == 0 || slices.Contains(relays, b.with) || b.w.dice.For("nearer "+b.name).IntN(2) > 0 {
		return
	}
	b.note("goes over to a relay")
	b.hangUp()
	b.connect()
}
