package session

import (
	"errors"
	"os"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// count tells the Observer if err is a refusal of a peer, and returns err.
func (s *Server) count(err error) error {
	if e, ok := errors.AsType[*crm.Error](err); ok && !Transient(e) && e.Code != crm.CodeInternal {
		s.cfg.Observe.Refused(e.Code)
	}
	return err
}

// countSilence tells the Observer why there is no first frame, unless the peer
// just hung up.
func (s *Server) countSilence(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.cfg.Observe.Refused(crm.CodeTimeout)
		return
	}
	_ = s.count(err)
}

// countAnswer tells the Observer if a Hello was answered with a refusal.
func (s *Server) countAnswer(f syncproto.Frame) {
	switch f := f.(type) {
	case *syncproto.Refused:
		s.cfg.Observe.Refused(f.Code)
	case *syncproto.Fenced:
		s.cfg.Observe.Refused(crm.CodeFenced)
	case *syncproto.Frozen:
		s.cfg.Observe.Refused(crm.CodeFrozen)
	}
}
