// Package devcluster runs a whole cluster in one process: masters in one region
// and a replica in each of several cities, each with a data directory and
// listeners of its own, over the simulated WAN of package wansim.
//
//	c, err := devcluster.New(ctx, devcluster.Options{Sites: 3}, node.Env{})
//	if err != nil { … }
//	defer c.Close()
//	err = c.Cut("tokyo")
//
// Nodes are made and joined as real ones are: the first master by node.Init, all
// others with a one-use join token over the WAN. [Run] is the whole of
// `tradepost dev`, and [Story] the tale it can tell.
//
// The same cluster runs in virtual time: with Options.Virtual, inside a
// testing/synctest bubble, nothing listens outside the simulated WAN.
//
// # What a crash is here
//
// [Cluster.Crash] resets a replica's connections, stops its goroutines without
// closing its files, and copies those files: the copy is what the disk holds
// once every write issued has reached it. The next start opens the copy. That
// shows that nothing is kept in memory only; it cannot show that what was
// acknowledged had been fsynced, which tests with a real kill -9 and a faulty
// disk do. A master that is killed loses its connections at once, but closes its
// files.
//
// # Concurrency
//
// The methods of a Cluster may be called by any goroutine. New starts the
// nodes; Close stops them and waits for every goroutine.
package devcluster
