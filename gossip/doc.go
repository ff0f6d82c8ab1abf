// Package gossip finds the other nodes of a cluster and measures how far away
// they are.
//
// It wraps hashicorp/memberlist (SWIM with Lifeguard) for masters and for the
// replicas that can be reached from outside. What it says is a hint: which
// nodes were seen, where their sync port is, and a smoothed round-trip time to
// each. Nobody is granted, refused or elected anything because of it, and no
// personal data travels in it: a node announces its id, role, site and
// addresses, nothing else.
//
// # Life
//
// [Open] checks the configuration and binds the sockets. [Gossip.Run] starts
// every goroutine, joins and re-joins, and at the end of its context says
// good-bye, closes the sockets and waits for the goroutines to end.
//
// # Safety
//
// Packets and streams are sealed with AES-256-GCM under the cluster's gossip
// key and carry the cluster id as authenticated label. What does not open with
// the key, carries another label, or announces a node that contradicts itself
// is dropped and counted in [Stats]. Lengths are bounded before they are
// believed: an announcement by 512 bytes, a stream by 4 MiB, inbound streams
// by 64 at a time.
//
// # Concurrency
//
// All methods of Gossip may be called from any goroutine, before, during and
// after Run. Members and RTT read a table of this package's own and never wait
// for memberlist. memberlist calls back while it holds its node lock, so the
// lock order is memberlist's node lock, then the table's; nothing in this
// package calls memberlist while holding a lock of the table.
//
// # Addresses
//
// An address is a string such as "10.1.0.4:7946" or, over a [PacketTransport]
// made for another network, "lisbon-1:7946". memberlist insists on IP
// addresses, so an address that is none is given a stand-in in fd00::/8 derived
// from its hash; the real one travels inside the announcement.
package gossip
