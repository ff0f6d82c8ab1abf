package session

import (
	"context"
	"errors"
	"sync"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// codeGap tells the other end of a Link that the node's next number is another
// one.
const codeGap crm.Code = "gap"

// ForwardOf is the Forward of a Submission.
func ForwardOf(id uint64, s Submission) *syncproto.Forward {
	return &syncproto.Forward{ID: id, Node: s.Node, Incarnation: s.Incarnation, OffsetMillis: s.OffsetMillis, Mutations: s.Mutations}
}

// SubmissionOf is the Submission of a Forward.
func SubmissionOf(f *syncproto.Forward) (Submission, error) {
	_, first, err := nameOf(f.Mutations[0])
	if err != nil {
		return Submission{}, &crm.Error{Code: syncproto.CodeFrame, Op: "read forwarded edits", Message: err.Error()}
	}
	return Submission{Node: f.Node, Incarnation: f.Incarnation, OffsetMillis: f.OffsetMillis, First: first, Mutations: f.Mutations}, nil
}

// ForwardedOf carries a Reply, or why there is none.
func ForwardedOf(id uint64, r Reply, err error) *syncproto.Forwarded {
	out := &syncproto.Forwarded{ID: id}
	switch {
	case errors.Is(err, ErrUnknown):
		out.Code, out.Message = crm.CodeTimeout, err.Error()
	case err != nil:
		out.Code, out.Message = crm.CodeOf(err), err.Error()
	case r.Gap != 0:
		out.Code, r.Last = codeGap, r.Gap-1
	case r.Fork:
		out.Code = crm.CodeFrozen
	case r.Fenced != 0:
		out.Code = crm.CodeFenced
	}
	out.LastSeq, out.RaftIndex = r.Last, r.Index
	return out
}

// ReplyOf reads what ForwardedOf wrote. The frame has no room for the
// incarnation that fences: the Reply names the one after the Submission's.
func ReplyOf(s Submission, f *syncproto.Forwarded) (Reply, error) {
	r := Reply{Last: f.LastSeq, Index: f.RaftIndex}
	switch f.Code {
	case "":
	case codeGap:
		r.Gap = f.LastSeq + 1
	case crm.CodeFrozen:
		r.Fork = true
	case crm.CodeFenced:
		r.Fenced = s.Incarnation + 1
	case crm.CodeTimeout:
		return Reply{}, &crm.Error{Code: f.Code, Op: "forward edits", Message: f.Message, Err: ErrUnknown}
	default:
		return Reply{}, &crm.Error{Code: f.Code, Op: "forward edits", Message: f.Message}
	}
	return r, nil
}

// maxWork is how many frames of one Link are worked on at once.
const maxWork = 256

// ServeLink answers the other end of a [Link] until that hangs up: it has Hellos
// judged, Mutations decided and questions answered by up.
func (s *Server) ServeLink(ctx context.Context, conn *syncproto.Conn, up Upstream) error {
	return s.serveLink(ctx, conn, up, func(crm.NodeID) error { return nil })
}

// serveLink takes reports of the nodes that the other end may speak for.
func (s *Server) serveLink(ctx context.Context, conn *syncproto.Conn, up Upstream, may func(crm.NodeID) error) error {
	var work sync.WaitGroup
	defer work.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hellos, room := make(chan *syncproto.Hello, maxWork), make(chan struct{}, maxWork)
	work.Go(func() { s.greetInOrder(ctx, conn, up, hellos) })
	for {
		f, err := conn.Receive()
		if err != nil {
			return err
		}
		conn.Speak(conn.Version())
		switch f := f.(type) {
		case *syncproto.Hello:
			select {
			case hellos <- f:
			case <-ctx.Done():
			}
			continue
		case *syncproto.Reports:
			for _, r := range f.Reports {
				if may(r.Node) == nil {
					s.cfg.Reported(r.Node, r.Cursor, r.LowBase, r.SeenMillis)
				}
			}
			continue
		}
		room <- struct{}{}
		work.Go(func() {
			defer func() { <-room }()
			if a := answerLink(ctx, up, f); a != nil {
				conn.Send(a) // its failure ends Receive too
			}
		})
	}
}

// maxGreets is how many Hellos of one Link are judged at once: each takes a round
// of the masters, and a storm brings hundreds.
const maxGreets = 32

// greetInOrder judges Hellos side by side and answers them in the order they
// came: a Welcome bears no number.
func (s *Server) greetInOrder(ctx context.Context, conn *syncproto.Conn, up Upstream, hellos <-chan *syncproto.Hello) {
	var judging sync.WaitGroup
	defer judging.Wait()
	answers := make(chan chan syncproto.Frame, maxGreets)
	judging.Go(func() { sendInOrder(ctx, conn, answers) })
	for {
		select {
		case <-ctx.Done():
			return
		case h := <-hellos:
			answer := make(chan syncproto.Frame, 1)
			select {
			case answers <- answer:
			case <-ctx.Done():
				return
			}
			judging.Go(func() {
				f, err := up.Greet(ctx, h)
				if err != nil {
					f = s.Busy(err)
				}
				answer <- f
			})
		}
	}
}

func sendInOrder(ctx context.Context, conn *syncproto.Conn, answers <-chan chan syncproto.Frame) {
	for {
		select {
		case <-ctx.Done():
			return
		case answer := <-answers:
			select {
			case f := <-answer:
				conn.Send(f) // its failure ends Receive too
			case <-ctx.Done():
				return
			}
		}
	}
}

// answerLink returns nil for a frame that asks nothing.
func answerLink(ctx context.Context, up Upstream, f syncproto.Frame) syncproto.Frame {
	switch f := f.(type) {
	case *syncproto.Forward:
		sub, err := SubmissionOf(f)
		if err != nil {
			return ForwardedOf(f.ID, Reply{}, err)
		}
		r, err := up.Submit(ctx, sub)
		return ForwardedOf(f.ID, r, err)
	case *syncproto.Ask:
		a, err := up.Ask(ctx, f.What)
		return AnswerTo(f, a, err)
	}
	return nil
}

// AnswerTo addresses an answer to who asked.
func AnswerTo(q *syncproto.Ask, a *syncproto.Answer, err error) *syncproto.Answer {
	out := &syncproto.Answer{ID: q.ID}
	if err != nil {
		out.Code, out.Message = crm.CodeOf(err), err.Error()
		return out
	}
	out.Index, out.Rev, out.Code, out.Message = a.Index, a.Rev, a.Code, a.Message
	return out
}
