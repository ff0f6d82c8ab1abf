package wansim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestWorld(t *testing.T) {
	m := World()
	if len(m.Sites) != 24 {
		t.Errorf("%d sites", len(m.Sites))
	}
	for i, s := range m.Sites {
		if s.City == "" || len(s.Country) != 2 || s.Lat == 0 || s.Lon == 0 {
			t.Errorf("site %+v is not described", s)
		}
		for j := range m.Sites {
			if (m.rtt[i][j] > defaultLocalRTT) != (i != j) {
				t.Errorf("%s to %s: %v", s.Name, m.Sites[j].Name, m.rtt[i][j])
			}
		}
	}
	if got, want := m.RTT("frankfurt", "New York"), 82541800*time.Nanosecond; got != want {
		t.Errorf("Frankfurt to New York takes %v, want %v", got, want)
	}
	if s, err := m.Find("são paulo"); s.Name != "SaoPaulo" || err != nil {
		t.Errorf("São Paulo is %v, %v", s, err)
	}
}

func TestMatrix_RegionAndSpread(t *testing.T) {
	m := World()
	region := m.Region()
	if want := []string{"Amsterdam", "London", "Paris"}; !slices.Equal(region, want) {
		t.Errorf("region %v, want %v", region, want)
	}
	spread := m.Spread(8)
	continents := map[string]bool{}
	continent := map[string]string{"AU": "Oceania", "JP": "Asia", "SG": "Asia", "IN": "Asia", "HK": "Asia", "AE": "Asia", "BR": "South America", "AR": "South America", "ZA": "Africa", "NG": "Africa", "KE": "Africa", "US": "North America", "MX": "North America", "CA": "North America"}
	for _, name := range spread {
		s, err := m.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		continents[continent[s.Country]] = true
	}
	if len(continents) < 5 {
		t.Errorf("%v lie on %d continents", spread, len(continents))
	}
	all := m.Spread(100)
	if len(all) != 24 || !slices.Equal(all[:8], spread) || all[23] != region[0] {
		t.Errorf("Spread(100) = %v", all)
	}
	if got := slices.Compact(slices.Sorted(slices.Values(all))); len(got) != 24 {
		t.Errorf("Spread(100) repeats itself: %v", all)
	}
	two := Uniform(ms, "a", "b")
	if got := fmt.Sprint(two.Region(), two.Spread(5), two.Spread(0)); got != "[a b] [b a] []" {
		t.Errorf("of two sites: %s", got)
	}
}

func TestMatrix_Subset(t *testing.T) {
	m, err := World().Subset("TOKYO", "new york", "Lagos")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := m.RTT("Tokyo", "Lagos"), World().RTT("Tokyo", "Lagos"); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := m.Sites[1].Name; got != "NewYork" {
		t.Errorf("second site is %q", got)
	}
	for names, want := range map[string]string{
		"Tokio":       `no site "Tokio"; names like it: Tokyo, `,
		"Tokyo,tokyo": "Tokyo is named twice",
	} {
		_, err := World().Subset(strings.Split(names, ",")...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Subset(%s): got %v, want %q", names, err, want)
		}
	}
	wantPanic(t, "no site", func() { m.RTT("Tokyo", "Oslo") })
}

