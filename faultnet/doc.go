// Package faultnet spoils real connections. A [Proxy] stands between a listen
// address and a target and passes on what comes, over TCP or UDP, with the
// faults that [Proxy.Spoil] last set for each direction: delay, jitter, a narrow
// line, loss, cuts, black holes, resets, truncation. A [Script] changes them by
// the clock:
//
//	at 2s lisbon blackhole 5s
//	at 9s lisbon up delay 80ms
//
// It works above TCP, and that limits what it can imitate:
//
//   - A TCP segment is never missing from a stream. A lost one is a stall of its
//     direction for a retransmission timeout, which doubles as long as the
//     segment is lost again. Fast retransmission is not imitated.
//   - The handshake with the proxy is the kernel's and takes no delay. While a
//     direction is cut or a black hole, the client is connected to the proxy, but
//     the proxy does not dial the target.
//   - What a peer has sent is acknowledged by the proxy's kernel. During a cut
//     the sender notices nothing until the proxy's window and both socket buffers
//     are full; then its writes block, as they do on a real line.
//   - After a cut, what waited flows at once, not at the sender's next
//     retransmission.
//
// Memory is bounded: a direction of a connection holds at most Config.Window
// bytes, and the sender waits; a direction of a UDP session holds as much, and
// further datagrams are lost.
//
// Faults are drawn from Config.Seed, the number of the connection and the
// direction: equal traffic meets equal faults, though real sockets seldom cut a
// stream into equal pieces twice.
//
// All goroutines of a proxy have ended when [Proxy.Close] returns. A Proxy is
// safe for concurrent use.
package faultnet
