package replica

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tradepost-crm/tradepost/store"
)

// Metrics are the replica's collectors. The zero value is not usable; see
// [NewMetrics].
type Metrics struct {
	outboxDepth, outboxBytes, outboxAge  prometheus.Gauge
	shipped                              prometheus.Counter
	rejected                             *prometheus.CounterVec
	shipTime                             prometheus.Histogram
	lagSeconds, lagEntries, appliedIndex prometheus.Gauge
	bytes, resync                        *prometheus.CounterVec
	ackTime                              *prometheus.HistogramVec
	visible                              prometheus.Histogram
	mismatch, lostEdits                  prometheus.Counter
	verified                             prometheus.Gauge
	commitTime, batchSize                *prometheus.HistogramVec
	clockOffset                          prometheus.Gauge
	rtt                                  prometheus.Observer
}

// NewMetrics makes the collectors and registers them with reg; nil registers
// them nowhere. It panics if reg has collectors of these names.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		outboxDepth:  gauge("outbox_depth", "Mutations that no master has decided."),
		outboxBytes:  gauge("outbox_bytes", "Bytes of the Mutations that no master has decided."),
		outboxAge:    gauge("outbox_oldest_age_seconds", "Age of the oldest Mutation that no master has decided."),
		shipped:      prometheus.NewCounter(prometheus.CounterOpts{Namespace: "tradepost", Name: "outbox_shipped_total", Help: "Mutations a master has taken into its log."}),
		rejected:     counters("outbox_rejected_total", "Mutations a master rejected.", "reason"),
		shipTime:     histogram("outbox_ship_duration_seconds", "From the local acknowledgement to the master's log."),
		lagSeconds:   gauge("replication_lag_seconds", "How long ago the base was known to be the master's head."),
		lagEntries:   gauge("replication_lag_entries", "Revs between the master's head and the Cursor."),
		appliedIndex: gauge("replication_applied_index", "The Cursor: the last Rev applied."),
		bytes:        counters("replication_bytes_total", "Compressed bytes of sessions, without TLS.", "dir"),
		resync:       counters("replication_resync_total", "Times records were asked for again.", "reason"),
		ackTime:      histograms("write_ack_duration_seconds", "From the request to the promise given to the user.", "level"),
		visible:      histogram("write_visible_seconds", "From the edit at another site to its being readable here."),
		mismatch:     prometheus.NewCounter(prometheus.CounterOpts{Namespace: "tradepost", Name: "state_hash_mismatch_total", Help: "Digests of territories that were not the master's."}),
		lostEdits:    prometheus.NewCounter(prometheus.CounterOpts{Namespace: "tradepost", Name: "restore_lost_edits_total", Help: "Edits held here that the restored masters lack and no node will send again."}),
		verified:     gauge("state_verified_index", "The last Rev at which all digests were the master's."),
		commitTime:   histograms("store_commit_duration_seconds", "Of a bbolt transaction: writing and syncing.", "db"),
		batchSize:    histograms("store_write_batch_size", "Mutations or records written in one transaction.", "db"),
		clockOffset:  gauge("clock_offset_seconds", "How far the master's clock is ahead of this node's."),
	}
	rtt := prometheus.NewHistogramVec(histogramOpts("wan_rtt_seconds", "Round trips to other sites."), []string{"peer_site", "proto"})
	m.rtt = rtt.WithLabelValues("masters", "sync")
	if reg != nil {
		reg.MustRegister(rtt, m.outboxDepth, m.outboxBytes, m.outboxAge, m.shipped, m.rejected, m.shipTime, m.lagSeconds, m.lagEntries,
			m.appliedIndex, m.bytes, m.resync, m.ackTime, m.visible, m.mismatch, m.lostEdits, m.verified, m.commitTime, m.batchSize, m.clockOffset)
	}
	return m
}

// commits returns the observer of a file's commits.
func (m *Metrics) commits(db string) func(store.CommitStats) {
	h := m.commitTime.WithLabelValues(db)
	return func(c store.CommitStats) { h.Observe(c.Duration.Seconds()) }
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "tradepost", Name: name, Help: help})
}

func counters(name, help, label string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "tradepost", Name: name, Help: help}, []string{label})
}

func histogram(name, help string) prometheus.Histogram {
	return prometheus.NewHistogram(histogramOpts(name, help))
}

func histograms(name, help, label string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(histogramOpts(name, help), []string{label})
}

// histogramOpts asks for classic buckets, 1 ms to 10 s or 1 to 4,096 for sizes,
// and for native ones.
func histogramOpts(name, help string) prometheus.HistogramOpts {
	o := prometheus.HistogramOpts{Namespace: "tradepost", Name: name, Help: help,
		Buckets:                     []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour}
	if name == "store_write_batch_size" {
		o.Buckets = prometheus.ExponentialBuckets(1, 2, 13)
	}
	return o
}