func TestParseMatrix(t *testing.T) {
	for name, text := range map[string]string{
		"square":       "region,oslo,pune\noslo,0.3,141.5\npune,140.9,0.2\n",
		"rows swapped": "\ufeffregion, Oslo ,pune\n# rows in any order\nPUNE,140.9,0.2\noslo,0.3,141.5\n",
		"long":         "from,to,rtt_ms\noslo,oslo,0.3\noslo,pune,141.5\npune,oslo,140.9\npune,pune,.2",
	} {
		m, err := ParseMatrix(strings.NewReader(text), name)
		if err != nil {
			t.Error(err)
			continue
		}
		want := [][]time.Duration{{300 * time.Microsecond, 141500 * time.Microsecond}, {140900 * time.Microsecond, 200 * time.Microsecond}}
		if diff := cmp.Diff(want, m.rtt); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestParseMatrix_FillsFromTheOtherDirection(t *testing.T) {
	for _, text := range []string{
		"x,a,b\na,,7\nb,,\n", "x,a,b\na,,7\n",
		"from,to,rtt_ms\na,b,7\n", "from,to,rtt_ms\nb,a,\na,b,7\n",
	} {
		m := mustParse(t, text)
		if m.RTT("b", "a") != 7*ms || m.RTT("a", "b") != 7*ms || m.RTT("a", "a") != defaultLocalRTT {
			t.Errorf("%q gives %v", text, m.rtt)
		}
	}
}

func TestParseMatrix_Errors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                 "f.csv: no header line",
		"from,to,rtt_ms\n":                 "f.csv: no sites",
		"x\n":                              "f.csv: no sites",
		"x,a,\n":                           "f.csv:1:5: a site without a name",
		"x,a,b,A\n":                        `f.csv:1:7: column "A" is there twice`,
		"x,a,b\na,0,1\nc,1,0\n":            `f.csv:3:1: row "c" has no column of that name`,
		"x,a,b\na,0,1\na,0,1\n":            `f.csv:3:1: row "a" is there twice`,
		"x,a,b\na,0\n":                     `f.csv:2:3: row "a" ends after 2 fields, want 3 as in the header`,
		"x,a,b\na,0,-1\n":                  `f.csv:2:5: round trip "-1" is negative`,
		"x,a,b\na,0,fast\n":                `f.csv:2:5: round trip "fast" is not a number of milliseconds`,
		"x,a,b\na,0,NaN\n":                 `f.csv:2:5: round trip "NaN" is not a number of milliseconds`,
		"x,a,b\na,0,Inf\n":                 `f.csv:2:5: round trip "Inf" is over 600000 ms`,
		"x,a,b\na,0,1e9\n":                 `f.csv:2:5: round trip "1e9" is over 600000 ms`,
		"x,a,b\na,0,\nb,,0\n":              "f.csv: no round trip between a and b in either direction",
		"from,to,rtt_ms\na,b,1\nb,c,1\n":   "f.csv: no round trip between a and c in either direction",
		"from,to,rtt_ms\na,b,1\n\na,b,2\n": "f.csv:4:1: a to b is there twice",
		"from,to,rtt_ms\na,b\n":            "f.csv:2:3: 2 fields, want from,to,rtt_ms",
		"from,to,rtt_ms\n,b,1\n":           "f.csv:2:1: a site without a name",
		"from,to,rtt_ms\na,b,1,5\n":        "f.csv:2:7: 4 fields, want from,to,rtt_ms",
		"from,to,rtt_ms\na,\"b\n":          `f.csv:2:6: extraneous or missing " in quoted-field`,
		"x,a\"":                            `f.csv:1:4: bare " in non-quoted-field`,
		"x" + columns(1001):                "f.csv:1:4893: more than 1000 sites",
	} {
		_, err := ParseMatrix(strings.NewReader(text), "f.csv")
		if err == nil || err.Error() != "wansim: "+want {
			t.Errorf("%.40q: got %v, want %s", text, err, want)
		}
	}
}

func columns(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ",s%d", i)
	}
	return b.String()
}

func FuzzParseMatrix(f *testing.F) {
	for _, seed := range []string{worldRTT, slope, "x,a,b\na,,7\nb,,\n", "x,a\na,-1\n", "from,to,rtt_ms\na,\"b\n", "\ufeffx,a,A\n", "#\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseMatrix(strings.NewReader(text), "fuzz.csv")
		if err != nil {
			if m != nil || !strings.HasPrefix(err.Error(), "wansim: fuzz.csv:") {
				t.Fatalf("%v, %v", m, err)
			}
			return
		}
		for i, s := range m.Sites {
			if at, err := m.find(s.Name); at != i || err != nil {
				t.Fatalf("site %d %q is found at %d, %v", i, s.Name, at, err)
			}
			for j := range m.Sites {
				if d := m.rtt[i][j]; d < 0 || d > maxRTT {
					t.Fatalf("%s to %s: %v", s.Name, m.Sites[j].Name, d)
				}
			}
		}
	})
}
