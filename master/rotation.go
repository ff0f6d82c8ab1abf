package master

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// finishRotation completes a change of segments that a crash has interrupted in
// the raft-wal log of dir, which must not be open. raft-wal seals a full segment
// in one write and names its successor in another; opened in between, v0.4.2
// takes the sealed segment for one to append to and refuses every entry from then
// on. One write of the metadata does what was left to do, so that a crash here
// leaves nothing new.
func finishRotation(dir string) (err error) {
	var meta metadb.BoltMetaDB
	state, err := meta.Load(dir)
	if err != nil {
		return fmt.Errorf("read the segments of raft log %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, meta.Close()) }()
	n := len(state.Segments)
	if n == 0 || !state.Segments[n-1].SealTime.IsZero() {
		return nil
	}
	tail := state.Segments[n-1]
	w, err := segment.NewFiler(dir, walfs.New()).RecoverTail(tail)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // raft-wal makes a file that was named and not yet made
	}
	if err != nil {
		return fmt.Errorf("read the last segment of raft log %s: %w", dir, err)
	}
	sealed, indexStart, sealErr := w.Sealed()
	last := w.LastIndex()
	if err := errors.Join(sealErr, w.Close()); err != nil || !sealed {
		return err
	}
	now := time.Now()
	tail.SealTime, tail.MaxIndex, tail.IndexStart = now, last, indexStart
	state.Segments = append(state.Segments[:n-1], tail, types.SegmentInfo{
		ID: state.NextSegmentID, BaseIndex: last + 1, MinIndex: last + 1,
		Codec: tail.Codec, SizeLimit: tail.SizeLimit, CreateTime: now,
	})
	state.NextSegmentID++
	return meta.CommitState(state)
}
