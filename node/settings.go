package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// Settings are what an admin chooses for a node. A YAML file has the same keys
// (configs/ has samples); a flag beats the environment, the environment beats
// the file, the file beats the default.
type Settings struct {
	Dir         string    `yaml:"dir"`          // the node's directory; default ./tradepost-data
	Listen      Addresses `yaml:"listen"`       // where this node listens
	Advertise   Addresses `yaml:"advertise"`    // where others reach it; empty: as in Listen
	Masters     []string  `yaml:"masters"`      // sync addresses of masters and relays to try beside those known from joining
	Relay       bool      `yaml:"relay"`        // a replica that serves others at its sync address
	Preset      string    `yaml:"preset"`       // Raft timing of a master: region (default) or wide
	RaftLog     string    `yaml:"raft_log"`     // Raft log store of a master: wal (default) or bbolt
	Protocol    uint16    `yaml:"protocol"`     // holds the node at an older version of the protocol, as a brake in an upgrade; 0 (default): the newest
	City        string    `yaml:"city"`         // shown beside the node
	Country     string    `yaml:"country"`      // ISO 3166 code, beside the city
	LogLevel    string    `yaml:"log_level"`    // debug, info (default), warn, error
	LogFormat   string    `yaml:"log_format"`   // text (default) or json
	OpenMetrics bool      `yaml:"open_metrics"` // serve /metrics without a token
	Scrub       Scrub     `yaml:"scrub"`        // background verification of the node's files
}

// Scrub says how the node verifies its files in the background. It reads a little
// at a time and waits while the node is busy.
type Scrub struct {
	Every       time.Duration `yaml:"every"`         // a round over each file takes so long; default 24h, 0s switches it off
	MBPerSecond int           `yaml:"mb_per_second"` // at most, of each file; default 4
}

// Addresses are host:port pairs. An empty Gossip switches gossip off.
type Addresses struct {
	Sync   string `yaml:"sync"`   // masters and relays: replicas connect here, at masters joining nodes too
	Raft   string `yaml:"raft"`   // masters: among each other
	HTTP   string `yaml:"http"`   // people, programs, Prometheus
	Gossip string `yaml:"gossip"` // discovery, UDP and TCP
}

// DefaultSettings are the values used where neither file, environment nor flag
// says otherwise.
func DefaultSettings() Settings {
	return Settings{
		Dir: "tradepost-data", Preset: "region", RaftLog: "wal", LogLevel: "info", LogFormat: "text",
		Listen: Addresses{Sync: "127.0.0.1:7400", Raft: "127.0.0.1:7401", HTTP: "127.0.0.1:8400"},
		Scrub:  Scrub{Every: 24 * time.Hour, MBPerSecond: 4},
	}
}

func badSetting(item, format string, args ...any) error {
	return &crm.Error{Code: crm.CodeInvalid, Op: "read settings", Item: item, Message: fmt.Sprintf(format, args...)}
}

// LoadFile lays the keys of a YAML file over s. An unknown key, a wrong type or
// a second document is an error that names the file and line.
func (s *Settings) LoadFile(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return badSetting(path, "the file cannot be read: %v", err)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(s); err != nil && !errors.Is(err, io.EOF) {
		return badSetting(path, "%s", yamlReason(err))
	}
	if err := d.Decode(new(Settings)); !errors.Is(err, io.EOF) {
		return badSetting(path, "the file holds more than one document")
	}
	return nil
}

// unknownKey matches how the decoder complains of a key, which names Go's types.
var unknownKey = regexp.MustCompile(`field (\S+) not found in type \S+`)

// yamlReason says in one line what is wrong, beginning with the line.
func yamlReason(err error) string {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if e := new(yaml.TypeError); errors.As(err, &e) {
		text = strings.Join(e.Errors, "; ")
	}
	if !strings.HasPrefix(text, "line ") {
		text = "line 1: " + text // the decoder leaves the first line's number out
	}
	return unknownKey.ReplaceAllString(text, "there is no setting $1")
}

