package replica

import (
	"slices"
	"testing"

	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/store"
)

// TestCheck_FindsAForeignTerritory: a record of a territory that the site was
// not granted is a finding, whatever brought it here.
func TestCheck_FindsAForeignTerritory(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newScripted(t)
		m.edit(account("acme", text(accTerritory, "north")))
		b := start(t, m, t.TempDir())
		b.sound()
		err := b.base.Update(func(tx *store.Tx) error {
			for rec, err := range tx.Scan(catalog.Account) {
				if err != nil {
					return err
				}
				foreign := rec.Clone()
				foreign.ID[0]++
				foreign.Root, foreign.Territory = foreign.ID, 99
				return tx.Put(foreign)
			}
			t.Fatal("the fixture has no account")
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		findings, err := b.Check(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(findings, func(f Finding) bool { return f.Bucket == "live" && f.File == "base" }) {
			t.Fatalf("findings: %v", findings)
		}
	})
}
