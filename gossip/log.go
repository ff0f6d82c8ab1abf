package gossip

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"
)

// Stats counts what was ignored since Open. memberlist tells of the first two
// and of Errors only in its log, so they are counted there, by the wording of
// the memberlist version that this module requires.
type Stats struct {
	DecryptFailures uint64 // packets and streams not sealed with the cluster's key
	LabelMismatches uint64 // packets and streams with another cluster's label
	MetaRejected    uint64 // announcements malformed, too long or contradictory; repeats count
	NameConflicts   uint64 // nodes that claimed the name of a living one
	StreamsRefused  uint64 // inbound streams beyond the limit
	Errors          uint64 // other errors that memberlist logged
}

type counters struct {
	decryptFailures, labelMismatches, metaRejected, nameConflicts, errors atomic.Uint64
}

// logBridge turns memberlist's log lines, "[LEVEL] memberlist: text", into
// structured ones, and reads from them what memberlist says nowhere else.
type logBridge struct {
	logger  *slog.Logger
	stats   *counters
	members *table
}

// Write takes one line; log.Logger calls it once a message.
func (b *logBridge) Write(line []byte) (int, error) {
	level, text := parseLine(string(line))
	switch {
	case containsAny(text, "Decrypt packet failed", "could decrypt the message", "remote state is not encrypted"):
		b.stats.decryptFailures.Add(1)
		level = slog.LevelDebug // a stranger must not be able to fill the log
	case containsAny(text, "with unacceptable label"):
		b.stats.labelMismatches.Add(1)
		level = slog.LevelDebug
	case level >= slog.LevelWarn && strings.HasPrefix(text, "ignoring alive message"):
		level = slog.LevelDebug // counted by the delegate
	case level == slog.LevelError:
		b.stats.errors.Add(1)
		level = slog.LevelWarn // the network's trouble, not ours
	}
	if name, ok := suspectIn(text); ok {
		b.members.suspect(name, time.Now())
	}
	b.logger.Log(context.Background(), level, text)
	return len(line), nil
}

func parseLine(line string) (slog.Level, string) {
	line = strings.TrimSpace(line)
	name, text, ok := strings.Cut(strings.TrimPrefix(line, "["), "] ")
	if !ok {
		return slog.LevelInfo, line
	}
	text = strings.TrimPrefix(text, "memberlist: ")
	switch name {
	case "DEBUG":
		return slog.LevelDebug, text
	case "WARN":
		return slog.LevelWarn, text
	case "ERR", "ERROR":
		return slog.LevelError, text
	}
	return slog.LevelInfo, text
}

// suspectIn returns the node that a log line declares suspect after a probe.
func suspectIn(text string) (string, bool) {
	rest, ok := strings.CutPrefix(text, "Suspect ")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, " has failed, no acks received")
}

func containsAny(s string, parts ...string) bool {
	for _, p := range parts {
		if strings.Contains(s, p) {
			return true
		}
	}
	return false
}
