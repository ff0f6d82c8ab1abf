// Package auth answers who is calling: which node is at the other end of a
// connection, and whose bearer token came with an HTTP request. What the caller
// may do is decided elsewhere.
//
// A cluster has its own certificate authority ([CA]). It signs one certificate
// per node, and the certificate carries the node's [Identity] as a URI:
//
//	spiffe://<cluster>/master/<site>/<node>
//	spiffe://<cluster>/replica/<site>/<node>
//
// Nodes talk over TLS 1.3 only, both sides show a certificate, and both sides
// check chain, time, cluster and protocol ([ServerTLS], [ClientTLS]). Addresses
// play no part: a node is who its certificate says, wherever it is.
//
// A new node gets its certificate with a [JoinString], which a person carries
// from a master to the new machine. It holds where to call, the SHA-256 of the
// cluster's CA key, so that the node knows it talks to the right cluster
// ([PinnedTLS]), and a secret that is good for one join, so that the cluster
// knows the node ([JoinToken]):
//
//	js, err := auth.ParseJoinString(pasted)
//	conn, err := tls.Dial("tcp", js.Endpoints[0], auth.PinnedTLS(js.CAPin, time.Now, auth.ALPNJoin))
//	ca, err := auth.PinnedCA(conn.ConnectionState(), js.CAPin)
//	key, err := auth.NewKey()
//	request, err := auth.NewRequest(key) // sent with the token; the master answers with ca.Sign's result
//	node, err := auth.NewNode(certDER, key)
//	err = errors.Join(auth.WriteCACert(dir, ca), auth.WriteNode(dir, node))
//
// Files of a node's directory:
//
//	ca.crt       0644  the cluster CA's certificate, on every node
//	ca.key       0600  its private key, on masters only
//	node.crt     0644  this node's certificate
//	node.key     0600  its private key
//	tokens.json  0600  bearer tokens of the HTTP API, hashed
//
// On Unix a secret file that others may read is refused.
//
// Nothing here starts a goroutine. [Tokens] is safe for concurrent use; the other
// types are not modified after they are made. Every error a person can act on is
// an [*Error] with a stable code and says what to do; no error holds a secret.
package auth
