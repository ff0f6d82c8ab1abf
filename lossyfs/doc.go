// Package lossyfs is a file system that forgets what was not synced. [Mount]
// shows an empty one at a directory, kept in memory; [FS.PowerCut] takes it back
// to what a disk would hold after the power failed, and every file that was open
// then answers EIO from there on. Files opened afterwards are those of the disk.
// [FS.Spoil] fills the disk, fails reads, writes and fsyncs, and lets fsyncs lie or
// stall; [FS.Flip] turns over a bit.
//
// # What survives a cut
//
// The model is that of a journaling file system such as ext4 with data=ordered,
// as Pillai and others describe it ("All File Systems Are Not Created Equal",
// OSDI 2014), reduced to what a program may rely on:
//
//   - Contents. fsync and fdatasync of a file make its contents and its size
//     durable. Of what was written since, nothing survives. With a torn cut
//     ([FS.TornPowerCut]) any set of 512-byte sectors of what overwrote
//     the durable contents may survive, each whole and as it was last written. If
//     the file grew, it may be found with any of the sizes in between, and then
//     what was appended below that size is there: a size never shows what was
//     there before, which is what data=ordered means. If it was truncated and
//     written again, either the old contents are there, or a part of the new.
//   - Names. Creations, links, unlinks and renames are durable once the directory
//     was synced, and a rename between directories once either was. A rename is
//     atomic: there is never both names or none. Syncing a file does not make its
//     name durable, which is all that POSIX promises. With [Config.Journal], a
//     sync of anything makes all names of the file system durable, because ext4
//     has one journal that it commits whole. With a torn cut, names are as after
//     the first so many of the operations not synced, in their order, as a
//     journal leaves them.
//   - A failed fsync. What the file held unsynced stays readable, is taken for
//     written, and is not: a later fsync that succeeds does not write it again
//     (Rebello and others, "Can Applications Recover from fsync Failures?", ATC
//     2020). Pages written once more after the failure become durable as usual.
//
// Not modelled: contents written back before anybody asked for it, other than by
// a torn cut at the moment of the cut; sectors torn inside; modes and times,
// which are durable at once; symbolic links, extended attributes, devices.
//
// # Memory maps
//
// The kernel's page cache is used, write-through: a write reaches both the cache
// and this package before it returns, so that a file mapped for reading and
// written with pwrite, as bbolt does, shows one content. A mapping that was made
// before a cut shows the pages it has until the process ends, and the process gets
// SIGBUS for others.
//
// A process must not map files of its own mount, because a page fault stops a
// thread where the Go runtime cannot see it, and may need the very process to be
// answered: tests that map run in a process of their own.
package lossyfs
