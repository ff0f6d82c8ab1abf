package master

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/tradepost-crm/tradepost/auth"
	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
)

// seedAge is how long a copy of the records is kept for masters that join. One
// that is older is made anew; Raft sends what happened since.
const seedAge = time.Hour

// A seedStore keeps a copy of the records, so that a transfer can go on where it
// broke: the file itself changes, and a read transaction held open for that would
// keep every page from being used again.
type seedStore struct {
	path string
	data *store.DB

	mu    sync.Mutex // protects the rest; held while a copy is made
	size  int64      // 0: there is none
	sum   [sha256.Size]byte
	stale *time.Timer // drops the copy
}

func newSeedStore(dir string, data *store.DB) *seedStore {
	s := &seedStore{path: filepath.Join(dir, "seed.db"), data: data}
	s.drop() // one that an earlier process left
	return s
}

// take opens the copy, and makes one if there is none.
func (s *seedStore) take() (f *os.File, size int64, sum [sha256.Size]byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size == 0 {
		if err := s.make(); err != nil {
			return nil, 0, sum, errors.Join(fmt.Errorf("copy the records: %w", err), os.Remove(s.path))
		}
		s.stale = time.AfterFunc(seedAge, s.drop)
	}
	f, err = os.Open(s.path)
	return f, s.size, s.sum, err
}

func (s *seedStore) make() error {
	f, err := os.OpenFile(s.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	h := sha256.New()
	err = s.data.View(func(tx *store.Tx) error {
		s.size, err = tx.WriteTo(io.MultiWriter(f, h))
		return err
	})
	h.Sum(s.sum[:0])
	if err = errors.Join(err, f.Close()); err != nil {
		s.size = 0
	}
	return err
}

// has reports whether the copy is that of sum.
func (s *seedStore) has(sum [sha256.Size]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size > 0 && s.sum == sum
}

// drop removes the copy. Who reads it goes on to its end.
func (s *seedStore) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stale != nil {
		s.stale.Stop()
	}
	s.size = 0
	os.Remove(s.path)
}

// giveSeed answers a master that joins; see seed.go.
func (l *ledger) giveSeed(c *tracked) error {
	if err := c.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	var q [seedAskSize]byte
	if _, err := io.ReadFull(c, q[:]); err != nil {
		return err
	}
	if err := l.maySeed(c, q[:]); err != nil {
		return refuseSeed(c, err)
	}
	f, size, sum, err := l.seeds.take()
	if err != nil {
		return errors.Join(err, refuseSeed(c, err))
	}
	defer f.Close()
	var offset int64
	if have := int64(binary.BigEndian.Uint64(q[1+sha256.Size:])); [sha256.Size]byte(q[1:]) == sum && have <= size {
		offset = have
	}
	a := append([]byte{seedHere}, sum[:]...)
	a = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(a, uint64(size)), uint64(offset))
	if _, err := c.Write(a); err != nil {
		return err
	}
	return sendSeed(c, io.NewSectionReader(f, offset, size-offset))
}

// maySeed says why the one who asks gets nothing here.
func (l *ledger) maySeed(c *tracked, q []byte) error {
	select {
	case <-l.opened:
	default:
		return errors.New("this master is starting; ask again")
	}
	if l.stopped.Load() || l.fsm.published().at.index == 0 {
		return errors.New("this master has no records to give; ask another one")
	}
	if q[0] == 1 && !l.seeds.has([sha256.Size]byte(q[1:])) {
		return errors.New("this master has another copy")
	}
	secured, ok := c.Conn.(*tls.Conn)
	if !ok {
		return nil
	}
	id, err := auth.PeerIdentity(secured.ConnectionState())
	if err != nil {
		return err
	}
	if err := l.refuseRemoved(crm.NodeID(id.Node)); err != nil {
		return err
	}
	servers, _, err := l.servers()
	for _, s := range servers {
		if nodeOf(s.ID) == crm.NodeID(id.Node) && s.Suffrage == raft.Voter {
			return &crm.Error{Code: CodeDistrusted, Op: "fetch records", Message: fmt.Sprintf(
				"node %d votes already, so it had records, and what it vouched for is gone with them: remove it with `tradepost operator raft remove-peer %s`, and let a new one join in an empty directory", id.Node, s.ID)}
		}
	}
	return err
}

// refuseRemoved refuses a master that was removed: its certificate stays valid.
func (l *ledger) refuseRemoved(n crm.NodeID) error {
	var st session.Standing
	err := l.data.View(func(tx *store.Tx) (err error) {
		st, err = new(session.Rosters).Standing(tx, n)
		return err
	})
	if err == nil && st.Listed && !st.Facts.Active {
		err = &crm.Error{Code: CodeDistrusted, Op: "fetch records", Message: fmt.Sprintf("node %d was removed from the cluster: let a new one join in an empty directory", n)}
	}
	return err
}

func refuseSeed(c *tracked, why error) error {
	verdict, text := byte(seedElse), why.Error()
	if e, ok := errors.AsType[*crm.Error](why); ok && e.Code == CodeDistrusted {
		verdict, text = seedRefused, e.Message
	}
	a := binary.BigEndian.AppendUint16([]byte{verdict}, uint16(len(text)))
	_, err := c.Write(append(a, text...))
	return err
}

func sendSeed(c *tracked, r io.Reader) error {
	for {
		if err := c.SetDeadline(time.Now().Add(seedPatience)); err != nil {
			return err
		}
		n, err := io.CopyN(c, r, seedChunk)
		if errors.Is(err, io.EOF) && n < seedChunk {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
