// Package master is head office: a few masters that agree by Raft on the one
// order of all decisions, and bring the decisions to the branches.
//
// The way of an edit through a master:
//
//	session → upstream → propose → Raft → FSM.push → crm.Decide → store
//	             ↘ session.Link, on a master that does not lead
//	store → commit to bbolt → session → replica
//
// [Open] opens the files and starts Raft; [Master.Run] owns every goroutine and
// ends with its context. The [FSM] (entry.go, fsm.go, evaluate.go) is the decided
// state as a function of a log of entries. The ledger (raft.go, raftfsm.go,
// logstore.go, snapshot.go, transport.go, watchdog.go) makes that log with the
// other masters. The node around it serves replicas and other masters
// (upstream.go, package session), joining nodes (join.go), and this process's own
// readers and writers (read.go, author.go, changes.go).
//
// # Invariants
//
//   - The decided state is a function of the Raft log: no clock, randomness or
//     map order takes part in it.
//   - The index of the last applied entry is in the bbolt transaction that holds
//     its effects.
//   - A Mutation is decided once, however often it is submitted.
//   - A replica's disk that does not know its own newest decided edit gets a new
//     incarnation before it can push, and every older copy is fenced.
//   - A join token lets one node in; that and the node's number are one decision.
//
// # Concurrency
//
// Raft applies in one goroutine; readers see what is committed to bbolt, at most
// about 20 ms later.
//
// FSM.mu, then FSM.out. links.mu, reports.mu and lag.mu are leaves: nothing waits
// while it holds one of them.
package master
