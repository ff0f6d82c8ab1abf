package master

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// saveBackup writes a backup of the master to a file and checks it.
func (r *rig) saveBackup(m *rigMaster) (string, BackupInfo) {
	r.t.Helper()
	path := filepath.Join(r.t.TempDir(), "backup.db")
	f, err := os.Create(path)
	if err != nil {
		r.t.Fatal(err)
	}
	said, err := m.Backup(r.t.Context(), f)
	if err := errors.Join(err, f.Close()); err != nil {
		r.t.Fatal(err)
	}
	got, err := VerifyBackup(r.t.Context(), path)
	if err != nil || got != said {
		r.t.Fatalf("the file holds %+v, written was %+v, %v", got, said, err)
	}
	return path, got
}

// A backup holds what was decided. Announced through a follower, every master and
// every Welcome says what it covers, and an older one changes nothing.
func TestBackup_IsAnnouncedThroughAnyMaster(t *testing.T) {
	inRig(t, 3, func(t *testing.T, r *rig) {
		rev := r.commit(r.leader(), createAccount(newID(), "acme", "north"))
		m := r.follower()
		r.waitFor("the follower to hold the edit", func() bool { return m.ledger.head() >= rev })
		_, first := r.saveBackup(m)
		r.commit(r.leader(), createAccount(newID(), "fjord", "north"))
		r.waitFor("the follower to hold the next edit", func() bool { return m.ledger.head() > rev })
		_, second := r.saveBackup(m)
		if first.Rev != rev || second.Rev != rev+1 || first.Cluster != "c1" || first.SHA256 == second.SHA256 {
			t.Errorf("the backups hold %+v and %+v, the edits were %d and the next", first, second, rev)
		}
		for _, b := range []BackupInfo{second, first} {
			if err := m.Announce(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
		for _, m := range r.masters {
			r.waitFor("the announcement", func() bool { return m.Status().Backup == second.Rev })
			if at := m.Status().BackupAt; at.UnixMilli() != second.Taken.UnixMilli() {
				t.Errorf("master %d: taken %v, want %v", m.node, at, second.Taken)
			}
			s, err := m.standing(1)
			if err != nil || s.Welcome().Backup != second.Rev {
				t.Errorf("master %d welcomes with backup %d, %v", m.node, s.Welcome().Backup, err)
			}
		}
	})
}

// Nobody is told of a backup that is not of what the masters hold.
func TestBackup_WrongOnesAreNotAnnounced(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		m := r.leader()
		_, good := r.saveBackup(m)
		for name, c := range map[string]struct {
			edit func(*BackupInfo)
			want crm.Code
		}{
			"of another cluster":  {func(b *BackupInfo) { b.Cluster = "c2" }, session.CodeWrongCluster},
			"of another timeline": {func(b *BackupInfo) { b.Timeline += 2 }, crm.CodeInvalid},
			"of the future":       {func(b *BackupInfo) { b.Rev += 100 }, crm.CodeInvalid},
			"without a checksum":  {func(b *BackupInfo) { b.SHA256 = "" }, crm.CodeInvalid},
			"of nothing":          {func(b *BackupInfo) { b.Rev = 0 }, crm.CodeInvalid},
		} {
			b := good
			c.edit(&b)
			if err := m.Announce(t.Context(), b); crm.CodeOf(err) != c.want {
				t.Errorf("%s: %v, want code %s", name, err, c.want)
			}
		}
		if got := m.Status().Backup; got != 0 {
			t.Errorf("a wrong backup was announced: %d", got)
		}
	})
}

// A cluster in which a master may not know of backups logs no announcement: that
// one could not read it.
func TestBackup_IsNotAnnouncedBeforeEveryMasterKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, 1, func(_ int, c *Config) { c.Protocol = 1 })
		_, b := r.saveBackup(r.leader())
		if err := r.leader().Announce(t.Context(), b); crm.CodeOf(err) != crm.CodeUnavailable {
			t.Errorf("announced at level 1: %v", err)
		}
	})
	b := newBench(t)
	e := BackupEntry{Timeline: 7, Rev: 1, TakenMillis: 5}
	if v := b.apply(e); crm.CodeOf(v.Err) != crm.CodeInvalid {
		t.Errorf("logged at level 1: %+v", v)
	}
	b.must(ActivateEntry{levelBackups})
	b.must(e)
	if got, err := session.BackupIn(b.tx); err != nil || got != (session.Covered{Rev: 1, Millis: 5}) {
		t.Errorf("kept %+v, %v", got, err)
	}
}

// A file is a backup only if every byte of it is: a cut anywhere, a changed byte,
// and what does not hold what it says, are told from one.
func TestVerifyBackup_RefusesDamage(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		r.commit(r.leader(), createAccount(newID(), "acme", "north"))
		path, info := r.saveBackup(r.leader())
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		database := whole[:info.Size]
		says := func(edit func(*BackupInfo)) []byte {
			b := info
			edit(&b)
			return b.appendTrailer(bytes.Clone(database))
		}
		flipped := func(at int64) []byte { b := bytes.Clone(whole); b[at] ^= 0x40; return b }
		for name, c := range map[string]struct {
			file []byte
			want crm.Code
		}{
			"nothing":                    {nil, crm.CodeCorrupt},
			"only a database":            {database, crm.CodeCorrupt},
			"cut in the middle":          {whole[:len(whole)/2], crm.CodeCorrupt},
			"the last byte is missing":   {whole[:len(whole)-1], crm.CodeCorrupt},
			"a byte of a page changed":   {flipped(info.Size / 2), crm.CodeCorrupt},
			"a byte of the description":  {flipped(info.Size + 20), crm.CodeCorrupt},
			"a piece is missing":         {append(bytes.Clone(whole[:4096]), whole[8192:]...), crm.CodeCorrupt},
			"it says another rev":        {says(func(b *BackupInfo) { b.Rev++ }), crm.CodeCorrupt},
			"it says another state":      {says(func(b *BackupInfo) { b.State = b.SHA256 }), crm.CodeCorrupt},
			"it says another cluster":    {says(func(b *BackupInfo) { b.Cluster = "c2" }), crm.CodeCorrupt},
			"a newer format":             {says(func(b *BackupInfo) { b.Format = 2 }), crm.CodeFormat},
			"a level nobody knows yet":   {says(func(b *BackupInfo) { b.Level = syncproto.MaxVersion + 1 }), syncproto.CodeVersion},
			"it was left as it was made": {whole, ""},
		} {
			bad := filepath.Join(t.TempDir(), "b.db")
			if err := os.WriteFile(bad, c.file, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := VerifyBackup(t.Context(), bad); crm.CodeOf(err) != c.want {
				t.Errorf("%s: %v, want code %q", name, err, c.want)
			}
		}
		if _, err := VerifyBackup(t.Context(), path+".not"); crm.CodeOf(err) != crm.CodeNotFound {
			t.Errorf("no file: %v", err)
		}
	})
}

// A backup whose reader goes away fails, and holds nothing up after that.
func TestBackup_EndsWithItsReader(t *testing.T) {
	inRig(t, 1, func(t *testing.T, r *rig) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := r.leader().Backup(ctx, new(bytes.Buffer)); !errors.Is(err, context.Canceled) {
			t.Errorf("written for nobody: %v", err)
		}
		if got := r.leader().ledger.db().Stats().OpenReads; got != 0 {
			t.Errorf("%d read transactions are open", got)
		}
	})
}
