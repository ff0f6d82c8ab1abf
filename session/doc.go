// Package session is the serving half of the protocol: it judges a Hello, brings
// a replica what was decided, and takes what it has edited. A master runs it over
// the decided records; so can any node that holds them.
//
//	Push → intake → Upstream … store → Feed → outflow → Batch
//
// What a serving node cannot decide itself it asks its [Upstream]: the ledger of
// a master that leads, a [Link] to a node above elsewhere. [Server.ServeLink] is
// the other end of a Link.
//
// A [Talk] is one served replica without I/O, made of independent parts: an
// intake (what goes up), an outflow (what comes down), a progress (what is known
// of the replica) and a vigil (when it is over). [Server.Serve] runs the same
// parts in goroutines around a connection.
//
// # Invariants
//
//   - A batch that is final moves a replica from one prefix of the order to
//     another, exactly. The feed never waits for the replica's edits.
//   - A Mutation is submitted until its outcome is known: an unknown outcome is
//     resolved by submitting the same bytes again.
//   - A replica is never sent back: a node serves it once it is itself where the
//     replica is.
//   - What a Talk sends follows from the store, the clock, the randomness it was
//     given and what it heard.
//
// # Concurrency
//
// A session has four goroutines: receive never sends, so two full connections
// cannot wait for each other; push, feed and watch go their own ways. Each part of
// a Talk belongs to one of them, but the progress, which session.mu protects.
//
// Lock order: Server.mu, then session.mu; Link.mu, then line.mu. Rosters.mu is a
// leaf. Nothing waits while it holds one of them.
package session
