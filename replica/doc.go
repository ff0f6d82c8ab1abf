// Package replica is the node of a branch. It answers reads from its own two
// files, takes edits while the WAN is up or down, and keeps one session with a
// master that carries edits out and decisions in.
//
// An edit goes one way round:
//
//	Commit → journal (outbox, overlay) → push → master … feed → pull → base → rebase → readers
//
// [Open] opens the files; from then on [Replica.Read] and [Replica.Commit] work.
// [Replica.Run] owns every goroutine and ends with its context. What it does can
// also be done by one goroutine alone: [Replica.Hello], [Replica.Greeted] and
// [Talk] are a session without a connection, [Replica.Tidy] is the purge. A Talk
// is made of independent parts, a pull (batches into the base), an upflow (what
// goes up) and its questions, which Run's goroutines share out.
//
// # Invariants
//
//   - A Receipt means that the Mutation is in the journal and fsynced.
//   - A Mutation leaves the outbox only when the feed says that it is decided.
//     What a master has merely taken (Pushed) is known in memory only, so a new
//     session begins at what the master says it has.
//   - The base moves from one prefix of the master's order to the next in one
//     transaction that also holds the Cursor and the highest decided Seq, and
//     only if every territory's digest is the master's.
//   - The overlay is derived: it is what [crm.Decide] makes of the outbox over
//     the base, in order of Seq. A crash between the base's transaction and the
//     journal's is repaired by Open.
//   - The Cursor never goes back within a timeline.
//
// Lock order: commits.turn, then the journal's transaction, then the base's,
// then Replica.mu; Replica.measuring before the journal's. Nothing waits for a
// file while it holds Replica.mu.
package replica
