package clustertest

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/replica"
	"github.com/tradepost-crm/tradepost/store"
)

// A theatre is a world in a test's bubble.
type theatre struct {
	*world
	t   *testing.T
	ctx context.Context
}

// onStage plays in a world of its own.
func onStage(t *testing.T, play func(theatre)) {
	dir := t.TempDir()
	inBubble(t, func(t *testing.T, ctx context.Context) {
		w := newWorld(dir, 1)
		defer func() {
			if err := w.close(); err != nil {
				t.Error(err)
			}
		}()
		play(theatre{w, t, ctx})
	})
}

func (s theatre) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s theatre) do(lines ...string) {
	s.t.Helper()
	s.must(s.play(s.ctx, lines...))
}

// status returns how a branch is.
func (s theatre) status(name string) replica.Status {
	s.t.Helper()
	m, err := s.c.Member(name)
	s.must(err)
	n, err := m.Node()
	s.must(err)
	return n.Replica().Status()
}

// value reads a field of a record at a node.
func (s theatre) value(name string, d crm.Demand, record, field string) (string, error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, 10*time.Second)
	defer cancel()
	api, err := s.api(ctx, name)
	s.must(err)
	var got string
	_, err = api.Read(ctx, d, func(r *store.Reader) error {
		e, err := s.entity(r, record)
		if err != nil {
			return err
		}
		rec, err := r.Record(e.ID, s.id(record))
		if rec != nil {
			got = rec.Value(e.Field(field).ID).String()
		}
		return err
	})
	return got, err
}

// longLine returns how many bytes went between the masters' cities and others.
func (s theatre) longLine() (bytes int64) {
	atHome := func(city string) bool { return strings.HasPrefix(city, "hq-") }
	for _, l := range s.c.Network().Links() {
		if atHome(l.A) != atHome(l.B) {
			bytes += l.BytesAB + l.BytesBA
		}
	}
	return bytes
}

// chain is a tree three deep: masters, region, porto, faro and evora.
var chain = []string{
	"cluster branches=lisbon spare=region,porto,faro,evora rtt=80ms lines=region:porto:10ms,porto:faro:2ms,porto:evora:2ms,region:faro:12ms,region:evora:12ms",
	"territory north", "relay region north key-accounts", "relay porto north", "wait 30s", "join faro north via=porto", "join evora north via=porto",
	`create hq account/one name="One" territory=north`, "settle",
}

// What a region of branches costs on the long line hardly grows with them: the
// records cross it once.
func TestRelay_BytesOverTheLongLine(t *testing.T) {
	cost := map[int]int64{}
	for _, branches := range []int{1, 5} {
		onStage(t, func(s theatre) {
			names := []string{"faro", "evora", "braga", "sines", "tomar"}
			var near []string
			for _, n := range names {
				near = append(near, "region:"+n+":2ms")
			}
			s.do("cluster branches=lisbon spare=region,"+strings.Join(names, ",")+" rtt=80ms lines="+strings.Join(near, ","), "territory north")
			s.fill("north", 2000)
			s.do("settle", "relay region north", "wait 30s")
			for _, n := range names[:branches] {
				s.do("join " + n + " north via=region")
			}
			s.do("settle")
			for i := range 100 {
				s.do(fmt.Sprintf("edit hq account/%d description=%q", i*20, s.text(200)), "wait 300ms")
			}
			s.do("settle")
			for _, n := range names[:branches] {
				if at := s.status(n).Master; at != "region:7400" {
					t.Errorf("%s is in session with %s", n, at)
				}
			}
			cost[branches] = s.longLine()
		})
	}
	t.Logf("over the long line with 1 branch: %d bytes, with 5: %d, %.2f times", cost[1], cost[5], float64(cost[5])/float64(cost[1]))
	if 2*cost[5] >= 3*cost[1] {
		t.Errorf("5 branches cost %d bytes, one %d", cost[5], cost[1])
	}
}

// text returns n letters that do not compress well.
func (s theatre) text(n int) string {
	b := make([]byte, n)
	rng := rand.New(s.rand)
	for i := range b {
		b[i] = "abcdefghijklmnopqrstuvwxyz0123456789"[rng.IntN(36)]
	}
	return string(b)
}

// fill makes account/0 to account/n-1.
func (s theatre) fill(territory string, n int) {
	s.t.Helper()
	for from := 0; from < n; from += 100 {
		var ops [][]string
		for i := from; i < min(from+100, n); i++ {
			ops = append(ops, []string{"create", fmt.Sprintf("account/%d", i), fmt.Sprintf("name=Account %d", i), "territory=" + territory, "description=" + s.text(100)})
		}
		_, err := s.save(s.ctx, "hq", nil, ops...)
		s.must(err)
	}
}

// A base that is lost is filled by a relay while no master can be reached, and
// the branch's edits are decided through it.
func TestRelay_FillsABranchThatReachesNoMaster(t *testing.T) {
	onStage(t, func(s theatre) {
		s.do(chain...)
		s.fill("north", 500)
		s.do("settle", "wait 20m")
		faro, err := s.c.Member("faro")
		s.must(err)
		s.must(faro.Stop())
		s.must(os.Remove(filepath.Join(faro.Dir(), "base.db")))
		for _, up := range []string{"m1", "m2", "m3", "region"} {
			s.do("cut faro " + up)
		}
		before := s.longLine()
		s.must(faro.Start())
		s.do("wait 1m")
		if st := s.status("faro"); !st.Ready || st.Master != "porto:7400" || st.Verified != st.Head {
			t.Errorf("after a minute: %+v", st)
		}
		if crossed := s.longLine() - before; crossed > 20_000 {
			t.Errorf("%d bytes crossed the long line to fill a branch", crossed)
		}
		s.do("edit faro account/one name=Two", "settle")
		if got, err := s.value("hq", crm.Demand{Level: crm.Local}, "account/one", "name"); got != "Two" || err != nil {
			t.Errorf("head office shows %q: %v", got, err)
		}
	})
}

