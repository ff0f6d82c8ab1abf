package master

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"unicode/utf8"

	"github.com/tradepost-crm/tradepost/crm"
)

// MaxEntry bounds an encoded entry, in bytes.
const MaxEntry = 256 << 10

// The kinds of Raft entry. They are stored: never renumber, never reuse.
//
//	entry     kind 1 byte ‖ body ‖ crc32c of kind and body, 4 bytes big-endian
//
//	1 push      node ‖ incarnation ‖ received ‖ offset zigzag ‖ list of blob
//	2 admit     node ‖ nonce 16 bytes ‖ reason text
//	3 state     raft index ‖ rev ‖ list of (node ‖ accumulator 32 bytes)
//	4 activate  level
//	5 reports   list of (node ‖ cursor ‖ low base ‖ seen)
//	6 trim      rev
//	7 freeze    node ‖ reason text
//	8 timeline  timeline ‖ cluster text ‖ node ‖ received ‖ site, city, country, raft, sync, http: 6 texts
//	9 backup    timeline ‖ rev ‖ raft index ‖ taken ‖ size ‖ SHA-256 32 bytes
//
// Numbers are uvarints in the shortest form; a list is its count and its
// elements; a text or blob is its length and its bytes; received, seen and taken
// are Unix milliseconds, offset is milliseconds. 9 came with level 2.
const (
	kindPush     = 1
	kindAdmit    = 2
	kindState    = 3
	kindActivate = 4
	kindReports  = 5
	kindTrim     = 6
	kindFreeze   = 7
	kindTimeline = 8
	kindBackup   = 9
)

// An Entry is what the masters agree on, one of the types below.
type Entry interface {
	// appendBody appends the kind and the body.
	appendBody(dst []byte) []byte
}

// A PushEntry is a batch of a node's Mutations in the order of their Seqs.
type PushEntry struct {
	Node           crm.NodeID
	Incarnation    crm.Incarnation
	ReceivedMillis int64    // when the leader took it, by the leader's clock
	OffsetMillis   int64    // what to add to the node's clock to get the leader's
	Mutations      [][]byte // encoded
}

// An AdmitEntry gives a node's disk the next incarnation: at its bootstrap, and
// after a rollback. A repeat with the same nonce gives the same one.
type AdmitEntry struct {
	Node   crm.NodeID
	Nonce  [16]byte
	Reason string
}

// A StateEntry with RaftIndex 0 is a mark: each master computes its accumulator
// there. One with a RaftIndex compares what masters computed at that mark.
type StateEntry struct {
	RaftIndex uint64
	Rev       crm.Rev
	Votes     []StateVote
}

// A StateVote is a master's accumulator at a mark.
type StateVote struct {
	Node        crm.NodeID
	Accumulator Accumulator
}

// An ActivateEntry turns on a level of decision logic, from the next entry on.
type ActivateEntry struct{ Level uint64 }

// A ReportsEntry says how far nodes have come.
type ReportsEntry struct{ Reports []NodeReport }

// A NodeReport is the Cursor of a node, the least Rev that an op of its journal
// may still name, and when it was last heard, in Unix milliseconds.
type NodeReport struct {
	Node       crm.NodeID
	Cursor     crm.Rev
	LowBase    crm.Rev
	SeenMillis int64
}

// A TrimEntry drops tombstones and markers at or below Rev.
type TrimEntry struct{ Rev crm.Rev }

// A FreezeEntry refuses a node's Mutations, or takes them again if Reason is "".
type FreezeEntry struct {
	Node   crm.NodeID
	Reason string
}

// A TimelineEntry begins a cluster: its timeline, its first territories, and
// its first site with the first master.
type TimelineEntry struct {
	Timeline       uint64
	Cluster        string // the cluster's id
	Node           crm.NodeID
	ReceivedMillis int64
	Site           string
	City           string
	Country        string
	Raft           string // addresses of the first master
	Sync           string
	HTTP           string
}

