// Package store keeps records in two bbolt files.
//
// The base file ([Open], [DB], [Tx]) holds decided records and everything that
// is derived from them: index rows, search words, the feed of each territory
// and its digest. It has one format on masters and replicas. On a replica it
// can be thrown away: the masters send it again.
//
// The journal file ([OpenJournal], [Journal], [JTx]) exists on replicas only
// and is precious: it holds the node's identity, the Mutations that no master
// has decided (outbox), those that one has (tail), and the records as the
// pending Mutations would leave them (overlay).
//
// A [Reader] shows both as one: base ⊕ overlay. It is what people see.
//
// # Invariants
//
// Of the base file, at every commit:
//   - a record is in live or in dead, never in both, and in the feed or gone
//     row of its territory at its Stamp.Rev;
//   - index rows, words and root rows are those that the schema in the same
//     file asks for, no more and no fewer;
//   - the digest of a territory is that of its live records.
//
// [Tx.Check] verifies all of it in one go; Scrub verifies checksums and digests
// bit by bit, beside the daily work. Values that cannot be recomputed carry a
// checksum, verified on each read; a bad one is a [crm.Error] of code corrupt.
//
// # Concurrency
//
// A file has any number of readers and one writer; readers see the state at
// which they began and block nobody. A Tx belongs to one goroutine. Close,
// Replace and Compact wait for open transactions and hold new ones back, so a
// transaction must not wait for a second one of the same file. Who needs both
// files opens the journal's transaction first: what leaves the journal is in
// the base by then.
//
// Lock order: file.writer, then file.swap, then the locks of bbolt.
package store
