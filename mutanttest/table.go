package mutanttest

// Mutants are the bugs that the tests must find. docs/reliability.md lists them.
var Mutants = []Mutant{
	{
		Name: "an fsync removed", File: "store/file.go", Package: "processtest", Test: "TestPowerCut_AtTheAcknowledgement",
		Old: "f.opts.NoSync || f.opts.syncs(),", New: "true,",
	},
	{
		Name: "head not written again after a failed fsync", File: "store/file.go", Package: "processtest", Test: "TestFailedSync_ThenACut",
		Old: "errors.Join(f.rewriteHeads(), f.sync(f.path))", New: "f.sync(f.path)",
	},
	{
		Name: "shipped before it is durable", File: "replica/push.go", Package: "replica", Test: "TestDoubt_JournalHoldsBackAndGoesOn",
		Old: "if err := p.r.journal.Mend(); err != nil {", New: "if err := error(nil); err != nil {",
	},
	{
		Name: "dedupe skipped", File: "master/evaluate.go", Package: "master", Test: "TestFSM_TakesEachMutationOnce",
		Old: "case m.Seq <= n.LastSeq:", New: "case false:",
	},
	{
		Name: "gap accepted", File: "master/evaluate.go", Package: "master", Test: "TestFSM_TakesEachMutationOnce",
		Old: "case m.Seq > n.LastSeq+1:", New: "case false:",
	},
	{
		Name: "fork not seen", File: "master/evaluate.go", Package: "master", Test: "TestFSM_FreezesAForkedNode",
		Old: "case m.Prev != n.LastHash:", New: "case false:",
	},
	{
		Name: "old incarnation taken", File: "master/evaluate.go", Package: "master", Test: "TestFSM_FencesAnOldIncarnation",
		Old: "case e.Incarnation != n.Incarnation:", New: "case false:",
	},
	{
		Name: "poison judged", File: "master/evaluate.go", Package: "master", Test: "TestRehearsal_RejectsPoison",
		Old: "case m.poison:", New: "case false:",
	},
	{
		Name: "suspect not noted", File: "master/rehearsal.go", Package: "master", Test: "TestRehearsal_RejectsPoison",
		Old: "r.suspects.begin(k)", New: "error(nil)",
	},
	{
		Name: "clamp to the receive time removed", File: "master/evaluate.go", Package: "master", Test: "TestEffectiveHLC",
		Old: "min(crm.NewHLC(ms)|h&0xffff, crm.NewHLC(receivedMillis))", New: "crm.NewHLC(ms)|h&0xffff",
	},
	{
		Name: "base_rev ignored", File: "crm/stamp.go", Package: "crm", Test: "TestDecide_SameFieldKeepsTheLoser",
		Old: "return s.Rev <= t.Rev || ", New: "return true || ",
	},
	{
		Name: "losing value dropped", File: "crm/merge.go", Package: "crm", Test: "TestDecide_NothingIsLost",
		Old: "n := d.fieldNote(\"conflict\", i, e, r, f, op)\n\td.park(n,", New: "n := &Record{}\n\td.park(n,",
	},
	{
		Name: "overlay not folded again", File: "replica/settle.go", Package: "replica", Test: "TestRebase_MastersChangeUnderPendingEdits",
		Old: "return f.around(append(keys, c.touched...))", New: "_ = keys\n\treturn nil",
	},
	{
		Name: "marker not written", File: "store/record.go", Package: "master", Test: "TestFeed_AnAccountMovesWithItsTreeAtOneRev",
		Old: "return tx.rows.put(0, tx.rows.feedRow(spaceLeft, from, r.Stamp.Rev, k))", New: "return nil",
	},
	{
		Name: "digest not updated", File: "store/digest.go", Package: "store", Test: "TestRandomChanges",
		Old: "\t\ttx.moved(sumKey{t, k.digestBucket()}).add(recordHash(k, body))\n", New: "",
	},
	{
		Name: "timeline ignored by the feed", File: "session/feed.go", Package: "master", Test: "TestFeed_ReconnectGoesOnFromTheCursor",
		Old: "if h.Timeline != w.Timeline {", New: "if false {",
	},
	{
		Name: "digest not compared", File: "replica/mend.go", Package: "replica", Test: "TestDigest_MismatchIsAlarmedAndRepaired",
		Old: "if string(got[:len(want.Sum)]) == string(want.Sum[:]) && damaged.IsEmpty() {", New: "if got != (store.Digest{}) {",
	},
	{
		Name: "a batch of before the repair applied", File: "replica/pull.go", Package: "session", Test: "TestRepair_DropsWhatWasOnItsWay",
		Old: "case b.Repair != p.repairs.number:", New: "case false:",
	},
	{
		Name: "suspicions forgotten with the process", File: "replica/suspicion.go", Package: "session", Test: "TestRepair_InPartsOverLostSessions",
		Old: "return tx.SetMeta(metaSuspect, v)", New: "return nil",
	},
	{
		Name: "sums of a territory that was not granted", File: "session/packer.go", Package: "session", Test: "TestRepair_RefusesAndSlowsDown",
		Old: "if !p.wants[t].IsEmpty() || p.ways[t] == nil {", New: "if !p.wants[t].IsEmpty() {",
	},
	{
		Name: "a copy does not look where the histories part", File: "replica/renumber.go", Package: "session", Test: "TestClone_PendingEditsTakeEffectOnce",
		Old: "if known && ours == theirs {", New: "if false && known && ours == theirs {",
	},
	{
		Name: "acknowledged before the journal is written", File: "replica/commit.go", Package: "replica", Test: "TestCommit_DiskFullAcknowledgesNothing",
		Old: "c.receipt, c.err = crm.Receipt{}, fmt.Errorf(\"save edit: %w\", err)", New: "c.err = nil",
	},
	{
		Name: "lost territory kept", File: "replica/purge.go", Package: "replica", Test: "TestPurge_LostGrantLeavesNoByte",
		Old: "if a.writable(t) || c.compared(t) {", New: "if a.known {",
	},
	{
		Name: "trimmed below a pending edit", File: "master/reports.go", Package: "master", Test: "TestReports_AndTrim",
		Old: "if st.LowBase != 0 {", New: "if false {",
	},
}
