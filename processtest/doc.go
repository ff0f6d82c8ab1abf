// Package processtest kills real processes. Its tests build the tradepost binary,
// run masters and replicas as processes on loopback, end them with SIGKILL in
// the middle of a write loop, and count: no acknowledged edit may be missing and
// none may have taken effect twice.
//
// A [Crash] is such a run of any length. Its [Clerk]s edit at every node and keep
// a [Tally] each, its [Pace] keeps kills and edits in step, its [Figures] are what
// it measured, and its [Verdict] is what the nodes hold in the end. SIGKILL ends a
// process, not the machine: what was written and not synced survives it, so these
// runs prove that recovery is right at any instant, not that every write was
// synced.
package processtest