// environment lists the variables that LoadEnv reads.
func (s *Settings) environment() map[string]*string {
	return map[string]*string{
		"TRADEPOST_DIR": &s.Dir, "TRADEPOST_CITY": &s.City, "TRADEPOST_PRESET": &s.Preset, "TRADEPOST_RAFT_LOG": &s.RaftLog,
		"TRADEPOST_LOG_LEVEL": &s.LogLevel, "TRADEPOST_LOG_FORMAT": &s.LogFormat,
		"TRADEPOST_LISTEN_SYNC": &s.Listen.Sync, "TRADEPOST_LISTEN_RAFT": &s.Listen.Raft,
		"TRADEPOST_LISTEN_HTTP": &s.Listen.HTTP, "TRADEPOST_LISTEN_GOSSIP": &s.Listen.Gossip,
		"TRADEPOST_ADVERTISE_SYNC": &s.Advertise.Sync, "TRADEPOST_ADVERTISE_RAFT": &s.Advertise.Raft,
		"TRADEPOST_ADVERTISE_HTTP": &s.Advertise.HTTP, "TRADEPOST_ADVERTISE_GOSSIP": &s.Advertise.Gossip,
	}
}

// LoadEnv lays the TRADEPOST_ variables over s.
func (s *Settings) LoadEnv(lookup func(string) (string, bool)) {
	for name, into := range s.environment() {
		if v, ok := lookup(name); ok {
			*into = v
		}
	}
}

// Validate checks what does not depend on the node's role.
func (s *Settings) Validate() error {
	if s.Dir == "" {
		return badSetting("dir", "name a directory for the node's data")
	}
	if !slices.Contains([]string{"region", "wide"}, s.Preset) {
		return badSetting("preset", "%q is not region or wide", s.Preset)
	}
	if !slices.Contains([]string{"wal", "bbolt", "memory"}, s.RaftLog) {
		return badSetting("raft_log", "%q is not wal or bbolt", s.RaftLog)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, s.LogLevel) {
		return badSetting("log_level", "%q is not debug, info, warn or error", s.LogLevel)
	}
	if !slices.Contains([]string{"text", "json"}, s.LogFormat) {
		return badSetting("log_format", "%q is not text or json", s.LogFormat)
	}
	if s.Scrub.Every < 0 || s.Scrub.Every > 0 && s.Scrub.Every < time.Minute {
		return badSetting("scrub.every", "%v is not 1m or more, or 0s for no scrub", s.Scrub.Every)
	}
	if s.Scrub.Every > 0 && s.Scrub.MBPerSecond < 1 {
		return badSetting("scrub.mb_per_second", "%d is not 1 or more", s.Scrub.MBPerSecond)
	}
	if s.Protocol > syncproto.MaxVersion {
		return badSetting("protocol", "%d is newer than this program, which speaks %d to %d; leave it out for the newest", s.Protocol, syncproto.MinVersion, syncproto.MaxVersion)
	}
	return s.validateAddresses()
}

func (s *Settings) validateAddresses() error {
	if s.Listen.HTTP == "" {
		return badSetting("listen.http", "every node serves HTTP: give an address such as 127.0.0.1:8400")
	}
	for name, a := range map[string]string{
		"listen.sync": s.Listen.Sync, "listen.raft": s.Listen.Raft, "listen.http": s.Listen.HTTP, "listen.gossip": s.Listen.Gossip,
		"advertise.sync": s.Advertise.Sync, "advertise.raft": s.Advertise.Raft, "advertise.http": s.Advertise.HTTP, "advertise.gossip": s.Advertise.Gossip,
	} {
		_, port, err := net.SplitHostPort(a)
		if a == "" {
			continue
		}
		if err != nil {
			return badSetting(name, "%q is not host:port: %v", a, err)
		}
		if _, err := net.LookupPort("tcp", port); err != nil {
			return badSetting(name, "%q has no port from 0 to 65535", a)
		}
	}
	return nil
}

// advertised returns the address others use, given what is listened on.
func advertised(advertise, listen string) string {
	if advertise != "" {
		return advertise
	}
	return listen
}

func (s *Settings) path(parts ...string) string {
	return filepath.Join(append([]string{s.Dir}, parts...)...)
}
