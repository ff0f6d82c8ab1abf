// Package master is head office: a few masters that agree by Raft on the one
// order of all decisions, and bring the decisions to the branches.
//
// The way of an edit through a master:
//
//	session.push → submit → propose → Raft → fsm.push → crm.Decide → store
//	                 ↘ forward, on a master that does not lead
//	store → commit to bbolt → feed.next → session → replica
//
// [Open] opens the files and starts Raft; [Master.Run] owns every goroutine and
// ends with its context. The ledger (entry.go, fsm.go, evaluate.go, raft.go,
// logstore.go, snapshot.go, transport.go, watchdog.go) decides. The node around
// it serves replicas (session.go, handshake.go, feed.go), other masters
// (forward.go), joining nodes (join.go), and this process's own readers and
// writers (read.go, author.go, changes.go).
//
// # Invariants
//
//   - The decided state is a function of the Raft log: no clock, randomness or
//     map order takes part in it.
//   - The index of the last applied entry is in the bbolt transaction that holds
//     its effects.
//   - A Mutation is decided once, however often it is submitted: an unknown
//     outcome is resolved by submitting the same bytes again.
//   - A batch that is final moves a replica from one prefix of the order to
//     another, exactly. The feed never waits for the replica's edits.
//   - A replica's disk that does not know its own newest decided edit gets a new
//     incarnation before it can push, and every older copy is fenced.
//   - A join token lets one node in; that and the node's number are one decision.
//
// # Concurrency
//
// Raft applies in one goroutine; readers see what is committed to bbolt, at most
// about 20 ms later. A session has four goroutines: receive never sends, so two
// full connections cannot wait for each other; push, feed and watch go their own
// ways.
//
// Lock order: links.mu, then link.mu. session.mu, sessions.mu, reports.mu,
// rosterCache.mu and lag.mu are leaves: nothing waits while it holds
// one of them, but that session.mu may be held while reports.mu is taken.
package master
