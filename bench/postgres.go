package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// postgresBin is where Debian's PostgreSQL 15 has its programs.
const postgresBin = "/usr/lib/postgresql/15/bin"

// pgClients is how many connections are opened: one a client.
const pgClients = 64

// A pg is a PostgreSQL server of our own that listens on a unix socket only.
type pg struct {
	server *exec.Cmd
	log    *os.File
	conns  []*pgx.Conn
	texts  map[string]string // statements with numbered parameters
}

// startPostgres makes a server of the data set in dir. The error wraps
// fs.ErrNotExist if PostgreSQL is not installed.
func startPostgres(ctx context.Context, dir string, d *data) (_ *pg, err error) {
	if _, err := os.Stat(filepath.Join(postgresBin, "initdb")); err != nil {
		return nil, err
	}
	p := &pg{texts: map[string]string{}}
	for _, text := range []string{pointSQL, listSQL, placeSQL, sizeSQL, accountSQL, timelineSQL, openSQL, revenueSQL, monthSQL, pipelineSQL, insertSQL} {
		p.texts[text] = numbered(text)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if err := p.start(ctx, dir); err != nil {
		return nil, fmt.Errorf("start PostgreSQL: %w", err)
	}
	if err := p.connect(ctx, dir); err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	if err := p.load(ctx, d); err != nil {
		return nil, fmt.Errorf("load PostgreSQL: %w", err)
	}
	return p, nil
}

// program returns a command that runs as PostgreSQL's user, because PostgreSQL
// refuses to run as root.
func program(ctx context.Context, name string, dir string, args ...string) (*exec.Cmd, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(postgresBin, name), args...)
	cmd.Dir, cmd.Env = dir, []string{"LC_ALL=C.UTF-8", "PATH=" + os.Getenv("PATH")}
	if os.Geteuid() != 0 {
		return cmd, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, err1 := strconv.Atoi(u.Uid)
	gid, err2 := strconv.Atoi(u.Gid)
	if err := errors.Join(err1, err2, os.Chown(dir, uid, gid)); err != nil {
		return nil, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, Setpgid: true}
	return cmd, nil
}

func (p *pg) start(ctx context.Context, dir string) error {
	files := filepath.Join(dir, "data")
	initdb, err := program(ctx, "initdb", dir, "-A", "trust", "-U", "bench", "-E", "UTF8", "--locale=C.UTF-8", "-D", files)
	if err != nil {
		return err
	}
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	if p.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		return err
	}
	// The server outlives ctx: close stops it in order.
	server, err := program(context.WithoutCancel(ctx), "postgres", dir, "-D", files, "-k", dir, "-c", "listen_addresses=", "-c", "shared_buffers=512MB",
		"-c", "random_page_cost=1.1", "-c", "fsync=on", "-c", "synchronous_commit=on", "-c", "max_connections=100")
	if err != nil {
		return err
	}
	server.Stdout, server.Stderr = p.log, p.log
	if err := server.Start(); err != nil {
		return err
	}
	p.server = server
	return nil
}

// connect opens a connection a client. The server takes some time to come up.
func (p *pg) connect(ctx context.Context, dir string) error {
	cfg, err := pgx.ParseConfig("host=" + dir + " user=bench dbname=postgres")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for len(p.conns) < pgClients {
		c, err := pgx.ConnectConfig(ctx, cfg)
		if err == nil {
			p.conns = append(p.conns, c)
			continue
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
	return nil
}

func (p *pg) load(ctx context.Context, d *data) error {
	c := p.conns[0]
	if _, err := c.Exec(ctx, schemaSQL); err != nil {
		return err
	}
	for _, t := range d.tables() {
		next, stop := iter.Pull(t.rows)
		_, err := c.CopyFrom(ctx, pgx.Identifier{t.name}, t.columns, pgx.CopyFromFunc(func() ([]any, error) {
			values, _ := next() // nil ends the copy
			return values, nil
		}))
		stop()
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	for _, text := range append(strings.Split(indexSQL, ";"), "VACUUM ANALYZE", "CHECKPOINT") {
		if _, err := c.Exec(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

// query reads rows without decoding them unless row asks for values.
func (p *pg) query(ctx context.Context, client int, text string, row func([]any), args ...any) (n int, err error) {
	rows, err := p.conns[client].Query(ctx, p.texts[text], args...)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for ; rows.Next(); n++ {
		if row == nil {
			rows.RawValues()
			continue
		}
		values, err := rows.Values()
		if err != nil {
			return n, err
		}
		row(values)
	}
	return n, rows.Err()
}

func (p *pg) exec(ctx context.Context, client int, text string, args ...any) error {
	_, err := p.conns[client].Exec(ctx, p.texts[text], args...)
	return err
}

// close ends the server that startPostgres started and waits for it.
func (p *pg) close() error {
	var errs []error
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, c := range p.conns {
		errs = append(errs, c.Close(ctx))
	}
	if p.server != nil {
		errs = append(errs, p.server.Process.Signal(syscall.SIGINT)) // fast shutdown
		errs = append(errs, p.server.Wait())
	}
	if p.log != nil {
		errs = append(errs, p.log.Close())
	}
	return errors.Join(errs...)
}

// peers makes the databases beside ours.
func (b *bench) peers(ctx context.Context, d *data) (map[string]peer, func() error, error) {
	began := time.Now()
	s, err := openSQLite(ctx, filepath.Join(b.dir, "sqlite.db"), d)
	if err != nil {
		return nil, nil, err
	}
	b.note("SQLite loaded %d accounts and what belongs to them in %s", len(d.accounts)-1, span(time.Since(began)))
	all := map[string]peer{sqliteDB: s}
	dir, err := b.subdir("postgres")
	if err != nil {
		return nil, nil, errors.Join(err, s.close())
	}
	began = time.Now()
	p, err := startPostgres(ctx, dir, d)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		b.note("PostgreSQL: not installed (no %s)", postgresBin)
		return all, s.close, nil
	case err != nil:
		b.note("PostgreSQL: could not be started: %v", err)
		return all, s.close, nil
	}
	b.note("PostgreSQL started and loaded in %s", span(time.Since(began)))
	all[postgres] = p
	return all, func() error { return errors.Join(s.close(), p.close()) }, nil
}
