package master

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// A master that joins fetches the decided records from another one before it
// starts Raft, which then has only the last entries to send. Raft could send the
// records itself, but begins anew whenever the connection breaks, and its
// follower does nothing else meanwhile.
//
//	ask      only 1 ‖ sum 32 ‖ offset 8      only 1: no other copy than that of sum will do
//	answer   1 ‖ sum 32 ‖ size 8 ‖ offset 8 ‖ bytes from offset on, or
//	         2 ‖ length 2 ‖ text             another master may do better, or
//	         3 ‖ length 2 ‖ text             none will
//
// Sum is the SHA-256 of a copy, zero if the one who asks has begun none. Numbers
// are big-endian.
const (
	seedHere    = 1
	seedElse    = 2
	seedRefused = 3

	seedAskSize    = 1 + sha256.Size + 8
	seedAnswerSize = sha256.Size + 8 + 8
)

const (
	seedChunk    = 256 << 10
	seedPatience = 30 * time.Second // for a chunk
	seedMaking   = 10 * time.Minute // for the first byte of the answer, before which a copy may have to be made
	seedRounds   = 6                // attempts in a row that may bring nothing
	seedLoyalty  = 3                // of them, how many ask for the rest of what has begun only
)

// A seeder fetches the records of a running cluster into dir.
type seeder struct {
	dir   string
	peers []string
	dial  func(ctx context.Context, addr string) (net.Conn, error) // says connSeed
	log   *slog.Logger
}

// Seed fetches the decided records from one of the masters at the Raft addresses
// peers into cfg.Dir. It is for a master that has joined and not run yet, and
// comes before Open; if there are records it does nothing. What it has fetched
// when the connection breaks, ctx ends or the process is killed it does not fetch
// again, as long as a master keeps the same copy. Without Seed, Raft sends the
// records. The error is of code distrusted if the node votes already, which means
// that its files are gone, or was removed, and else that of the last attempt.
func Seed(ctx context.Context, cfg Config, peers []string) error {
	cfg = cfg.withDefaults()
	config := auth.ClientTLS(cfg.Node, cfg.CA.Cert, cfg.Now, auth.ExpectMaster, auth.ALPNRaft)
	s := &seeder{dir: cfg.Dir, peers: peers, log: cfg.Logger}
	s.dial = func(ctx context.Context, addr string) (net.Conn, error) {
		raw, err := cfg.Dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		c := tls.Client(raw, config)
		err = c.HandshakeContext(ctx)
		if err == nil {
			_, err = c.Write([]byte{connSeed})
		}
		if err != nil {
			return nil, errors.Join(err, raw.Close())
		}
		return c, nil
	}
	return s.run(ctx)
}

func (s *seeder) run(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(s.dir, "master.db")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for idle := 0; ; idle++ {
		before := s.begun().size
		err := s.round(ctx, before == 0 || idle > seedLoyalty)
		if err == nil || crm.CodeOf(err) == CodeDistrusted || ctx.Err() != nil {
			return err
		}
		if s.begun().size > before {
			idle = -1
		}
		if idle == seedRounds {
			return err
		}
		s.log.Info("the records are not here yet", "bytes", s.begun().size, "error", err)
		select {
		case <-time.After(time.Duration(2+idle) * time.Second):
		case <-ctx.Done():
		}
	}
}

// round asks each peer for the rest of what has begun, or for any copy, until one
// sends something.
func (s *seeder) round(ctx context.Context, any bool) error {
	err := error(&crm.Error{Code: crm.CodeUnavailable, Op: "fetch records", Message: "no master is known; say where one is, or let Raft send them"})
	for _, addr := range s.peers {
		before := s.begun()
		if err = s.fetch(ctx, addr, !any); err == nil || crm.CodeOf(err) == CodeDistrusted || s.begun() != before {
			return err
		}
	}
	return err
}

// A partial is a copy that has begun to arrive.
type partial struct {
	path string // "" if there is none
	sum  [sha256.Size]byte
	size int64 // what is here
}

const partialName = "seed-*.part"

func (s *seeder) begun() (p partial) {
	paths, _ := filepath.Glob(filepath.Join(s.dir, partialName))
	for _, path := range paths {
		hexed := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(path), "seed-"), ".part")
		sum, err := hex.DecodeString(hexed)
		st, serr := os.Stat(path)
		if err == nil && serr == nil && len(sum) == sha256.Size {
			p = partial{path: path, size: st.Size()}
			copy(p.sum[:], sum)
		}
	}
	return p
}

