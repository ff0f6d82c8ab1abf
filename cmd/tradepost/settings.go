package main

import (
	"log/slog"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tradepost-crm/tradepost/node"
)

// settingsFlags are the flags of the commands that make or run a node. A flag
// beats the environment, which beats the file, which beats the default.
type settingsFlags struct {
	config      string
	given       node.Settings
	openMetrics bool
	relay       bool
}

// A settingFlag is a flag for one text of the settings.
type settingFlag struct {
	name, help string
	of         func(*node.Settings) *string
}

var settingFlags = []settingFlag{
	{"dir", "directory of the node's data", func(s *node.Settings) *string { return &s.Dir }},
	{"http", "listen here for people and programs", func(s *node.Settings) *string { return &s.Listen.HTTP }},
	{"sync", "master or relay: listen here for replicas, at a master also for joining nodes", func(s *node.Settings) *string { return &s.Listen.Sync }},
	{"raft", "master: listen here for the other masters", func(s *node.Settings) *string { return &s.Listen.Raft }},
	{"gossip", "listen here for discovery, UDP and TCP; empty: no gossip", func(s *node.Settings) *string { return &s.Listen.Gossip }},
	{"advertise-http", "address that others reach --http at", func(s *node.Settings) *string { return &s.Advertise.HTTP }},
	{"advertise-sync", "address that others reach --sync at", func(s *node.Settings) *string { return &s.Advertise.Sync }},
	{"advertise-raft", "address that others reach --raft at", func(s *node.Settings) *string { return &s.Advertise.Raft }},
	{"advertise-gossip", "address that others reach --gossip at", func(s *node.Settings) *string { return &s.Advertise.Gossip }},
	{"city", "city, shown beside the node", func(s *node.Settings) *string { return &s.City }},
	{"country", "ISO 3166 code of the country, shown beside the city", func(s *node.Settings) *string { return &s.Country }},
	{"preset", "master: Raft timing, region or wide", func(s *node.Settings) *string { return &s.Preset }},
	{"raft-log", "master: Raft log store, wal or bbolt", func(s *node.Settings) *string { return &s.RaftLog }},
	{"log-level", "debug, info, warn or error", func(s *node.Settings) *string { return &s.LogLevel }},
	{"log-format", "text or json", func(s *node.Settings) *string { return &s.LogFormat }},
}

func (sf *settingsFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&sf.config, "config", "", "YAML file of settings (default: $TRADEPOST_CONFIG, or none)")
	defaults := node.DefaultSettings()
	for _, s := range settingFlags {
		f.StringVar(s.of(&sf.given), s.name, *s.of(&defaults), s.help)
	}
	f.BoolVar(&sf.openMetrics, "open-metrics", false, "serve /metrics without a token")
	f.BoolVar(&sf.relay, "relay", false, "replica: serve other replicas at --sync, as a relay")
	complete(cmd, "preset", "region", "wide")
	complete(cmd, "raft-log", "wal", "bbolt")
	complete(cmd, "log-level", "debug", "info", "warn", "error")
	complete(cmd, "log-format", "text", "json")
}

// settings lays file, environment and flags over the defaults.
func (c *cli) settings(sf *settingsFlags, flags *pflag.FlagSet) (node.Settings, error) {
	s := node.DefaultSettings()
	path := sf.config
	if path == "" {
		path, _ = c.lookup("TRADEPOST_CONFIG")
	}
	if path != "" {
		if err := s.LoadFile(path); err != nil {
			return s, err
		}
	}
	s.LoadEnv(c.lookup)
	for _, f := range settingFlags {
		if flags.Changed(f.name) {
			*f.of(&s) = *f.of(&sf.given)
		}
	}
	if flags.Changed("open-metrics") {
		s.OpenMetrics = sf.openMetrics
	}
	if flags.Changed("relay") {
		s.Relay = sf.relay
	}
	return s, s.Validate()
}

// next is the command that runs the node just made, with what these flags say
// of it: they are not kept in its directory.
func (sf *settingsFlags) next(dir string, flags *pflag.FlagSet) string {
	line := "tradepost serve --dir " + shellWord(dir)
	flags.Visit(func(f *pflag.Flag) {
		switch {
		case f.Name == "dir":
		case f.Name == "open-metrics", f.Name == "relay":
			line += " --" + f.Name
		case f.Name == "config", slices.ContainsFunc(settingFlags, func(s settingFlag) bool { return s.name == f.Name }):
			line += " --" + f.Name + " " + shellWord(f.Value.String())
		}
	})
	return line
}

// shellWord quotes s where a shell would take it apart.
func shellWord(s string) string {
	plain := func(r rune) bool {
		return strings.ContainsRune("-_./:@%+=,", r) || unicode.IsLetter(r) || unicode.IsDigit(r)
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// logger returns the log of a node: standard error, as standard output is data.
func (c *cli) logger(s node.Settings) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.LogLevel)); err != nil {
		panic("log level " + s.LogLevel + " was validated") // by Settings.Validate
	}
	options := &slog.HandlerOptions{Level: level}
	if s.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(c.stderr, options))
	}
	return slog.New(slog.NewTextHandler(c.stderr, options))
}
