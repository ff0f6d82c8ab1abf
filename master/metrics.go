package master

import (
	"strconv"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/gossip"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// Metrics are a master's collectors. The zero value is not usable; see
// [NewMetrics].
type Metrics struct {
	isLeader, hasLeader, term            prometheus.Gauge
	leaderChanges                        prometheus.Counter
	decided, applied, appended           prometheus.Histogram
	snapshot                             *prometheus.HistogramVec
	commit, batch                        *prometheus.HistogramVec
	size, freePages, openReads           *prometheus.GaugeVec
	lagSeconds, lagEntries, appliedIndex prometheus.Gauge
	connected                            prometheus.Gauge
	peerLag                              *prometheus.GaugeVec
	bytes, items, refused                *prometheus.CounterVec
	ack, rtt                             *prometheus.HistogramVec
	handshakes, conflicts                *prometheus.CounterVec
	unresolved                           prometheus.Gauge
	mismatch, frozen, panicked           prometheus.Counter
	members                              *prometheus.GaugeVec
	health, backup                       prometheus.Gauge
	joins                                *prometheus.CounterVec
	verified, distrusted                 prometheus.Counter
	repairs                              *prometheus.CounterVec
}

// NewMetrics makes the collectors and registers them with reg; nil registers
// them nowhere. It panics if reg has collectors of these names.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	attempts := counters("auth_attempts_total", "Attempts to join or to open a session, by how they ended.", "method", "result")
	m := &Metrics{
		isLeader:      gauge("raft_is_leader", "1 if this master leads."),
		hasLeader:     gauge("raft_has_leader", "1 if this master knows who leads."),
		term:          gauge("raft_term", "Raft's current term."),
		leaderChanges: counter("raft_leader_changes_total", "Leaders found or lost."),
		decided:       histogram("raft_commit_duration_seconds", "From proposing an entry to its outcome."),
		applied:       histogram("raft_fsm_apply_duration_seconds", "Evaluation of a batch of entries."),
		appended:      histogram("raft_log_append_duration_seconds", "An append to the Raft log, with its fsync."),
		snapshot:      histograms("raft_snapshot_duration_seconds", "A snapshot taken, sent or installed.", "op"),
		commit:        histograms("store_commit_duration_seconds", "Of a bbolt transaction: writing and syncing.", "db"),
		batch:         histograms("store_write_batch_size", "Mutations evaluated in one batch.", "db"),
		size:          gauges("store_size_bytes", "Size of the file.", "db"),
		freePages:     gauges("store_free_pages", "Pages that can be reused.", "db"),
		openReads:     gauges("store_open_read_tx", "Read transactions open.", "db"),
		lagSeconds:    gauge("replication_lag_seconds", "How long ago this master was known to be where the leader was."),
		lagEntries:    gauge("replication_lag_entries", "Revs between the leader's head and this master's."),
		appliedIndex:  gauge("replication_applied_index", "The last Rev committed here."),
		connected:     gauge("replication_sessions", "Replicas connected to this master."),
		peerLag:       gauges("replication_peer_lag_entries", "Revs between this master's head and a replica's Cursor.", "peer_site"),
		bytes:         counters("replication_bytes_total", "Compressed bytes of sessions, without TLS.", "peer_site", "dir"),
		items:         counters("replication_items_total", "Records sent to replicas.", "kind"),
		refused:       counters("replication_refused_total", "Replicas refused, and frames of theirs that were, by the code of the reason.", "reason"),
		ack:           histograms("write_ack_duration_seconds", "From the request to the promise given to the user.", "level"),
		rtt:           histograms("wan_rtt_seconds", "Round trips to other sites.", "peer_site", "proto"),
		handshakes:    attempts.MustCurryWith(prometheus.Labels{"method": "sync"}),
		repairs:       counters("replication_repairs_total", "Repairs that replicas asked for, answered, and territories refused in them.", "result"),
		joins:         attempts.MustCurryWith(prometheus.Labels{"method": "join"}),
		conflicts:     counters("conflicts_total", "Edits that met another one, by what became of them.", "entity", "rule"),
		unresolved:    gauge("conflict_unresolved", "Entries of the attention list that wait for a person."),
		mismatch:      counter("state_hash_mismatch_total", "Comparisons in which the masters' states differed."),
		frozen:        counter("nodes_frozen_total", "Nodes whose history was found to have forked."),
		panicked:      counter("decisions_panicked_total", "Edits rejected because judging them failed."),
		members:       gauges("gossip_members", "Nodes that gossip knows.", "state"),
		verified:      counter("raft_log_verified_total", "Ranges of the Raft log that were read back and are as the leader wrote them."),
		distrusted:    counter("files_distrusted_total", "Times this master found its files damaged or different from the others', and stopped."),
		backup:        gauge("backup_timestamp_seconds", "When the last announced backup was taken, in Unix seconds; 0: never."),
		health:        gauge("gossip_health_score", "How badly this node keeps up with gossip; 0 is well."),
	}
	if reg != nil {
		reg.MustRegister(attempts, m.isLeader, m.hasLeader, m.term, m.leaderChanges, m.decided, m.applied, m.appended, m.snapshot, m.commit, m.batch,
			m.size, m.freePages, m.openReads, m.lagSeconds, m.lagEntries, m.appliedIndex, m.connected, m.peerLag, m.bytes, m.items, m.refused, m.ack, m.rtt,
			m.conflicts, m.unresolved, m.mismatch, m.frozen, m.panicked, m.members, m.health, m.backup, m.repairs, m.verified, m.distrusted)
	}
	return m
}

