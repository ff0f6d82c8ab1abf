// Package node is one Tradepost process: a directory with an identity, a master
// or a replica over it, the HTTP server in front and gossip beside. It ties the
// packages below together and decides nothing itself.
//
// A directory is made by [Init] (the first master of a cluster) or [Join] (every
// other node) and run by [Open] and [Node.Run]:
//
//	node.json             who this node is; written last, so a directory without it is no node
//	ca.crt  ca.key        the cluster's CA; the key at masters only
//	node.crt  node.key    this node's certificate
//	gossip.key            the cluster's gossip key
//	tokens.json           bearer tokens of the HTTP API, hashed
//	admin.token           the first bearer token, for the CLI on this machine
//	journal.db  base.db   of a replica (DESIGN §5.4)
//	master.db  raft/      of a master (DESIGN §6)
//
// Time, randomness, dialling and listening are fields of [Env], so that a whole
// cluster runs in one process over a simulated WAN.
package node
