package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"

	_ "modernc.org/sqlite"
)

// A sqlite is a database file with one connection, which the clients share:
// SQLite has one writer.
type sqlite struct {
	db *sql.DB

	mu    sync.Mutex // protects stmts
	stmts map[string]*sql.Stmt
}

// openSQLite makes a database of the data set. Commits are durable: WAL with
// synchronous=FULL. All of it fits the cache.
func openSQLite(ctx context.Context, path string, d *data) (*sqlite, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=cache_size(-524288)&_pragma=temp_store(MEMORY)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	s := &sqlite{db: db, stmts: map[string]*sql.Stmt{}}
	if err := s.load(ctx, d); err != nil {
		return nil, errors.Join(fmt.Errorf("load SQLite: %w", err), s.close())
	}
	return s, nil
}

func (s *sqlite) load(ctx context.Context, d *data) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.ExecContext(ctx, schemaSQL); err != nil {
		return err
	}
	for _, t := range d.tables() {
		marks := strings.TrimSuffix(strings.Repeat("?,", len(t.columns)), ",")
		insert, err := tx.PrepareContext(ctx, fmt.Sprintf("INSERT INTO %s(%s) VALUES(%s)", t.name, strings.Join(t.columns, ","), marks))
		if err != nil {
			return err
		}
		for values := range t.rows {
			if _, err := insert.ExecContext(ctx, values...); err != nil {
				return err
			}
		}
	}
	if _, err := tx.ExecContext(ctx, indexSQL); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	_, err = s.db.ExecContext(ctx, "ANALYZE; PRAGMA wal_checkpoint(TRUNCATE)")
	return err
}

func (s *sqlite) stmt(ctx context.Context, text string) (*sql.Stmt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.stmts[text]; st != nil {
		return st, nil
	}
	st, err := s.db.PrepareContext(ctx, text)
	if err == nil {
		s.stmts[text] = st
	}
	return st, err
}

func (s *sqlite) query(ctx context.Context, _ int, text string, row func([]any), args ...any) (n int, err error) {
	st, err := s.stmt(ctx, text)
	if err != nil {
		return 0, err
	}
	rows, err := st.QueryContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return 0, err
	}
	values, into := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	for ; rows.Next(); n++ {
		if err := rows.Scan(into...); err != nil {
			return n, err
		}
		if row != nil {
			row(values)
		}
	}
	return n, rows.Err()
}

func (s *sqlite) exec(ctx context.Context, _ int, text string, args ...any) error {
	st, err := s.stmt(ctx, text)
	if err != nil {
		return err
	}
	_, err = st.ExecContext(ctx, args...)
	return err
}

func (s *sqlite) close() error { return s.db.Close() }
