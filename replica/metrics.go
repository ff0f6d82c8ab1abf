package replica

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	serving "github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// Metrics are the replica's collectors. The zero value is not usable; see
// [NewMetrics].
type Metrics struct {
	outboxDepth, outboxBytes, outboxAge  prometheus.Gauge
	shipped                              prometheus.Counter
	rejected                             *prometheus.CounterVec
	shipTime                             prometheus.Histogram
	lagSeconds, lagEntries, appliedIndex prometheus.Gauge
	bytes, resync, refused               *prometheus.CounterVec
	ackTime                              *prometheus.HistogramVec
	visible                              prometheus.Histogram
	mismatch, lostEdits                  prometheus.Counter
	verified                             prometheus.Gauge
	commitTime, batchSize                *prometheus.HistogramVec
	clockOffset                          prometheus.Gauge
	rtt                                  prometheus.Observer

	suspect, suspectAge                        prometheus.Gauge
	suspectSeconds                             prometheus.Counter
	repaired, repairedBuckets, repairedRecords prometheus.Counter
	incurable                                  prometheus.Counter
	damage                                     *prometheus.CounterVec
	failedSyncs                                *prometheus.CounterVec
	inDoubt                                    *prometheus.GaugeVec

	upstreamRTT, upstreamUsed *prometheus.GaugeVec
	upstreamChanges           *prometheus.CounterVec
	relaySessions             prometheus.Gauge
	relayTrouble              prometheus.Gauge
	relayBytes                *prometheus.CounterVec
	relayItems, relayGreeted  *prometheus.CounterVec
}

// NewMetrics makes the collectors and registers them with reg; nil registers
// them nowhere. It panics if reg has collectors of these names.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		outboxDepth:     gauge("outbox_depth", "Mutations that no master has decided."),
		outboxBytes:     gauge("outbox_bytes", "Bytes of the Mutations that no master has decided."),
		outboxAge:       gauge("outbox_oldest_age_seconds", "Age of the oldest Mutation that no master has decided."),
		shipped:         counter("outbox_shipped_total", "Mutations a master has taken into its log."),
		rejected:        counters("outbox_rejected_total", "Mutations a master rejected.", "reason"),
		shipTime:        histogram("outbox_ship_duration_seconds", "From the local acknowledgement to the master's log."),
		lagSeconds:      gauge("replication_lag_seconds", "How long ago the base was known to be the master's head."),
		lagEntries:      gauge("replication_lag_entries", "Revs between the master's head and the Cursor."),
		appliedIndex:    gauge("replication_applied_index", "The Cursor: the last Rev applied."),
		bytes:           counters("replication_bytes_total", "Compressed bytes of sessions, without TLS.", "dir"),
		resync:          counters("replication_resync_total", "Times records were asked for again.", "reason"),
		refused:         counters("replication_refused_total", "Frames of masters that were refused, by the code of the reason.", "reason"),
		ackTime:         histograms("write_ack_duration_seconds", "From the request to the promise given to the user.", "level"),
		visible:         histogram("write_visible_seconds", "From the edit at another site to its being readable here."),
		mismatch:        counter("state_hash_mismatch_total", "Digests of territories that were not the master's."),
		lostEdits:       counter("restore_lost_edits_total", "Edits held here that the restored masters lack and no node will send again."),
		verified:        gauge("state_verified_index", "The last Rev at which all digests were the master's."),
		commitTime:      histograms("store_commit_duration_seconds", "Of a bbolt transaction: writing and syncing.", "db"),
		batchSize:       histograms("store_write_batch_size", "Mutations or records written in one transaction.", "db"),
		suspect:         gauge("state_suspect_territories", "Territories that are not known to be the masters' and wait for a repair."),
		suspectAge:      gauge("state_suspect_age_seconds", "For how long the first of them has been suspect."),
		suspectSeconds:  counter("state_suspect_seconds_total", "Time from suspicion to cure, of all territories repaired."),
		repaired:        counter("state_repaired_total", "Territories repaired."),
		repairedBuckets: counter("state_repaired_buckets_total", "Buckets of territories that were fetched again in repairs."),
		repairedRecords: counter("state_repaired_records_total", "Records that repairs changed, added or removed."),
		incurable:       counter("state_incurable_total", "Times repairs did not make a territory the masters'."),
		damage:          counters("store_damage_total", "Findings of the scrub and of readers: stored bytes that cannot be right.", "db"),
		failedSyncs:     counters("store_sync_failures_total", "Writes that can be seen in a file and that the disk did not confirm.", "db"),
		inDoubt:         gauges("store_in_doubt", "1 while a file takes no writes because the disk has not confirmed an earlier one.", "db"),
		clockOffset:     gauge("clock_offset_seconds", "How far the master's clock is ahead of this node's."),

		upstreamRTT:     gauges("upstream_rtt_seconds", "Smoothed round trip to each node that may serve this one; NaN: it did not answer when last asked.", "address"),
		upstreamUsed:    gauges("upstream_in_use", "1 for the node in session, 0 for the others that may serve this one.", "address"),
		upstreamChanges: counters("upstream_changes_total", "Sessions that ended, by why: another node was nearer, or the session was lost.", "reason"),
		relaySessions:   gauge("relay_sessions", "Nodes that this relay serves."),
		relayTrouble:    gauge("relay_trouble", "1 if this relay can serve nobody: it has no data, no way up, or a base that is being repaired."),
		relayBytes:      counters("relay_bytes_total", "Compressed bytes of the sessions that this relay serves, without TLS.", "peer_site", "dir"),
		relayItems:      counters("relay_items_total", "Records that this relay sent to the nodes it serves.", "kind"),
		relayGreeted:    counters("relay_handshakes_total", "Nodes that came to this relay, by what it answered.", "result"),
	}
	rtt := prometheus.NewHistogramVec(histogramOpts("wan_rtt_seconds", "Round trips to other sites."), []string{"peer_site", "proto"})
	m.rtt = rtt.WithLabelValues("masters", "sync")
	if reg != nil {
		reg.MustRegister(rtt, m.outboxDepth, m.outboxBytes, m.outboxAge, m.shipped, m.rejected, m.shipTime, m.lagSeconds, m.lagEntries,
			m.appliedIndex, m.bytes, m.resync, m.refused, m.ackTime, m.visible, m.mismatch, m.lostEdits, m.verified, m.commitTime, m.batchSize, m.clockOffset,
			m.suspect, m.suspectAge, m.suspectSeconds, m.repaired, m.repairedBuckets, m.repairedRecords, m.incurable, m.damage, m.failedSyncs, m.inDoubt,
			m.upstreamRTT, m.upstreamUsed, m.upstreamChanges, m.relaySessions, m.relayTrouble, m.relayBytes, m.relayItems, m.relayGreeted)
	}
	return m
}

