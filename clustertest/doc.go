// Package clustertest drives whole clusters, masters and replicas over a
// simulated WAN, in virtual time: with text scripts whose output is kept beside
// them, and with random histories.
//
// A script is a file of commands, one a line, each followed by what it prints,
// on lines that begin with a bar:
//
//	cluster branches=lisbon,porto rtt=80ms
//	create lisbon account/acme name="Acme" territory=key-accounts
//	| saved here
//	settle
//	| settled
//	show porto account/acme name
//	| name=Acme
//
// Records are called entity/alias, and nodes m1, m2, … (masters), hq (the
// master that leads) or by their site. [Commands] lists what there is. A command
// that fails prints its error; ids in it are replaced by aliases, and nothing
// that depends on who wins an election is printed.
//
// Run and Histories must be called inside a testing/synctest bubble.
package clustertest
