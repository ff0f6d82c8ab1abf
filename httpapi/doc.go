// Package httpapi is the only HTTP server of a node, and its Go client, which
// the command line uses. Server and client share the types of this package.
//
// The API follows the live schema: /api/v1/{entity} serves every entity by its
// singular name, those added at run time too, and /openapi.json describes them
// as they are at the time of asking. The paths named otherwise (reports,
// search, attention, changes, schema, mutations, status, nodes, outbox, check,
// raft, tokens, wan) win over an entity of that name.
//
// A record is a flat JSON object: id, entity and token, then the fields that
// have a value. A field that is itself called entity or token keeps its name,
// and the record's own goes under _entity or _token. A token is "timeline-rev",
// and "timeline-rev-node.seq" while an edit of the record that was taken at that
// node waits for the master. It may be sent to any node: what it says of pending
// edits counts at the node that gave it, and its rev in its timeline and up to
// the restore that ended it. The "rev.seq" of earlier releases is refused.
//
// # Writing
//
// An edit says what its author had seen with If-Match: token, as a read gave it
// in ETag. Without If-Match, or with *, the author is taken to have seen what
// this node shows now. A token that is no longer current is no error here: edits
// of different fields both stand, and of two edits of one field neither of which
// saw the other, the losing value is kept on the attention list (so there is no
// 412). The answer says how far the edit has come: "saved":"here" once it is
// durable at this node, "everywhere" once the master decided it. With
// ?wait=decided&timeout=5s the answer waits for the master, and its status is 202
// if that took longer. A rejection is answered as a problem with the outcome in it.
//
// A creation may bring its own id; repeating it then answers already_exists.
//
// # Reading
//
// Tradepost-Consistency: local | session | bounded;max=5s | leader, and
// Tradepost-Session: mark say what a read must have seen. Every read answers
// with Tradepost-Mark (timeline.rev.node.seq), Tradepost-As-Of,
// Tradepost-Staleness in seconds, Tradepost-Pending and Tradepost-Connected.
//
// # Errors
//
// Every error is application/problem+json (RFC 9457) with a stable code;
// problem.go has the one table of codes and statuses.
//
// # Concurrency
//
// A Server may be used by several goroutines at once, and so may a Client. Run
// owns the goroutines of the server and returns when they have ended.
package httpapi
