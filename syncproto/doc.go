// Package syncproto is what a branch and a master say to each other: the
// frames, their bytes, the connection that carries them, the clock and the
// choice of a version. It opens no socket and starts no goroutine; it works on
// any io.ReadWriter.
//
// A direction of a connection is
//
//	"TPS1" ‖ lowest version, 2 bytes ‖ highest version, 2 bytes ‖ one zstd stream
//
// and the zstd stream holds frames, flushed after each group that was sent
// together:
//
//	length uvarint ‖ kind 1 byte ‖ fields         length counts kind and fields
//
// The fields of each kind are drawn in docs/protocol.md, from the tables that
// the frames' own codec writes. Numbers are big-endian or uvarint in the
// shortest form. Frames sent before a peer's preamble was read (Hello, Join)
// are encoded in the sender's lowest version.
//
// # Invariants
//
//   - A kind, an item kind and an ask number are never given a second meaning.
//   - Everything a peer would refuse is refused by Send, before a byte is
//     written.
//   - Decoding never panics. It allocates a few times Window to decompress, the
//     bytes of a frame as they arrive, at most MaxFrame, and at most about eleven
//     times their number for what they decode to.
//   - Secrets travel in Join and Joined only, on a connection that carries
//     nothing else: a shared compression window would leak them by length.
package syncproto
