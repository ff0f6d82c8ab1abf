// Package processtest kills real processes. Its tests build the tradepost binary,
// run masters and replicas as processes on loopback, end them with SIGKILL in
// the middle of a write loop, and count: no acknowledged edit may be missing and
// none may have taken effect twice.
package processtest