// observer returns the ledger's hooks.
func (m *Metrics) observer() observer {
	seconds := func(o prometheus.Observer) func(time.Duration) {
		return func(d time.Duration) { o.Observe(d.Seconds()) }
	}
	return observer{
		Commit: seconds(m.commit.WithLabelValues("master")), Append: seconds(m.appended), Apply: seconds(m.applied),
		Batch:    func(_, mutations int) { m.batch.WithLabelValues("master").Observe(float64(mutations)) },
		Snapshot: seconds(m.snapshot.WithLabelValues("any")), Decided: seconds(m.decided),
		Leader: func(raft.ServerID) { m.leaderChanges.Inc() },
		Frozen: func(_ crm.NodeID, reason string) {
			if reason != "" {
				m.frozen.Inc()
			}
		},
		Panicked: func(crm.NodeID, crm.Seq, any) { m.panicked.Inc() },
		Diverged: func(uint64, []StateVote) { m.mismatch.Inc() },
		Verified: m.verified.Inc, Distrusted: func(error) { m.distrusted.Inc() },
	}
}

// sessions returns the hooks of who serves replicas.
func (m *Metrics) sessions() session.Observer {
	return session.Observer{
		Handshake: func(answer syncproto.Kind) { m.handshakes.WithLabelValues(answer.String()).Inc() },
		Batch:     m.sent,
		Refused:   func(reason crm.Code) { m.refused.WithLabelValues(string(reason)).Inc() },
		RTT: func(site string, rtt time.Duration) {
			m.rtt.WithLabelValues(site, "sync").Observe(rtt.Seconds())
		},
		Repair: func(what string) { m.repairs.WithLabelValues(what).Inc() },
		Bytes: func(site string, in, out int64) {
			m.bytes.WithLabelValues(site, "in").Add(float64(in))
			m.bytes.WithLabelValues(site, "out").Add(float64(out))
		},
	}
}

// sent counts a batch.
func (m *Metrics) sent(b *syncproto.Batch) {
	for i := range b.Items {
		m.items.WithLabelValues(b.Items[i].Kind.String()).Inc()
	}
}

// attention counts a conflict when its record is new.
func (m *Metrics) attention(r *crm.Record) {
	if r.Stamp.Rev == r.Entered && r.Value(crm.AttentionKind).Str() != "rejected" {
		m.conflicts.WithLabelValues(r.Value(crm.AttentionEntity).Str(), r.Value(crm.AttentionKind).Str()).Inc()
	}
}

// measure sets the gauges.
func (m *Master) measure() {
	x := m.cfg.Metrics
	leader, _, self := m.ledger.leader()
	x.isLeader.Set(flag(self))
	x.hasLeader.Set(flag(leader != ""))
	if term, err := strconv.ParseFloat(m.ledger.stats()["term"], 64); err == nil {
		x.term.Set(term)
	}
	st := m.ledger.db().Stats()
	x.size.WithLabelValues("master").Set(float64(st.Bytes))
	x.freePages.WithLabelValues("master").Set(float64(st.FreePages))
	x.openReads.WithLabelValues("master").Set(float64(st.OpenReads))
	x.appliedIndex.Set(float64(m.ledger.head()))
	m.measureSessions()
	if m.gossip != nil {
		m.measureGossip()
	}
}

func (m *Master) measureSessions() {
	list, head := m.server.Sessions(), m.ledger.head()
	m.cfg.Metrics.connected.Set(float64(len(list)))
	for _, s := range list {
		m.cfg.Metrics.peerLag.WithLabelValues(s.Site).Set(float64(head - min(head, s.Applied)))
	}
}

func (m *Master) measureGossip() {
	n := map[gossip.State]int{}
	for _, g := range m.gossip.Members() {
		n[g.State]++
		if g.RTTKnown {
			m.cfg.Metrics.rtt.WithLabelValues(g.Site, "gossip").Observe(g.RTT.Seconds())
		}
	}
	for _, s := range []gossip.State{gossip.Alive, gossip.Suspect, gossip.Dead, gossip.Left} {
		m.cfg.Metrics.members.WithLabelValues(s.String()).Set(float64(n[s]))
	}
	m.cfg.Metrics.health.Set(float64(m.gossip.HealthScore()))
}

// measureBackup says how old the last backup is.
func (m *Master) measureBackup() error {
	return m.ledger.db().View(func(tx *store.Tx) error {
		b, err := session.BackupIn(tx)
		m.cfg.Metrics.backup.Set(float64(b.Millis) / 1000)
		return err
	})
}

// countOpen counts the attention list.
func (m *Master) countOpen() error {
	open := 0
	err := m.ledger.db().View(func(tx *store.Tx) error {
		for r, err := range tx.Scan(crm.EntityAttention) {
			if err != nil {
				return err
			}
			if r.Value(crm.AttentionStatus).Str() == "open" {
				open++
			}
		}
		return nil
	})
	m.cfg.Metrics.unresolved.Set(float64(open))
	return err
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "tradepost", Name: name, Help: help})
}

func gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "tradepost", Name: name, Help: help}, labels)
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "tradepost", Name: name, Help: help})
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "tradepost", Name: name, Help: help}, labels)
}

func histogram(name, help string) prometheus.Histogram {
	return prometheus.NewHistogram(histogramOpts(name, help))
}

func histograms(name, help string, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(histogramOpts(name, help), labels)
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
