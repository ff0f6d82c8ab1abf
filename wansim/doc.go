// Package wansim is a simulated wide-area network: hosts in cities, and between
// them [net.Conn], [net.Listener] and [net.PacketConn] with the round trips of a
// measured [Matrix], limited bandwidth, loss, jitter and cuts. The same code runs
// in virtual time inside a testing/synctest bubble and in real time.
//
//	net := wansim.New(wansim.Config{Matrix: wansim.World()})
//	defer net.Close()
//	lis, err := net.Host("Frankfurt", "m0").Listen("7000")
//	conn, err := net.Host("Tokyo", "tokyo").Dial(ctx, "m0:7000") // 221.7625 ms
//
// # How it works
//
// The network starts no goroutine and keeps no timer of its own. A segment is
// given its arrival time when it is written and lies in the queue of its stream;
// whoever waits for it holds the only timer. Resets, acknowledgements and stalls
// are arrival times too, looked at when somebody asks. So an idle network is
// idle: a bubble jumps over it, and nothing can leak from it.
//
// One mutex, Network.mu, guards everything, and nobody holds it while waiting.
//
// # What it promises
//
//   - A connection delivers what was written, in order, once, or ends in an error.
//   - In virtual time an undisturbed transfer takes exactly the time that round
//     trip and bandwidth say.
//   - Loss and jitter depend on [Config.Seed] and on what a flow sends, not on
//     goroutine scheduling between flows, as long as no host dials one address
//     from two goroutines at one instant. Flows that share limited bandwidth
//     do queue behind each other in the order in which they wrote.
//
// # What it leaves out
//
// Slow start and congestion control, retransmission back-off (a healed link
// carries what it owes at once), packet headers, and keepalives on idle
// connections: an idle connection survives a cut of any length.
package wansim