// A BackupEntry says that a backup was written and checked, so that branches may
// forget what it covers.
type BackupEntry struct {
	Timeline    uint64
	Rev         crm.Rev // it holds everything decided up to here
	RaftIndex   uint64
	TakenMillis int64
	Size        uint64 // bytes of the database
	Sum         [32]byte
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errEntry = errors.New("damaged entry")

// EncodeEntry refuses an entry over MaxEntry with code too_large.
func EncodeEntry(e Entry) ([]byte, error) {
	b := e.appendBody(nil)
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	if len(b) > MaxEntry {
		return nil, &crm.Error{Code: crm.CodeTooLarge, Op: "propose entry", Message: fmt.Sprintf("%d bytes; at most %d fit", len(b), MaxEntry)}
	}
	return b, nil
}

// DecodeEntry decodes what EncodeEntry wrote. It never panics on damaged input;
// slices of the result share b's array.
func DecodeEntry(b []byte) (Entry, error) {
	if len(b) < 5 || len(b) > MaxEntry {
		return nil, fmt.Errorf("%w: %d bytes", errEntry, len(b))
	}
	if !intact(b) {
		return nil, fmt.Errorf("%w: %w: checksum", errEntry, errDamaged)
	}
	body := b[:len(b)-4]
	r := reader{b: body[1:]}
	e := r.entry(body[0])
	if r.err == nil && len(r.b) > 0 {
		r.fail("%d bytes left over", len(r.b))
	}
	if r.err != nil {
		return nil, r.err
	}
	return e, nil
}

// intact reports whether an encoded entry has the checksum it was given.
func intact(b []byte) bool {
	return len(b) > 4 && crc32.Checksum(b[:len(b)-4], castagnoli) == binary.BigEndian.Uint32(b[len(b)-4:])
}

func (e PushEntry) appendBody(b []byte) []byte {
	b = appendNumbers(append(b, kindPush), uint64(e.Node), uint64(e.Incarnation), uint64(e.ReceivedMillis))
	b = binary.AppendVarint(b, e.OffsetMillis)
	b = appendNumbers(b, uint64(len(e.Mutations)))
	for _, m := range e.Mutations {
		b = appendText(b, m)
	}
	return b
}

func (e AdmitEntry) appendBody(b []byte) []byte {
	b = append(appendNumbers(append(b, kindAdmit), uint64(e.Node)), e.Nonce[:]...)
	return appendText(b, e.Reason)
}

func (e StateEntry) appendBody(b []byte) []byte {
	b = appendNumbers(append(b, kindState), e.RaftIndex, uint64(e.Rev), uint64(len(e.Votes)))
	for _, v := range e.Votes {
		b = append(appendNumbers(b, uint64(v.Node)), v.Accumulator[:]...)
	}
	return b
}

func (e ActivateEntry) appendBody(b []byte) []byte {
	return appendNumbers(append(b, kindActivate), e.Level)
}

func (e ReportsEntry) appendBody(b []byte) []byte {
	b = appendNumbers(append(b, kindReports), uint64(len(e.Reports)))
	for _, r := range e.Reports {
		b = appendNumbers(b, uint64(r.Node), uint64(r.Cursor), uint64(r.LowBase), uint64(r.SeenMillis))
	}
	return b
}

func (e TrimEntry) appendBody(b []byte) []byte {
	return appendNumbers(append(b, kindTrim), uint64(e.Rev))
}

func (e FreezeEntry) appendBody(b []byte) []byte {
	return appendText(appendNumbers(append(b, kindFreeze), uint64(e.Node)), e.Reason)
}

func (e TimelineEntry) appendBody(b []byte) []byte {
	b = appendText(appendNumbers(append(b, kindTimeline), e.Timeline), e.Cluster)
	b = appendNumbers(b, uint64(e.Node), uint64(e.ReceivedMillis))
	for _, s := range []string{e.Site, e.City, e.Country, e.Raft, e.Sync, e.HTTP} {
		b = appendText(b, s)
	}
	return b
}

func (e BackupEntry) appendBody(b []byte) []byte {
	b = appendNumbers(append(b, kindBackup), e.Timeline, uint64(e.Rev), e.RaftIndex, uint64(e.TakenMillis), e.Size)
	return append(b, e.Sum[:]...)
}

func appendNumbers(b []byte, numbers ...uint64) []byte {
	for _, n := range numbers {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// A reader decodes entries. The first failure sticks; reads after it give zero.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", errEntry, fmt.Sprintf(format, args...))
		r.b = nil
	}
}

func (r *reader) entry(kind byte) Entry {
	switch kind {
	case kindPush:
		return r.push()
	case kindAdmit:
		e := AdmitEntry{Node: r.node()}
		copy(e.Nonce[:], r.take(len(e.Nonce)))
		e.Reason = r.text()
		return e
	case kindState:
		return r.state()
	case kindActivate:
		return ActivateEntry{Level: r.number()}
	case kindReports:
		return r.reports()
	case kindTrim:
		return TrimEntry{Rev: r.rev()}
	case kindFreeze:
		return FreezeEntry{Node: r.node(), Reason: r.text()}
	case kindBackup:
		e := BackupEntry{Timeline: r.number(), Rev: r.rev(), RaftIndex: r.number(), TakenMillis: r.millis(), Size: r.number()}
		copy(e.Sum[:], r.take(len(e.Sum)))
		return e
	case kindTimeline:
		return TimelineEntry{Timeline: r.number(), Cluster: r.text(), Node: r.node(), ReceivedMillis: r.millis(),
			Site: r.text(), City: r.text(), Country: r.text(), Raft: r.text(), Sync: r.text(), HTTP: r.text()}
	}
	r.fail("kind %d; a newer tradepost wrote it", kind)
	return nil
}

func (r *reader) push() Entry {
	e := PushEntry{Node: r.node(), Incarnation: crm.Incarnation(r.atMost(1<<32 - 1)), ReceivedMillis: r.millis(), OffsetMillis: r.signed()}
	for range r.count(1) {
		e.Mutations = append(e.Mutations, r.take(r.count(1)))
	}
	return e
}

func (r *reader) state() Entry {
	e := StateEntry{RaftIndex: r.number(), Rev: r.rev()}
	for range r.count(33) {
		v := StateVote{Node: r.node()}
		copy(v.Accumulator[:], r.take(len(v.Accumulator)))
		e.Votes = append(e.Votes, v)
	}
	return e
}

func (r *reader) reports() Entry {
	var e ReportsEntry
	for range r.count(4) {
		e.Reports = append(e.Reports, NodeReport{r.node(), r.rev(), r.rev(), r.millis()})
	}
	return e
}

func (r *reader) number() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 || size > 1 && r.b[size-1] == 0 {
		r.fail("bad number")
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) atMost(most uint64) uint64 {
	n := r.number()
	if n > most {
		r.fail("%d is over %d", n, most)
		return 0
	}
	return n
}

func (r *reader) node() crm.NodeID { return crm.NodeID(r.atMost(1<<32 - 1)) }
func (r *reader) rev() crm.Rev     { return crm.Rev(r.atMost(uint64(crm.Pending) - 1)) }
func (r *reader) millis() int64    { return int64(r.atMost(maxMillis)) }

func (r *reader) signed() int64 {
	u := r.number()
	return int64(u>>1) ^ -int64(u&1)
}

// count reads the length of a list whose elements take size bytes at least.
func (r *reader) count(size int) int {
	n := r.number()
	if n > uint64(len(r.b)/size) {
		r.fail("count %d is more than %d bytes can hold", n, len(r.b))
		return 0
	}
	return int(n)
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.fail("%d bytes wanted, %d there", n, len(r.b))
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) text() string {
	s := string(r.take(r.count(1)))
	if !utf8.ValidString(s) {
		r.fail("text is not UTF-8")
	}
	return s
}
