package node

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"gopkg.in/yaml.v3"

	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/replica"
)

// TestAlerts: every rule says what to do, and asks for metrics that nodes have.
func TestAlerts(t *testing.T) {
	raw, err := os.ReadFile("../configs/prometheus/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr         string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(raw, &file); err != nil || len(file.Groups) == 0 {
		t.Fatalf("%v %+v", err, file)
	}
	known := describedMetrics()
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if r.Alert == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" || !strings.Contains("page ticket", r.Labels["severity"]) {
				t.Errorf("incomplete: %+v", r)
			}
			names := regexp.MustCompile(`tradepost_\w+`).FindAllString(r.Expr, -1)
			for _, name := range names {
				if !strings.Contains(known, `"`+name+`"`) {
					t.Errorf("%s: no node has %s", r.Alert, name)
				}
			}
			if len(names) == 0 {
				t.Errorf("%s asks for nothing", r.Alert)
			}
		}
	}
}

func describedMetrics() string {
	var out strings.Builder
	of := func(register func(*prometheus.Registry)) {
		reg := prometheus.NewRegistry()
		register(reg)
		descs := make(chan *prometheus.Desc)
		go func() { defer close(descs); reg.Describe(descs) }()
		for d := range descs {
			out.WriteString(d.String())
		}
	}
	of(func(r *prometheus.Registry) { replica.NewMetrics(r) })
	of(func(r *prometheus.Registry) { master.NewMetrics(r) })
	of(func(r *prometheus.Registry) { r.MustRegister(scrubEnded()) })
	return out.String()
}