// drop forgets what has begun.
func (s *seeder) drop() error {
	p := s.begun()
	if p.path == "" {
		return nil
	}
	return os.Remove(p.path)
}

// fetch gets what one master has, from where the last attempt ended.
func (s *seeder) fetch(ctx context.Context, addr string, only bool) error {
	c, err := s.dial(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	have := s.begun()
	want, size, err := s.ask(c, have, only)
	if err != nil {
		return fmt.Errorf("fetch records from %s: %w", addr, err)
	}
	if want != have.sum {
		if err := s.drop(); err != nil {
			return err
		}
	}
	path := filepath.Join(s.dir, "seed-"+hex.EncodeToString(want[:])+".part")
	if err := receiveSeed(c, path, size); err != nil {
		return fmt.Errorf("fetch records from %s: %w", addr, err)
	}
	return s.install(path, want)
}

// ask sends the question and reads the head of the answer.
func (s *seeder) ask(c net.Conn, have partial, only bool) (sum [sha256.Size]byte, size int64, err error) {
	if err := c.SetDeadline(time.Now().Add(seedMaking)); err != nil {
		return sum, 0, err
	}
	q := make([]byte, 1, seedAskSize)
	if only {
		q[0] = 1
	}
	q = binary.BigEndian.AppendUint64(append(q, have.sum[:]...), uint64(have.size))
	if _, err := c.Write(q); err != nil {
		return sum, 0, err
	}
	var verdict [1]byte
	if _, err := io.ReadFull(c, verdict[:]); err != nil {
		return sum, 0, err
	}
	if verdict[0] != seedHere {
		return sum, 0, readRefusal(c, verdict[0])
	}
	var a [seedAnswerSize]byte
	if _, err := io.ReadFull(c, a[:]); err != nil {
		return sum, 0, err
	}
	copy(sum[:], a[:])
	size = int64(binary.BigEndian.Uint64(a[sha256.Size:]))
	offset := int64(binary.BigEndian.Uint64(a[sha256.Size+8:]))
	if offset != 0 && (sum != have.sum || offset != have.size) || offset == 0 && sum == have.sum && have.size != 0 {
		return sum, 0, fmt.Errorf("it goes on at %d, and %d bytes are here", offset, have.size)
	}
	return sum, size, nil
}

func readRefusal(c net.Conn, verdict byte) error {
	var n [2]byte
	if _, err := io.ReadFull(c, n[:]); err != nil {
		return err
	}
	text := make([]byte, binary.BigEndian.Uint16(n[:]))
	if _, err := io.ReadFull(c, text); err != nil {
		return err
	}
	code := crm.CodeUnavailable
	if verdict == seedRefused {
		code = CodeDistrusted
	}
	return &crm.Error{Code: code, Op: "fetch records", Message: string(text)}
}

// receiveSeed appends to the file at path until it has size bytes.
func receiveSeed(c net.Conn, path string, size int64) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	for here := st.Size(); here < size; {
		if err := c.SetReadDeadline(time.Now().Add(seedPatience)); err != nil {
			return err
		}
		n, err := io.CopyN(f, c, min(seedChunk, size-here))
		here += n
		if err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", here, size, err)
		}
	}
	return f.Sync()
}

// install makes a copy that is complete the records of this directory.
func (s *seeder) install(path string, want [sha256.Size]byte) error {
	got, err := sumFile(path)
	if err != nil {
		return err
	}
	if got != want {
		return errors.Join(errors.New("the copy was damaged on its way, and is fetched again"), s.drop())
	}
	at, err := appliedInFile(path)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "raft"), 0o700); err != nil {
		return err
	}
	if err := noteInstall(s.dir, at); err != nil {
		return err
	}
	if err := os.Rename(path, filepath.Join(s.dir, "master.db")); err != nil {
		return err
	}
	s.log.Info("the records are here", "raft_index", at.index)
	return syncDir(s.dir)
}

func sumFile(path string) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	h.Sum(sum[:0])
	return sum, err
}

func appliedInFile(path string) (at position, err error) {
	db, err := store.Open(path, store.Options{ReadOnly: true})
	if err != nil {
		return at, err
	}
	err = db.View(func(tx *store.Tx) error {
		at, err = appliedIn(tx)
		return err
	})
	return at, errors.Join(err, db.Close())
}
