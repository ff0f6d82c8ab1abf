package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/master"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
)

// A Restored says what a restore or a promotion made of a master's directory.
type Restored struct {
	master.Restored
	Taken time.Time `json:"taken,omitzero"`  // when the backup was; zero: there was none, as in a promotion
	Aside string    `json:"aside,omitempty"` // where the files that were there before are now; "": there were none
}

// asideNames are the files of a master that a restore moves aside; those of its
// identity stay.
var asideNames = []string{"master.db", "raft", "incoming.db", "distrusted"}

// Restore puts the backup at from in place of what the master in s.Dir had. The
// master must be stopped and is the cluster's only one from then on; its
// certificates, ports and address stay. What was there is moved to a directory
// beside it. Until the last step, which is a rename, nothing is changed that a
// second Restore would not begin with anew.
//
// Errors: locked if the master runs, wrong_cluster for a backup of another
// cluster, those of [master.VerifyBackup], and those of the store.
func Restore(ctx context.Context, s Settings, from string, env Env) (Restored, error) {
	env = env.real()
	id, err := restorable("restore", s, env)
	if err != nil {
		return Restored{}, err
	}
	b, err := master.VerifyBackup(ctx, from)
	if err != nil {
		return Restored{}, err
	}
	if b.Cluster != id.Cluster {
		return Restored{}, &crm.Error{Code: session.CodeWrongCluster, Op: "restore", Item: from, Message: fmt.Sprintf("the backup is of cluster %s, this master of %s: take the right file, or the right directory", b.Cluster, id.Cluster)}
	}
	return putInPlace(ctx, s, id, master.Restoration{From: from, Size: b.Size, Taken: b.Taken}, env)
}

// Promote makes the master in s.Dir the only one of its cluster, with the data
// that it has: for a master that does not vote when those that do are lost for
// good. While they live they go on deciding in the timeline that is left, and
// what they decide is lost to this one. Errors are those of Restore.
func Promote(ctx context.Context, s Settings, env Env) (Restored, error) {
	env = env.real()
	id, err := restorable("promote", s, env)
	if err != nil {
		return Restored{}, err
	}
	path := s.path("master.db")
	if err := promotable(path, id); err != nil {
		return Restored{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return Restored{}, dirError("promote", path, "%v", err)
	}
	return putInPlace(ctx, s, id, master.Restoration{From: path, Size: info.Size()}, env)
}

// promotable checks that a master's own file can be promoted.
func promotable(path string, id Identity) error {
	if missing(path) {
		return &crm.Error{Code: crm.CodeNotFound, Op: "promote", Item: path, Message: "this master has no data: restore a backup instead"}
	}
	db, err := store.Open(path, store.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	err = db.View(func(tx *store.Tx) error {
		rev, err := tx.Rev()
		if err == nil && rev == 0 {
			err = &crm.Error{Code: crm.CodeNotFound, Op: "promote", Item: path, Message: "this master has no data: restore a backup instead"}
		}
		return err
	})
	return errors.Join(err, db.Close())
}

// restorable returns whose directory it is, if a master may begin anew there.
func restorable(op string, s Settings, env Env) (Identity, error) {
	if err := s.Validate(); err != nil {
		return Identity{}, err
	}
	id, err := ReadIdentity(s.Dir)
	if err != nil {
		return id, err
	}
	if id.Role != auth.RoleMaster {
		return id, dirError(op, s.Dir, "the directory is of a replica, which gets its data from the masters; run this where a master was")
	}
	ca, err := auth.LoadCA(s.Dir)
	if err != nil {
		return id, err
	}
	cert, err := auth.LoadNode(s.Dir, ca.Cert, env.Now())
	if err != nil {
		return id, err
	}
	if err := id.bears(cert.Identity); err != nil {
		return id, err
	}
	return id, stopped(op, s.path("master.db"))
}

// stopped returns an error of code locked if a process has the file open.
// Whatever else is wrong with it, it is moved aside.
func stopped(op, path string) error {
	if missing(path) {
		return nil
	}
	db, err := store.Open(path, store.Options{ReadOnly: true})
	switch {
	case err == nil:
		return db.Close()
	case crm.CodeOf(err) == crm.CodeLocked:
		return &crm.Error{Code: crm.CodeLocked, Op: op, Item: path, Message: "the master runs: stop it first, and the other masters too", Err: err}
	}
	return nil
}

// putInPlace makes the new files beside the old ones and exchanges them.
func putInPlace(ctx context.Context, s Settings, id Identity, o master.Restoration, env Env) (Restored, error) {
	work := s.path("restoring")
	if err := errors.Join(os.RemoveAll(work), os.Mkdir(work, 0o700)); err != nil {
		return Restored{}, dirError("restore", work, "%v", err)
	}
	o.Dir, o.Node, o.Raft, o.LogStore = work, id.Node, advertised(s.Advertise.Raft, s.Listen.Raft), s.RaftLog
	o.Now, o.Rand = env.Now(), env.Rand
	made, err := o.Run(ctx)
	if err != nil {
		return Restored{}, errors.Join(noRoom("restore", work, err), os.RemoveAll(work))
	}
	done := Restored{Restored: made, Taken: o.Taken}
	if done.Aside, err = setAside(s, env); err != nil {
		return done, fmt.Errorf("restore: move the old files aside: %w", err)
	}
	for _, name := range []string{"raft", "master.db"} {
		if err := os.Rename(filepath.Join(work, name), s.path(name)); err != nil {
			return done, fmt.Errorf("restore: put %s in place; run it again: %w", name, err)
		}
	}
	id.Bootstrap = false
	return done, errors.Join(os.Remove(work), syncDir(s.Dir), writeIdentity(s.Dir, id))
}

// setAside moves what a master had to a directory of its own, the database last:
// it is what says that something was there.
func setAside(s Settings, env Env) (string, error) {
	var found []string
	for _, name := range asideNames {
		if _, err := os.Lstat(s.path(name)); err == nil {
			found = append([]string{name}, found...)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	if len(found) == 0 {
		return "", nil
	}
	aside, err := newAside(s.path("before-" + env.Now().UTC().Format("20060102-150405")))
	if err != nil {
		return "", err
	}
	for _, name := range found {
		if err := os.Rename(s.path(name), filepath.Join(aside, name)); err != nil {
			return aside, err
		}
	}
	return aside, errors.Join(syncDir(aside), syncDir(s.Dir))
}

// newAside makes the directory, under another name if there is one.
func newAside(path string) (string, error) {
	for {
		err := os.Mkdir(path, 0o700)
		if !errors.Is(err, fs.ErrExist) {
			return path, err
		}
		path += "+"
	}
}
