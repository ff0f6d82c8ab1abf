package httpapi

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tradepost-crm/tradepost/crm"
)

// The closed sets of label values.
var (
	queryKinds   = []string{"point", "list", "search", "attention", "report"}
	querySources = []string{"base", "overlay"} // overlay: some edit of this node is pending
	consistency  = []crm.Level{crm.Local, crm.Session, crm.Bounded, crm.Leader}
	codeClasses  = []string{"1xx", "2xx", "3xx", "4xx", "5xx"}
)

// latencies are buckets in seconds, from a point read to a time-out.
var latencies = []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

type metrics struct {
	requests  *prometheus.HistogramVec // route, method, code_class, role
	inFlight  prometheus.Gauge
	size      prometheus.Histogram
	queries   map[queryLabels]prometheus.Observer
	reports   prometheus.Observer
	scanned   map[string]prometheus.Observer
	staleness map[crm.Level]prometheus.Observer
	bounded   prometheus.Counter
}

type queryLabels struct {
	kind    string
	overlay bool
}

// histogram returns options for a classic and a native histogram in one.
func histogram(name, help string, buckets []float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{Namespace: "tradepost", Name: name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour}
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	bytes := prometheus.ExponentialBuckets(64, 4, 8)
	rows := prometheus.ExponentialBuckets(1, 10, 7)
	ages := []float64{.01, .05, .1, .5, 1, 5, 15, 60, 300, 900, 3600, 6 * 3600, 86400}
	queries := prometheus.NewHistogramVec(histogram("query_duration_seconds", "Time to answer a query, by kind and by whether pending edits lay over the base.", latencies), []string{"kind", "source"})
	scanned := prometheus.NewHistogramVec(histogram("query_rows_scanned", "Records and index rows a query looked at.", rows), []string{"kind"})
	staleness := prometheus.NewHistogramVec(histogram("read_staleness_seconds", "Age of the state a read was answered from.", ages), []string{"consistency"})
	reports := prometheus.NewHistogram(histogram("report_duration_seconds", "Time to answer a report.", latencies))
	m := &metrics{
		requests: prometheus.NewHistogramVec(histogram("http_request_duration_seconds", "Time to answer a request.", latencies), []string{"route", "method", "code_class", "role"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "tradepost", Name: "http_requests_in_flight", Help: "Requests being answered now, streams included."}),
		size:     prometheus.NewHistogram(histogram("http_request_size_bytes", "Size of request bodies.", bytes)),
		bounded:  prometheus.NewCounter(prometheus.CounterOpts{Namespace: "tradepost", Name: "read_bounded_rejected_total", Help: "Bounded reads refused because this node was too far behind."}),
		queries:  map[queryLabels]prometheus.Observer{}, scanned: map[string]prometheus.Observer{}, staleness: map[crm.Level]prometheus.Observer{},
		reports: reports,
	}
	for _, k := range queryKinds {
		for i, source := range querySources {
			m.queries[queryLabels{k, i == 1}] = queries.WithLabelValues(k, source)
		}
		m.scanned[k] = scanned.WithLabelValues(k)
	}
	for _, l := range consistency {
		m.staleness[l] = staleness.WithLabelValues(string(l))
	}
	for _, c := range []prometheus.Collector{m.requests, m.inFlight, m.size, queries, reports, scanned, staleness, m.bounded} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// classes returns the observers of a route, by the first digit of the status less one.
func (m *metrics) classes(route, method, role string) (out [5]prometheus.Observer) {
	for i, class := range codeClasses {
		out[i] = m.requests.WithLabelValues(route, method, class, role)
	}
	return out
}
