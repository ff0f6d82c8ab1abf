package clustertest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/devcluster"
	"github.com/tradepost-crm/tradepost/httpapi"
	"github.com/tradepost-crm/tradepost/node"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/wansim"
)

// patience bounds what a command waits for, in virtual time.
const patience = time.Hour

// A world is a cluster and what a script calls its parts.
type world struct {
	dir     string
	rand    *rand.ChaCha8
	c       *devcluster.Cluster
	desks   map[string]*devcluster.Desk
	ids     map[string]crm.RecordID // by "entity/alias"
	screens map[string]crm.Token    // by clerk, node and record: what an open page shows
	copies  map[string]string       // by node: a copy of its disk
	lines   lines                   // between cities that are not as far from each other as all are
	edits   map[string][]crm.Seq    // by node: what was acknowledged, in order
	printed strings.Builder
}

func newWorld(dir string, seed uint64) *world {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return &world{
		dir: dir, rand: rand.NewChaCha8(key), desks: map[string]*devcluster.Desk{}, ids: map[string]crm.RecordID{},
		screens: map[string]crm.Token{}, copies: map[string]string{}, edits: map[string][]crm.Seq{},
	}
}

// start makes the cluster. Sites of spare have a city, but no node yet.
func (w *world) start(ctx context.Context, o devcluster.Options, rtt time.Duration, spare ...string) (err error) {
	if w.c != nil {
		return errors.New("there is a cluster already")
	}
	if o.Matrix, err = matrix(rtt, w.lines, slices.Concat(o.Cities, spare)); err != nil {
		return err
	}
	o.Virtual, o.Dir = true, filepath.Join(w.dir, "cluster")
	w.c, err = devcluster.New(ctx, o, node.Env{Logger: logger()})
	return err
}

// regionRTT is the round trip between two masters.
const regionRTT = 8 * time.Millisecond

// lines are round trips between two cities, by "a:b" and by "b:a".
type lines map[string]time.Duration

// parseLines reads "a:b:5ms,a:c:7ms".
func parseLines(text string) (lines, error) {
	out := lines{}
	for _, line := range commas(text) {
		parts := strings.Split(line, ":")
		if len(parts) != 3 {
			return nil, fmt.Errorf("line %q is not a:b:rtt", line)
		}
		rtt, err := time.ParseDuration(parts[2])
		if err != nil {
			return nil, err
		}
		out[parts[0]+":"+parts[1]], out[parts[1]+":"+parts[0]] = rtt, rtt
	}
	return out, nil
}

// matrix puts three cities for masters close to each other and all others rtt
// from everybody, but for the lines.
func matrix(rtt time.Duration, lines lines, cities []string) (*wansim.Matrix, error) {
	region := []string{"hq-one", "hq-two", "hq-three"}
	all := slices.Concat(region, cities)
	var table strings.Builder
	table.WriteString("from,to,rtt_ms\n")
	for i, a := range all {
		for j, b := range all[:i] {
			d := rtt
			if i < len(region) && j < len(region) {
				d = min(rtt, regionRTT)
			}
			if line, ok := lines[a+":"+b]; ok {
				d = line
			}
			fmt.Fprintf(&table, "%s,%s,%d\n", a, b, d.Milliseconds())
		}
	}
	return wansim.ParseMatrix(strings.NewReader(table.String()), "script")
}

// logger is silent unless TRADEPOST_TEST_LOG is set.
func logger() *slog.Logger {
	if os.Getenv("TRADEPOST_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func (w *world) close() error {
	for _, d := range w.desks {
		d.Close()
	}
	if w.c == nil {
		return nil
	}
	return w.c.Close()
}

// broken returns why a node stopped by itself, nil if none did.
func (w *world) broken() error {
	if w.c == nil {
		return nil
	}
	return w.c.Failure()
}

func (w *world) printf(format string, args ...any) { fmt.Fprintf(&w.printed, format+"\n", args...) }

// node returns a member by its name; hq is the master that leads.
func (w *world) node(ctx context.Context, name string) (*devcluster.Member, error) {
	if name == "hq" {
		return w.c.Leader(ctx)
	}
	return w.c.Member(name)
}

func (w *world) api(ctx context.Context, name string) (httpapi.Node, error) {
	m, err := w.node(ctx, name)
	if err != nil {
		return nil, err
	}
	return m.API()
}

// client is how somebody beside the node uses its HTTP API.
func (w *world) client(ctx context.Context, name string) (*httpapi.Client, error) {
	m, err := w.node(ctx, name)
	if err != nil {
		return nil, err
	}
	if w.desks[m.Name] == nil {
		w.desks[m.Name] = w.c.Desk(m)
	}
	return w.desks[m.Name].To(m)
}

// read looks at what the node shows now.
func (w *world) read(ctx context.Context, name string, fn func(*store.Reader) error) error {
	api, err := w.api(ctx, name)
	if err != nil {
		return err
	}
	_, err = api.Read(ctx, crm.Demand{Level: crm.Local}, fn)
	return err
}

// id returns the record called so, and makes an id for a new name.
func (w *world) id(name string) crm.RecordID {
	if _, ok := w.ids[name]; !ok {
		w.ids[name] = crm.NewRecordID(time.Now(), w.rand)
	}
	return w.ids[name]
}

// name returns what the script calls the record, its title if nothing.
func (w *world) name(entity, id string) string {
	for name, known := range w.ids {
		if known.String() == id && strings.HasPrefix(name, entity+"/") {
			return name
		}
	}
	return entity
}

var recordID = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// plain replaces ids by names.
func (w *world) plain(text string) string {
	return recordID.ReplaceAllStringFunc(text, func(id string) string {
		for name, known := range w.ids {
			if known.String() == id {
				return name
			}
		}
		return "<id>"
	})
}

// problem writes an error as a script shows it.
func (w *world) problem(err error) string {
	if e, ok := errors.AsType[*crm.Error](err); ok {
		return w.plain(string(e.Code) + ": " + e.Message)
	}
	return w.plain(err.Error())
}
