package syncproto

import "github.com/tradepost-crm/tradepost/crm"

// A Hello is a replica's first frame: who it is and where it stands. It is the
// same in every version, so that any node can greet any other.
type Hello struct {
	ProtoMin, ProtoMax uint16 // versions spoken, inclusive
	Cluster            string
	Node               crm.NodeID
	Incarnation        crm.Incarnation
	NextSeq            crm.Seq       // the number its next new Mutation gets; >= 1
	Chain              crm.ChainHash // of Mutation NextSeq-1
	Timeline           uint64        // of Cursor
	Cursor             crm.Rev       // everything decided up to here is in the base
	Staged             crm.Rev       // everything above Cursor and up to here is staged; 0: nothing is
	LowBase            crm.Rev       // lowest Seen.Rev of a pending op; 0: none pending
	Schema             crm.Rev       // version of the schema it works under
	Resend             []crm.TerritoryID
	Bootstrap          bool  // the base is empty: send no tombstones
	Sent               int64 // Unix milliseconds by the replica's clock
}

// Kind returns KindHello.
func (*Hello) Kind() Kind { return KindHello }

func (f *Hello) fields(c *codec) {
	number(c, "proto_min", &f.ProtoMin)
	number(c, "proto_max", &f.ProtoMax)
	c.text("cluster", &f.Cluster, maxName)
	number(c, "node", &f.Node)
	number(c, "incarnation", &f.Incarnation)
	number(c, "next_seq", &f.NextSeq)
	c.fixed("chain", f.Chain[:])
	number(c, "timeline", &f.Timeline)
	c.rev("cursor", &f.Cursor)
	c.rev("staged", &f.Staged)
	c.rev("low_base", &f.LowBase)
	c.rev("schema", &f.Schema)
	each(c, "resend", &f.Resend, maxList, 1, func(t *crm.TerritoryID) { number(c, "territory", t) })
	c.flag("bootstrap", &f.Bootstrap)
	c.time("sent", &f.Sent)
	if f.NextSeq == 0 {
		c.fail("next_seq", "0 is no number of a mutation")
	}
}

// A Welcome accepts a Hello: where the master stands, as the replica needs it.
type Welcome struct {
	Proto       uint16 // the version both speak from here on
	Timeline    uint64
	Incarnation crm.Incarnation
	LastSeq     crm.Seq       // last Mutation of the replica in the master's log
	LastHash    crm.ChainHash // chain hash after it
	Head        crm.Rev
	HelloSent   int64    // Hello.Sent, echoed
	Received    int64    // when the Hello came, Unix milliseconds by the master's clock
	Sent        int64    // when this was sent, by the same clock
	Backup      crm.Rev  // what a backup of the masters covers; 0: there is none
	Leader      bool     // the answering master leads
	Masters     []string // host:port of each, to dial next time
	Lineage     []Fork   // of Timeline, oldest first: the timelines that it came from; Proto 2
	AgeMillis   uint32   // how long ago Head was known to be the leader's; 0 at the leader, the highest if nobody knows; Proto 3

	// Trail is for a disk whose history may have parted from theirs: the chain
	// hashes after theirs, oldest first, as far back as they are kept and up to the
	// lower of LastSeq and Hello.NextSeq-1. The last one that the disk has too is
	// where the two histories part. Proto 3.
	Trail []crm.ChainHash
}

// MaxTrail bounds the chain hashes of a Trail, which is how many the masters keep
// of a node.
const MaxTrail = 1024

// A Fork says that a timeline was left at Rev for the next one of its lineage:
// what it decided up to there holds, what came after was lost.
type Fork struct {
	Timeline uint64
	Rev      crm.Rev
}

// maxLineage bounds the restores that a cluster remembers.
const maxLineage = 256

// Kind returns KindWelcome.
func (*Welcome) Kind() Kind { return KindWelcome }

func (f *Welcome) fields(c *codec) {
	number(c, "proto", &f.Proto)
	number(c, "timeline", &f.Timeline)
	number(c, "incarnation", &f.Incarnation)
	number(c, "last_seq", &f.LastSeq)
	c.fixed("last_hash", f.LastHash[:])
	c.rev("head", &f.Head)
	c.time("hello_sent", &f.HelloSent)
	c.time("received", &f.Received)
	c.time("sent", &f.Sent)
	c.rev("backup", &f.Backup)
	c.flag("leader", &f.Leader)
	c.addresses("masters", &f.Masters)
	if c.mode != describing {
		c.version = f.Proto // a Welcome says itself which version it is
	}
	if c.since(2, len(f.Lineage) > 0, "lineage") {
		each(c, "lineage (2)", &f.Lineage, maxLineage, 2, func(a *Fork) {
			number(c, "timeline", &a.Timeline)
			c.rev("rev", &a.Rev)
		})
	}
	if c.since(3, f.AgeMillis > 0, "age_ms") {
		number(c, "age_ms (3)", &f.AgeMillis)
	}
	if c.since(3, len(f.Trail) > 0, "trail") {
		each(c, "trail (3)", &f.Trail, MaxTrail, len(crm.ChainHash{}), func(h *crm.ChainHash) { c.fixed("hash", h[:]) })
	}
}

func (c *codec) addresses(name string, v *[]string) {
	each(c, name, v, maxAddresses, 1, func(s *string) { c.text("address", s, maxAddress) })
}

// A Heartbeat measures round trip and clock offset and carries the head, so
// that an idle replica knows it is current. The answer repeats ID and T1.
type Heartbeat struct {
	ID    uint32
	T1    int64 // when the question was sent, Unix milliseconds by the asking clock
	T2    int64 // when it came, by the answering clock; 0 in a question
	T3    int64 // when the answer was sent, by the answering clock; 0 in a question
	Head  crm.Rev
	Reply bool // this is the answer

	AgeMillis uint32 // of an answer, as in Welcome; from version 3
}

// Kind returns KindHeartbeat.
func (*Heartbeat) Kind() Kind { return KindHeartbeat }

func (f *Heartbeat) fields(c *codec) {
	number(c, "id", &f.ID)
	c.time("t1", &f.T1)
	c.time("t2", &f.T2)
	c.time("t3", &f.T3)
	c.rev("head", &f.Head)
	c.flag("reply", &f.Reply)
	if c.since(3, f.AgeMillis > 0, "age_ms") {
		number(c, "age_ms (3)", &f.AgeMillis)
	}
}

// A Refused ends the conversation for a cause that trying again does not cure:
// another cluster, a node number that the certificate does not bear, a version.
type Refused struct {
	Code    crm.Code
	Message string // cut to 4 KiB
}

// Kind returns KindRefused.
func (*Refused) Kind() Kind { return KindRefused }

func (f *Refused) fields(c *codec) {
	c.code("code", &f.Code)
	c.message("message", &f.Message)
}
