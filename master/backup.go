package master

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
)

// Backup writes a backup file of what is committed here, from one read
// transaction: see [BackupInfo]. Any master can. Nothing knows of the file until
// Announce is told that it is safe. Until Backup returns, this master's file can
// not shrink and no snapshot of the leader can be installed.
func (m *Master) Backup(ctx context.Context, w io.Writer) (BackupInfo, error) {
	var info BackupInfo
	err := m.ledger.db().View(func(tx *store.Tx) (err error) {
		if info, err = describeBackup(tx, m.now()); err != nil {
			return err
		}
		sum := sha256.New()
		to := &patient{ctx: ctx, w: w}
		n, err := tx.WriteTo(io.MultiWriter(to, sum))
		if err = cmp.Or(to.err, err); err != nil {
			return err
		}
		info.Size, info.SHA256 = n, hex.EncodeToString(sum.Sum(nil))
		_, err = w.Write(info.appendTrailer(nil))
		return err
	})
	if err != nil {
		return info, fmt.Errorf("write backup: %w", err)
	}
	m.log.Info("a backup was written; it counts once it is announced", "rev", info.Rev, "bytes", info.Size)
	return info, nil
}

// A patient writer writes until ctx ends, and remembers why it could not.
type patient struct {
	ctx context.Context
	w   io.Writer
	err error
}

func (p *patient) Write(b []byte) (n int, err error) {
	if err = p.ctx.Err(); err == nil {
		n, err = p.w.Write(b)
	}
	p.err = err
	return n, err
}

// describeBackup says what a transaction holds.
func describeBackup(tx *store.Tx, now time.Time) (b BackupInfo, err error) {
	b.Format, b.Taken = backupFormat, now.UTC()
	if b.Rev, err = tx.Rev(); err != nil {
		return b, err
	}
	if b.Rev == 0 {
		return b, &crm.Error{Code: crm.CodeUnavailable, Op: "back up", Message: "this master has no data yet; ask another one"}
	}
	if b.Timeline, err = tx.Timeline(); err != nil {
		return b, err
	}
	if b.Level, err = session.LevelIn(tx); err != nil {
		return b, err
	}
	cluster, err := tx.Meta(metaCluster)
	if err != nil {
		return b, err
	}
	at, err := appliedIn(tx)
	if err != nil {
		return b, err
	}
	state, err := accumulate(tx, b.Rev)
	b.Cluster, b.RaftIndex, b.RaftTerm, b.State = string(cluster), at.index, at.term, hex.EncodeToString(state[:])
	return b, err
}

// Announce logs that a backup file is written and checked, here or through the
// leader: from their next session on, branches may forget what it covers. The
// error is of code wrong_cluster or invalid for a backup that is not of what the
// masters hold, unavailable while not every master knows of backups, and
// otherwise as propose's.
func (m *Master) Announce(ctx context.Context, b BackupInfo) error {
	e, err := b.entry()
	if err != nil {
		return err
	}
	if err := m.announceable(b); err != nil {
		return err
	}
	return m.retry(ctx, func() error {
		id, addr, self := m.ledger.leader()
		switch {
		case self:
			_, _, err := m.ledger.propose(ctx, e)
			return err
		case id == "":
			return session.NoLeader("announce backup")
		}
		return m.ledger.passOn(ctx, addr, e)
	})
}

// announceable judges a backup by what this master holds.
func (m *Master) announceable(b BackupInfo) error {
	return m.ledger.db().View(func(tx *store.Tx) error {
		level, err := session.LevelIn(tx)
		if err != nil {
			return err
		}
		timeline, err := tx.Timeline()
		if err != nil {
			return err
		}
		head, err := tx.Rev()
		switch {
		case err != nil:
			return err
		case level < levelBackups:
			return &crm.Error{Code: crm.CodeUnavailable, Op: "announce backup", Message: "not every master knows of backups yet; the file is good: announce it when the upgrade is done"}
		case b.Cluster != m.id.Cluster:
			return b.foreign("announce backup", m.id.Cluster)
		case b.Timeline != timeline || b.Rev > head:
			return &crm.Error{Code: crm.CodeInvalid, Op: "announce backup", Item: fmt.Sprintf("rev %d", b.Rev), Message: "the backup is not of what this master holds: it was taken before a restore, or of masters that went another way"}
		}
		return nil
	})
}

// backup notes what a backup covers.
func (f *FSM) backup(e BackupEntry) (Verdict, error) {
	timeline, err := f.tx.Timeline()
	if err != nil {
		return Verdict{}, err
	}
	level, err := session.LevelIn(f.tx)
	if err != nil {
		return Verdict{}, err
	}
	if e.Timeline != timeline || e.Rev > f.rev || level < levelBackups {
		return Verdict{Err: &crm.Error{Code: crm.CodeInvalid, Op: "announce backup", Item: fmt.Sprintf("rev %d", e.Rev), Message: "the backup is not of what the masters hold now"}}, nil
	}
	last, err := session.BackupIn(f.tx)
	if err != nil || e.Rev < last.Rev || e.Rev == last.Rev && e.TakenMillis <= last.Millis {
		return Verdict{}, err
	}
	f.cfg.Logger.Info("a backup is announced", "rev", e.Rev, "bytes", e.Size, "sha256", hex.EncodeToString(e.Sum[:]))
	return Verdict{}, session.SetBackup(f.tx, session.Covered{Rev: e.Rev, Millis: e.TakenMillis})
}
