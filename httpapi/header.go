package httpapi

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

// The headers of this API, in canonical form.
const (
	headerMark        = "Tradepost-Mark"      // the position an answer was given from: timeline.rev.node.seq
	headerAsOf        = "Tradepost-As-Of"     // when the master was there, RFC 3339; absent if never known
	headerStaleness   = "Tradepost-Staleness" // seconds since then
	headerPending     = "Tradepost-Pending"   // this node's edits that the master has not decided
	headerConnected   = "Tradepost-Connected" // whether the node hears from a master
	headerConsistency = "Tradepost-Consistency"
	headerSession     = "Tradepost-Session"
	headerRequestID   = "Tradepost-Request-Id"
)

// MaxBounded is the largest max of a bounded read.
const MaxBounded = 24 * time.Hour

// AppendMark appends "timeline.rev.node.seq".
func AppendMark(dst []byte, m crm.Mark) []byte {
	dst = append(strconv.AppendUint(dst, m.Timeline, 10), '.')
	dst = append(strconv.AppendUint(dst, uint64(m.Rev), 10), '.')
	dst = append(strconv.AppendUint(dst, uint64(m.Node), 10), '.')
	return strconv.AppendUint(dst, uint64(m.Seq), 10)
}

// ParseMark reads what AppendMark wrote.
func ParseMark(s string) (crm.Mark, error) {
	parts := strings.Split(s, ".")
	var n [4]uint64
	for i, bits := range [4]int{64, 63, 32, 63} {
		var err error
		if len(parts) == len(n) {
			n[i], err = strconv.ParseUint(parts[i], 10, bits)
		}
		if len(parts) != len(n) || err != nil {
			return crm.Mark{}, invalid(headerMark, "%q is not a mark such as 1.1204.3.17; take it from the header %s of an answer", short(s), headerMark)
		}
	}
	return crm.Mark{Timeline: n[0], Rev: crm.Rev(n[1]), Node: crm.NodeID(n[2]), Seq: crm.Seq(n[3])}, nil
}

// parseDemand reads the two headers that say what a read must have seen. A
// session mark alone asks for a session read.
func parseDemand(h http.Header) (crm.Demand, error) {
	level, session := h.Get(headerConsistency), h.Get(headerSession)
	d := crm.Demand{Level: crm.Local}
	if session != "" {
		var err error
		if d.Session, err = ParseMark(session); err != nil {
			return crm.Demand{}, invalid(headerSession, "%s", crmMessage(err))
		}
		d.Level = crm.Session
	}
	name, param, _ := strings.Cut(level, ";")
	name, param = strings.TrimSpace(name), strings.TrimSpace(param)
	if name != string(crm.Bounded) && param != "" {
		return crm.Demand{}, invalid(headerConsistency, "only bounded takes a parameter")
	}
	switch crm.Level(name) {
	case "":
	case crm.Local, crm.Leader:
		d.Level = crm.Level(name)
	case crm.Session:
		if session == "" {
			return crm.Demand{}, invalid(headerSession, "a session read names a mark; take it from the header %s of an answer", headerMark)
		}
	case crm.Bounded:
		return parseBounded(d, param)
	default:
		return crm.Demand{}, invalid(headerConsistency, "%q is not local, session, bounded;max=5s or leader", short(level))
	}
	return d, nil
}

func parseBounded(d crm.Demand, param string) (crm.Demand, error) {
	text, ok := strings.CutPrefix(param, "max=")
	age, err := time.ParseDuration(text)
	if !ok || err != nil || age <= 0 || age > MaxBounded {
		return crm.Demand{}, invalid(headerConsistency, "a bounded read says how old its answer may be, as bounded;max=5s, and at most %s", MaxBounded)
	}
	d.Level, d.MaxStale = crm.Bounded, age
	return d, nil
}

// formatDemand writes what parseDemand reads.
func formatDemand(h http.Header, d crm.Demand) {
	switch d.Level {
	case "", crm.Local:
		return
	case crm.Bounded:
		h.Set(headerConsistency, "bounded;max="+d.MaxStale.String())
	default:
		h.Set(headerConsistency, string(d.Level))
	}
	if d.Session != (crm.Mark{}) {
		h.Set(headerSession, string(AppendMark(nil, d.Session)))
	}
}

// parseIfMatch reads the token that an edit's author had seen; nil means what
// this node shows now.
func parseIfMatch(h http.Header) (*crm.Token, error) {
	text := strings.TrimSpace(h.Get("If-Match"))
	if text == "" || text == "*" {
		return nil, nil
	}
	bare := strings.TrimPrefix(text, "W/") // a proxy that compresses weakens tags
	if n := len(bare); n >= 2 && bare[0] == '"' && bare[n-1] == '"' {
		bare = bare[1 : n-1]
	}
	t, err := crm.ParseToken(bare)
	if err != nil {
		return nil, invalid("If-Match", "%s", crmMessage(err))
	}
	return &t, nil
}

func crmMessage(err error) string {
	e := personal(err)
	return e.Message
}

// A headerBlock is what every read answers with. All values share one
// string and one slice, because a point read is mostly made of such costs.
type headerBlock struct {
	text  []byte
	names []string
	ends  []int
}

func (b *headerBlock) end(name string) {
	b.names, b.ends = append(b.names, name), append(b.ends, len(b.text))
}

func (b *headerBlock) set(h http.Header) {
	text, values, from := string(b.text), make([]string, len(b.names)), 0
	for i, name := range b.names {
		values[i] = text[from:b.ends[i]]
		h[name] = values[i : i+1 : i+1]
		from = b.ends[i]
	}
}

// freshness appends the headers that say what an answer was read from.
func (b *headerBlock) freshness(f crm.Freshness, now time.Time) {
	b.text = AppendMark(b.text, f.Mark)
	b.end(headerMark)
	if !f.AsOf.IsZero() {
		b.text = f.AsOf.UTC().AppendFormat(b.text, "2006-01-02T15:04:05.000Z")
		b.end(headerAsOf)
		b.text = strconv.AppendFloat(b.text, staleness(f, now).Seconds(), 'f', 3, 64)
		b.end(headerStaleness)
	}
	b.text = strconv.AppendInt(b.text, int64(f.Pending), 10)
	b.end(headerPending)
	b.text = strconv.AppendBool(b.text, f.Connected)
	b.end(headerConnected)
}

// staleness is how long ago the master was where f is, 0 if f is of the future.
func staleness(f crm.Freshness, now time.Time) time.Duration { return max(0, now.Sub(f.AsOf)) }

// parseFreshness reads what the block wrote.
func parseFreshness(h http.Header) crm.Freshness {
	var f crm.Freshness
	f.Mark, _ = ParseMark(h.Get(headerMark))
	f.AsOf, _ = time.Parse(time.RFC3339Nano, h.Get(headerAsOf))
	f.Pending, _ = strconv.Atoi(h.Get(headerPending))
	f.Connected = h.Get(headerConnected) == "true"
	return f
}