// below returns what a relay measures of the nodes it serves.
func (m *Metrics) below() serving.Observer {
	return serving.Observer{
		Handshake: func(answer syncproto.Kind) { m.relayGreeted.WithLabelValues(answer.String()).Inc() },
		Batch: func(b *syncproto.Batch) {
			for i := range b.Items {
				m.relayItems.WithLabelValues(b.Items[i].Kind.String()).Inc()
			}
		},
		Bytes: func(site string, in, out int64) {
			m.relayBytes.WithLabelValues(site, "in").Add(float64(in))
			m.relayBytes.WithLabelValues(site, "out").Add(float64(out))
		},
	}
}

// showCandidates shows who may serve this node, and nobody else.
func (m *Metrics) showCandidates(list []Candidate) {
	m.upstreamRTT.Reset()
	m.upstreamUsed.Reset()
	for _, c := range list {
		rtt, used := c.RTT.Seconds(), 0.0
		if c.Down {
			rtt = math.NaN()
		}
		if c.InUse {
			used = 1
		}
		if c.Down || c.RTT > 0 {
			m.upstreamRTT.WithLabelValues(c.Address).Set(rtt)
		}
		m.upstreamUsed.WithLabelValues(c.Address).Set(used)
	}
}

// commits returns the observer of a file's commits.
func (m *Metrics) commits(db string) func(store.CommitStats) {
	h := m.commitTime.WithLabelValues(db)
	return func(c store.CommitStats) { h.Observe(c.Duration.Seconds()) }
}

// doubted counts a sync that failed, or with nil notes that what it was for is
// durable after all.
func (m *Metrics) doubted(db string, err error) {
	if err == nil {
		m.inDoubt.WithLabelValues(db).Set(0)
		return
	}
	m.failedSyncs.WithLabelValues(db).Inc()
	m.inDoubt.WithLabelValues(db).Set(1)
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "tradepost", Name: name, Help: help})
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "tradepost", Name: name, Help: help})
}

func gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "tradepost", Name: name, Help: help}, labels)
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "tradepost", Name: name, Help: help}, labels)
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
