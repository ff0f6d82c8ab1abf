package gossip

import (
	"fmt"
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls. It calls the Alive and Notify methods
// with its node lock held, so they only touch the table, the transport's
// address book and counters.
type delegate struct{ g *Gossip }

var (
	_ memberlist.Delegate         = delegate{}
	_ memberlist.EventDelegate    = delegate{}
	_ memberlist.AliveDelegate    = delegate{}
	_ memberlist.PingDelegate     = delegate{}
	_ memberlist.ConflictDelegate = delegate{}
)

func (d delegate) install(conf *memberlist.Config) {
	conf.Delegate, conf.Events, conf.Alive, conf.Ping, conf.Conflict = d, d, d, d, d
}

// NodeMeta returns what this node announces.
func (d delegate) NodeMeta(int) []byte { return d.g.announced().append(nil) }

// NotifyAlive is asked about every claim that a node lives, also an outdated
// one, and refuses those that contradict themselves.
func (d delegate) NotifyAlive(n *memberlist.Node) error {
	a, err := checkedAnnouncement(n)
	if err != nil {
		d.g.stats.metaRejected.Add(1)
		return err
	}
	d.g.transport.learn(a.Gossip)
	d.g.members.vindicate(n.Name, time.Now())
	return nil
}

// checkedAnnouncement decodes what n announces and compares it with the name
// and address that memberlist knows it by.
func checkedAnnouncement(n *memberlist.Node) (announcement, error) {
	a, err := parseAnnouncement(n.Meta)
	if err != nil {
		return a, err
	}
	if n.Name != nodeName(a.Node) {
		return a, fmt.Errorf("%w: %q announces node %d", errAnnouncement, n.Name, a.Node)
	}
	if ip, port := standIn(a.Gossip); !ip.Equal(n.Addr) || port != n.Port {
		return a, fmt.Errorf("%w: %q announces address %q, which is not %s",
			errAnnouncement, n.Name, a.Gossip, n.Address())
	}
	return a, nil
}

func (d delegate) NotifyJoin(n *memberlist.Node)   { d.accept(n) }
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.accept(n) }
func (d delegate) NotifyLeave(n *memberlist.Node)  { d.g.members.bury(n.Name, time.Now()) }

// accept lists n, whose announcement NotifyAlive has let pass.
func (d delegate) accept(n *memberlist.Node) {
	if a, err := checkedAnnouncement(n); err == nil {
		d.g.members.put(n.Name, a, time.Now())
	}
}

func (d delegate) NotifyPingComplete(n *memberlist.Node, rtt time.Duration, _ []byte) {
	d.g.members.sample(n.Name, rtt)
	d.g.members.vindicate(n.Name, time.Now())
}

func (d delegate) NotifyConflict(_, _ *memberlist.Node) { d.g.stats.nameConflicts.Add(1) }

// Nothing rides on an ack and no user messages or state are exchanged.

func (d delegate) AckPayload() []byte              { return nil }
func (d delegate) NotifyMsg([]byte)                {}
func (d delegate) GetBroadcasts(_, _ int) [][]byte { return nil }
func (d delegate) LocalState(bool) []byte          { return nil }
func (d delegate) MergeRemoteState([]byte, bool)   {}