// A branch below two relays reads what the leader has decided when it asks for
// that, and is told how old what it shows is when the masters are out of reach.
func TestRelay_ReadsThroughRelays(t *testing.T) {
	onStage(t, func(s theatre) {
		s.do(chain...)
		for i := range 5 {
			want := fmt.Sprint("name ", i)
			s.do("edit hq account/one name=\"" + want + "\"")
			if got, err := s.value("faro", crm.Demand{Level: crm.Leader}, "account/one", "name"); got != want || err != nil {
				t.Errorf("leader read at faro: %q, %v; want %q", got, err, want)
			}
			s.do("wait 7s")
			s.do("edit hq account/one name=\"" + want + "!\"")
			s.do("wait 3s")
			asked := time.Now()
			if got, err := s.value("faro", crm.Demand{Level: crm.Bounded, MaxStale: 2 * time.Second}, "account/one", "name"); got != want+"!" || err != nil {
				t.Errorf("bounded read at faro: %q, %v; want %q", got, err, want+"!")
			}
			if took := time.Since(asked); took > time.Second {
				t.Errorf("bounded read at faro took %v", took)
			}
		}
		s.do("cut region", "cut porto m1", "cut porto m2", "cut porto m3", "edit hq account/one name=unseen", "wait 20s")
		if st := s.status("faro"); st.Master != "porto:7400" || st.LagSeconds < 15 {
			t.Errorf("20 s after the masters were lost: in session with %s, lag %.0f s", st.Master, st.LagSeconds)
		}
		for _, d := range []crm.Demand{{Level: crm.Leader}, {Level: crm.Bounded, MaxStale: 10 * time.Second}} {
			if got, err := s.value("faro", d, "account/one", "name"); !slices.Contains([]crm.Code{crm.CodeStale, crm.CodeNoLeader, crm.CodeTimeout}, crm.CodeOf(err)) {
				t.Errorf("%s read without a way up: %q, %v", d.Level, got, err)
			}
		}
		s.do("wait 1m")
		if at := s.status("faro").Master; at == "porto:7400" || at == "region:7400" {
			t.Errorf("faro stays at %s, which has no way up", at)
		}
		if got := s.metric("porto", "tradepost_relay_trouble"); got != 1 {
			t.Errorf("porto's trouble is %v", got)
		}
		s.do("heal", "settle", "wait 1m")
		if got := s.metric("porto", "tradepost_relay_trouble"); got != 0 {
			t.Errorf("porto's trouble is %v once it has a way up", got)
		}
	})
}

// metric reads a node's metric that has no labels.
func (s theatre) metric(name, metric string) float64 {
	s.t.Helper()
	client, err := s.client(s.ctx, name)
	s.must(err)
	req, err := http.NewRequestWithContext(s.ctx, http.MethodGet, client.BaseURL+"/metrics", nil)
	s.must(err)
	req.Header.Set("Authorization", "Bearer "+client.Token)
	res, err := client.HTTP.Do(req)
	s.must(err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	s.must(err)
	for line := range strings.Lines(string(body)) {
		if value, ok := strings.CutPrefix(line, metric+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			s.must(err)
			return v
		}
	}
	s.t.Fatalf("%s has no metric %s: %s", name, metric, res.Status)
	return 0
}

// A master without a vote that is made the only one has a vote by its record too:
// it could be removed otherwise, and with it the last copy of the data.
func TestRelay_APromotedFollowerVotes(t *testing.T) {
	onStage(t, func(s theatre) {
		s.do("cluster branches=lisbon spare=madrid", "follow madrid", "settle", "disaster", "promote m4", "settle")
		s.must(s.read(s.ctx, "m4", func(r *store.Reader) error {
			for rec, err := range r.Scan(r.Schema().EntityByID(crm.EntityNode)) {
				if err != nil {
					return err
				}
				role, status, suffrage := rec.Value(crm.NodeRole).Str(), rec.Value(crm.NodeStatus).Str(), rec.Value(crm.NodeSuffrage).Str()
				if role == "master" && status != "removed" && suffrage == "nonvoter" {
					t.Errorf("node %d is the only master, and a %s", rec.Value(crm.NodeNumber).Int(), suffrage)
				}
			}
			return nil
		}))
	})
}

// A relay that dies and comes back costs each branch below one move, whatever time
// passes: nobody goes to and fro.
func TestRelay_NoFlapping(t *testing.T) {
	onStage(t, func(s theatre) {
		s.do(chain...)
		s.do("wait 20m")
		began := map[string]int{}
		for _, n := range []string{"faro", "evora", "porto", "region"} {
			began[n] = s.status(n).Moves
		}
		s.do("crash porto", "wait 2m")
		for _, n := range []string{"faro", "evora"} {
			if at := s.status(n).Master; at != "region:7400" {
				t.Errorf("%s went to %s", n, at)
			}
		}
		s.do("restart porto", "wait 2h", "settle")
		for n, want := range map[string]int{"faro": 1, "evora": 1, "region": 0} {
			if st := s.status(n); st.Moves-began[n] != want {
				t.Errorf("%s moved %d times, want %d; it is at %s of %+v", n, st.Moves-began[n], want, st.Master, st.Candidates)
			}
		}
		if at := s.status("faro").Master; at != "porto:7400" {
			t.Errorf("faro is at %s", at)
		}
	})
}
