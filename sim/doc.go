// Package sim plays whole clusters in one goroutine: masters over one ordered
// log, replicas, their disks, clocks and lines, and the people who edit. What
// happens follows from a seed alone, so a failure can be played again.
//
// Simple version: [Generate] makes a [Script] of edits and faults from a seed,
// [Play] plays it and returns a [History], and [Invariants] are pure functions
// that find in a History what must never be there. What complicates it is that
// the product has time-outs, files and clients of its own; all of them hang on
// the seams that production has too: the clock, the randomness, the frames of a
// session, the entries of the log and the disk of a file.
//
// What is real: the store and its files, the FSM, the decision, both halves of
// a session and the codec of their frames. What is not: Raft, for which a log
// stands that keeps Raft's promises to the FSM and no others; sockets; fsync.
//
// # Determinism
//
// Two plays of one Script give the same [Trace]. It must not depend on map
// order, on the wall clock or on where bbolt puts its pages, which differ from
// run to run. Randomness is split by concern (see dice), so that a draw added in
// one place does not change the others.
package sim
