package main

import "testing"

// TestData compares the data set with the facts known of it.
func TestData(t *testing.T) {
	d := makeData(42, 1, 100_000)
	for _, c := range []struct {
		table     string
		got, want int
	}{
		{"accounts", len(d.accounts), 100_000}, {"contacts", len(d.contacts), 100_000}, {"opportunities", len(d.opportunities), 50_000},
		{"orders", len(d.orders), 100_000}, {"lines", len(d.lines), 299_691}, {"activities", len(d.activities), 300_000},
	} {
		if c.got-1 != c.want {
			t.Errorf("%d %s, want %d", c.got-1, c.table, c.want)
		}
	}
	if got, want := d.revenue(), (answer{rows: 432, n: 239_161, cents: 116_498_832_561}); got != want {
		t.Errorf("revenue is %+v, want %+v", got, want)
	}
}
