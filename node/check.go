package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/httpapi"
	"github.com/tradepost-crm/tradepost/replica"
	"github.com/tradepost-crm/tradepost/store"
)

// CheckDir checks the files of a stopped node as [Node] checks those of a running
// one. They are only read: a replica's are copied to a directory in temp first
// ("" for the system's), as opening a replica repairs what it can.
func CheckDir(ctx context.Context, dir, temp string) ([]httpapi.Finding, error) {
	id, err := ReadIdentity(dir)
	if err != nil {
		return nil, err
	}
	if id.Role == auth.RoleMaster {
		return checkMasterFile(ctx, filepath.Join(dir, "master.db"))
	}
	base, journal := filepath.Join(dir, "base.db"), filepath.Join(dir, "journal.db")
	switch {
	case missing(base) && missing(journal):
		return nil, nil // it has never run
	case missing(journal):
		return nil, &crm.Error{Code: crm.CodeCorrupt, Op: "check", Item: journal, Message: "the file is missing: edits that were not decided were in it; restore it from a backup"}
	case missing(base):
		return nil, &crm.Error{Code: crm.CodeCorrupt, Op: "check", Item: base, Message: "the file is missing; run the node, and it is fetched from the masters again. The journal cannot be checked without it"}
	}
	return checkReplicaFiles(ctx, id, base, journal, temp)
}

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func checkMasterFile(ctx context.Context, path string) (out []httpapi.Finding, err error) {
	if missing(path) {
		return nil, nil // it has never run
	}
	db, err := store.Open(path, store.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	err = db.View(func(tx *store.Tx) error {
		found, err := tx.Check(ctx)
		out = masterFindings(found)
		return err
	})
	return out, errors.Join(err, db.Close())
}

func masterFindings(found []store.Finding) []httpapi.Finding {
	out := make([]httpapi.Finding, 0, len(found))
	for _, f := range found {
		out = append(out, finding("master", f))
	}
	return out
}

func finding(file string, f store.Finding) httpapi.Finding {
	out := httpapi.Finding{Kind: file + "/" + f.Bucket, Item: f.Item, Message: f.Detail, Territory: f.Territory}
	if f.Territory != 0 {
		out.Bucket = &f.DigestBucket
	}
	return out
}

func replicaFindings(found []replica.Finding) []httpapi.Finding {
	out := make([]httpapi.Finding, 0, len(found))
	for _, f := range found {
		out = append(out, finding(f.File, f.Finding))
	}
	return out
}

// checkReplicaFiles holds both files open while it copies them, so that no node
// starts to write meanwhile and a file that is not usable at all is refused as it
// is, not as its repaired copy.
func checkReplicaFiles(ctx context.Context, id Identity, base, journal, temp string) (out []httpapi.Finding, err error) {
	work, err := os.MkdirTemp(temp, "tradepost-check-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	b, err := store.Open(base, store.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer b.Close() // read-only: there is nothing to lose
	j, err := store.OpenJournal(journal, store.Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer j.Close()
	for _, path := range []string{base, journal} {
		if err := copyFile(path, filepath.Join(work, filepath.Base(path))); err != nil {
			return nil, fmt.Errorf("check: copy %s: %w", path, err)
		}
	}
	return checkReplicaCopy(ctx, id, work)
}

func checkReplicaCopy(ctx context.Context, id Identity, dir string) ([]httpapi.Finding, error) {
	r, err := replica.Open(replica.Config{
		Dir: dir, ID: replica.ID{Cluster: id.Cluster, Site: id.Site, Node: id.Node}, Masters: func() []string { return nil },
		Dial: func(context.Context, string) (net.Conn, error) { return nil, errors.New("a check opens no session") },
		Now:  time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	found, err := r.Check(ctx)
	return replicaFindings(found), errors.Join(err, r.Close())
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
