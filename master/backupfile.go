package master

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A BackupInfo is the trailer of a backup file: what the database before it holds.
//
//	backup file   database <size> ‖ JSON of BackupInfo <n> ‖ crc32c of the JSON <4> ‖ n <4> ‖ "TPBACKUP" <8>
//
// The database is a base file as a read transaction of a master saw it, so the
// file can be opened as one. Numbers are big-endian.
type BackupInfo struct {
	Format    int       `json:"format"`
	Cluster   string    `json:"cluster"`
	Timeline  uint64    `json:"timeline,string"`
	Rev       crm.Rev   `json:"rev"` // everything decided up to here is in it
	RaftIndex uint64    `json:"raft_index"`
	RaftTerm  uint64    `json:"raft_term"`
	Level     uint16    `json:"level"` // that the log had activated
	Taken     time.Time `json:"taken"`
	Size      int64     `json:"size"`   // bytes of the database
	SHA256    string    `json:"sha256"` // of the database, in hex
	State     string    `json:"state"`  // accumulator of the masters' comparison, in hex
}

const (
	backupFormat = 1
	backupMagic  = "TPBACKUP"
	trailerEnd   = 4 + 4 + len(backupMagic)
	maxTrailer   = 64 << 10
)

func (b BackupInfo) appendTrailer(dst []byte) []byte {
	text, err := json.Marshal(b)
	if err != nil {
		panic("master: a backup's description is no JSON: " + err.Error())
	}
	dst = append(dst, text...)
	dst = binary.BigEndian.AppendUint32(dst, crc32.Checksum(text, castagnoli))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(text)))
	return append(dst, backupMagic...)
}

func (b BackupInfo) entry() (BackupEntry, error) {
	e := BackupEntry{Timeline: b.Timeline, Rev: b.Rev, RaftIndex: b.RaftIndex, TakenMillis: b.Taken.UnixMilli(), Size: uint64(b.Size)}
	sum, err := hex.DecodeString(b.SHA256)
	if err != nil || len(sum) != len(e.Sum) || b.Rev == 0 || b.Rev >= crm.Pending || b.Size <= 0 || e.TakenMillis < 0 || e.TakenMillis > maxMillis {
		return e, &crm.Error{Code: crm.CodeInvalid, Op: "announce backup", Message: "this does not describe a backup; take what `tradepost backup verify` prints"}
	}
	copy(e.Sum[:], sum)
	return e, nil
}

// foreign is the error for a backup of another cluster.
func (b BackupInfo) foreign(op, cluster string) error {
	return &crm.Error{Code: session.CodeWrongCluster, Op: op, Item: b.Cluster, Message: fmt.Sprintf("the backup is of cluster %s, this is %s: take the right file", b.Cluster, cluster)}
}

func damagedBackup(path, format string, args ...any) error {
	return &crm.Error{Code: crm.CodeCorrupt, Op: "read backup", Item: path, Message: fmt.Sprintf(format, args...) + "; take another copy of the file, or an earlier backup"}
}

// ReadBackup reads what a backup file says it holds, without checking it. The
// error is of code corrupt for a file that is cut off or no backup, and format
// for one of a newer program.
func ReadBackup(path string) (b BackupInfo, err error) {
	f, err := os.Open(path)
	if err != nil {
		return b, unreadable(path, err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return b, unreadable(path, err)
	}
	end := make([]byte, trailerEnd)
	if _, err := f.ReadAt(end, size-int64(trailerEnd)); err != nil || string(end[8:]) != backupMagic {
		return b, damagedBackup(path, "it does not end as a backup does: it is cut off, or another file")
	}
	n := int64(binary.BigEndian.Uint32(end[4:]))
	if n > maxTrailer || n > size-int64(trailerEnd) {
		return b, damagedBackup(path, "its description is %d bytes", n)
	}
	text := make([]byte, n)
	if _, err := f.ReadAt(text, size-int64(trailerEnd)-n); err != nil {
		return b, unreadable(path, err)
	}
	if crc32.Checksum(text, castagnoli) != binary.BigEndian.Uint32(end) {
		return b, damagedBackup(path, "its description fails its checksum")
	}
	if err := json.Unmarshal(text, &b); err != nil {
		return b, damagedBackup(path, "its description cannot be read: %v", err)
	}
	if b.Format != backupFormat {
		return b, &crm.Error{Code: crm.CodeFormat, Op: "read backup", Item: path, Message: fmt.Sprintf("format %d was written by a newer tradepost; upgrade this one", b.Format)}
	}
	if b.Size != size-int64(trailerEnd)-n {
		return b, damagedBackup(path, "its database is %d bytes and should be %d", size-int64(trailerEnd)-n, b.Size)
	}
	return b, nil
}

func unreadable(path string, err error) error {
	code := crm.CodeInternal
	switch {
	case errors.Is(err, os.ErrNotExist):
		code = crm.CodeNotFound
	case errors.Is(err, os.ErrPermission):
		code = crm.CodeForbidden
	}
	return &crm.Error{Code: code, Op: "read backup", Item: path, Message: "the file cannot be read", Err: err}
}

// VerifyBackup reads a backup file whole: the checksum of the database, what it
// says it holds, and everything that [store.Tx.Check] can check. A returned
// BackupInfo without error is of a file that can be restored by this program.
// Errors are those of ReadBackup, and of code protocol_version for a level that
// this program does not know.
func VerifyBackup(ctx context.Context, path string) (BackupInfo, error) {
	b, err := ReadBackup(path)
	if err != nil {
		return b, err
	}
	if b.Level > syncproto.MaxVersion {
		return b, &crm.Error{Code: syncproto.CodeVersion, Op: "read backup", Item: path, Message: fmt.Sprintf("its cluster had activated version %d, and this program knows %d at most: upgrade it", b.Level, syncproto.MaxVersion)}
	}
	if err := b.checkSum(ctx, path); err != nil {
		return b, err
	}
	db, err := store.Open(path, store.Options{ReadOnly: true})
	if err != nil {
		return b, err
	}
	err = db.View(func(tx *store.Tx) error { return b.check(ctx, path, tx) })
	return b, errors.Join(err, db.Close())
}

func (b BackupInfo) checkSum(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return unreadable(path, err)
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.CopyN(&patient{ctx: ctx, w: sum}, f, b.Size); err != nil {
		return unreadable(path, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != b.SHA256 {
		return damagedBackup(path, "its database has the SHA-256 %s and should have %s", got, b.SHA256)
	}
	return nil
}

// check compares what the database holds with what is said of it.
func (b BackupInfo) check(ctx context.Context, path string, tx *store.Tx) error {
	found, err := tx.Check(ctx)
	if err != nil {
		return err
	}
	if len(found) > 0 {
		return damagedBackup(path, "%d findings, the first: %s %s: %s", len(found), found[0].Bucket, found[0].Item, found[0].Detail)
	}
	got, err := describeBackup(tx, b.Taken)
	if err != nil {
		return err
	}
	got.Size, got.SHA256, got.Taken = b.Size, b.SHA256, b.Taken
	if got != b {
		return damagedBackup(path, "it holds rev %d of timeline %d with state %s, and says rev %d of %d with %s", got.Rev, got.Timeline, got.State, b.Rev, b.Timeline, b.State)
	}
	return nil
}
