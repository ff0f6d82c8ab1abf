package processtest

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
)

// canaries are names that occur nowhere else: one territory each.
var canaries = map[string]string{"iberia": "Quetzalcoatlus Conservas", "nordic": "Xylotrechus Fjordbruk", "levant": "Zyzzogeton Olive Press"}

// TestTerritories_NoForeignByte: a replica granted one of three territories has
// no byte of the others on its disk, and a territory it loses leaves none.
func TestTerritories_NoForeignByte(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	dir := t.TempDir()
	bin, err := Build(ctx, dir)
	must(t, err)
	c, err := NewCluster(ctx, bin, dir, 1, map[string][]string{"lisbon": {"iberia"}, "oslo": {"nordic"}, "haifa": {"levant"}})
	defer func() { must(t, c.Stop()) }()
	must(t, err)
	head, err := c.Masters[0].Client()
	must(t, err)
	for territory, name := range canaries {
		a, err := head.Create(ctx, "account", httpapi.Fields{"name": name, "territory": territory}, 0)
		must(t, err)
		_, err = head.Create(ctx, "contact", httpapi.Fields{"last_name": name, "account": a.Item.ID}, 0)
		must(t, err)
	}
	own := map[string]string{"r-lisbon": "iberia", "r-oslo": "nordic", "r-haifa": "levant"}
	for _, p := range c.Replicas {
		client, err := p.Client()
		must(t, err)
		must(t, awaitRev(ctx, client, headOf(ctx, t, c)))
		noFindings(ctx, t, p.Name, client)
		for territory, name := range canaries {
			if got := holds(t, p.Dir, name); got != (territory == own[p.Name]) {
				t.Errorf("%s holds bytes of %s: %v", p.Name, territory, got)
			}
		}
	}
	loses(ctx, t, c, head)
}

// loses takes lisbon's territory away and waits for the proof of the purge.
func loses(ctx context.Context, t *testing.T, c *Cluster, head *httpapi.Client) {
	t.Helper()
	if _, err := c.Masters[0].run(ctx, "territory revoke", at(c.Masters[0], "lisbon", "iberia", "--yes")...); err != nil {
		t.Fatal(err)
	}
	must(t, Await(ctx, "the proof of the purge", func() (bool, error) {
		page, _, err := head.Page(ctx, "purge", httpapi.Query{Filter: `site == "lisbon" && territory == "iberia" && left == 0`})
		return err == nil && len(page.Items) == 1, err
	}))
	for _, p := range c.Replicas {
		if p.Name != "r-lisbon" {
			continue
		}
		client, err := p.Client()
		must(t, err)
		must(t, Await(ctx, "the freed pages to go", func() (bool, error) { return !holds(t, p.Dir, canaries["iberia"]), nil }))
		noFindings(ctx, t, p.Name, client)
	}
}

func noFindings(ctx context.Context, t *testing.T, name string, client *httpapi.Client) {
	t.Helper()
	findings, err := client.Check(ctx)
	must(t, err)
	for _, f := range findings {
		t.Errorf("%s: check: %s %s: %s", name, f.Kind, f.Item, f.Message)
	}
}

// holds reports whether any file below dir contains the text, as written or
// folded as the indexes keep it.
func holds(t *testing.T, dir, text string) bool {
	t.Helper()
	found := false
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, s := range append([]string{text, crm.FoldText(text)}, crm.Words(text)...) {
			found = found || bytes.Contains(b, []byte(s)) && len(s) > 6
		}
		return err
	}))
	return found
}
