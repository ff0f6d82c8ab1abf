package session_test

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
	"github.com/tradepost-crm/tradepost/replica"
	"github.com/tradepost-crm/tradepost/session"
	"github.com/tradepost-crm/tradepost/store"
	"github.com/tradepost-crm/tradepost/syncproto"
)

// A fuzzed conversation is a sequence of frames, each behind its length as a
// uvarint: what a connection carries, uncompressed.
func conversation(tb testing.TB, frames ...syncproto.Frame) []byte {
	tb.Helper()
	var out []byte
	for _, f := range frames {
		raw, err := syncproto.AppendFrame(nil, syncproto.MaxVersion, f)
		if err != nil {
			tb.Fatal(err)
		}
		out = append(binary.AppendUvarint(out, uint64(len(raw))), raw...)
	}
	return out
}

// nextFrame takes a frame off a conversation; nil at its end, or where it is no
// frame.
func nextFrame(b []byte) (syncproto.Frame, []byte) {
	n, width := binary.Uvarint(b)
	if width <= 0 || n > uint64(len(b)-width) {
		return nil, nil
	}
	f, err := syncproto.DecodeFrame(b[width:][:n], syncproto.MaxVersion)
	if err != nil {
		return nil, nil
	}
	return f, b[width+int(n):]
}

// Whatever a replica says, the serving Talk answers in frames that can be sent,
// few of them, submits what is the node's own only, and ends what it must.
func FuzzServingTalk(f *testing.F) {
	w := newWorld(f)
	w.office(w.create(catalog.Account, accName, crm.TextValue("northern"), accTerr, crm.TextValue("north")))
	h := &syncproto.Hello{ProtoMin: syncproto.MinVersion, ProtoMax: syncproto.MaxVersion, Cluster: "c1", Node: branchNode, NextSeq: 1}
	welcome, ok := w.judge(h).(*syncproto.Welcome)
	if !ok {
		f.Fatal("the branch was not welcomed")
	}
	edit := func(seq crm.Seq) []byte {
		return crm.AppendMutation(nil, &crm.Mutation{Node: branchNode, Incarnation: 1, Seq: seq, HLC: 1, Actor: "x", Intent: "x", Ops: []crm.Op{w.account("x")}})
	}
	all := []syncproto.Frame{push(1, edit(1)), &syncproto.Applied{Cursor: 5}, &syncproto.Heartbeat{T1: 1}, &syncproto.Heartbeat{Reply: true, T1: 1, T2: 2, T3: 3},
		push(2, edit(2), edit(3)), &syncproto.Ask{ID: 1, What: syncproto.AskLeader}, &syncproto.Repair{Number: 1, Cursor: 1, Wants: []syncproto.Want{{Territory: 2}}}, &syncproto.Reports{}, h}
	f.Add(uint8(0), conversation(f, all...))
	for i, frame := range all {
		f.Add(uint8(i), conversation(f, frame, frame))
	}
	f.Fuzz(func(t *testing.T, replies uint8, said []byte) {
		talk := w.srv.NewTalk(h, welcome, branchID)
		defer talk.End()
		for n := 0; n < 64; n++ {
			frame, rest := nextFrame(said)
			if frame == nil {
				return
			}
			said = rest
			act, err := talk.Hear(frame)
			for rounds := 0; ; rounds++ {
				judgeAct(t, act)
				if err != nil {
					return
				}
				if act.Submit == nil {
					break
				}
				if rounds > 300 {
					t.Fatal("a push does not end")
				}
				act, err = talk.Replied(scriptedReply(replies+uint8(n+rounds), act.Submit))
			}
			act, err = talk.Due()
			judgeAct(t, act)
			if err != nil {
				return
			}
			if talk.Next().After(w.clock.Add(24 * time.Hour)) {
				t.Fatalf("nothing is due before %v", talk.Next())
			}
		}
	})
}

// judgeAct wants what a Talk does to be possible, and little.
func judgeAct(t *testing.T, act session.Act) {
	t.Helper()
	if len(act.Send) > 8 {
		t.Fatalf("%d frames at once", len(act.Send))
	}
	for _, f := range act.Send {
		if _, err := syncproto.AppendFrame(nil, syncproto.MaxVersion, f); err != nil {
			t.Fatalf("it sends what cannot be sent: %v", err)
		}
	}
	if s := act.Submit; s != nil {
		for i, raw := range s.Mutations {
			m, err := crm.DecodeMutation(raw)
			if err != nil || m.Node != branchNode || m.Seq != s.First+crm.Seq(i) {
				t.Fatalf("it submits edit %d of node %d as %d of node %d, %v", m.Seq, m.Node, s.First+crm.Seq(i), branchNode, err)
			}
		}
	}
}

// scriptedReply is one of the answers that a Submission may get.
func scriptedReply(which uint8, s *session.Submission) (session.Reply, error) {
	switch which % 7 {
	case 0:
		return session.Reply{Gap: s.First + 9}, nil
	case 1:
		return session.Reply{Fork: true}, nil
	case 2:
		return session.Reply{Fenced: 9}, nil
	case 3:
		return session.Reply{}, session.NoLeader("test")
	case 4:
		return session.Reply{}, errors.New("a bug")
	}
	return session.Reply{Last: s.First + crm.Seq(len(s.Mutations)) - 1}, nil
}

// Whatever a master says, the branch keeps its Cursor from going back and its
// edits until they are decided, and its files stay sound.
func FuzzBranchTalk(f *testing.F) {
	w := newWorld(f)
	account := w.create(catalog.Account, accName, crm.TextValue("northern"), accTerr, crm.TextValue("north"))
	w.office(account)
	w.must(w.connect())
	w.must(w.pass(time.Second))
	w.commit(w.account("decided"))
	w.must(w.pass(time.Second))
	h, welcome, batches := recorded(w, account.Record)
	w.hangUp()
	w.commit(w.account("pending"))
	w.must(w.branch.Close())

	for _, proven := range []bool{true, false} {
		f.Add(proven, conversation(f, batches...))
	}
	for _, b := range batches {
		f.Add(false, conversation(f, b, b))
	}
	f.Add(true, conversation(f, &syncproto.Pushed{Seq: 9}, &syncproto.Gap{Expected: 9}, &syncproto.Busy{RetryAfterMillis: 9}, &syncproto.Heartbeat{T1: 1},
		&syncproto.Heartbeat{Reply: true}, &syncproto.Answer{ID: 1}, &syncproto.Fenced{Incarnation: 9}))
	f.Add(true, conversation(f, &syncproto.Refused{Code: crm.CodeRemoved, Message: "x"}))
	f.Fuzz(func(t *testing.T, proven bool, said []byte) {
		here := t.TempDir()
		if err := os.CopyFS(here, os.DirFS(w.dir)); err != nil {
			t.Fatal(err)
		}
		b, err := replica.Open(replica.Config{Dir: here, ID: replica.ID{Cluster: "c1", Site: "lisbon", Node: branchNode}, Store: store.Options{NoSync: true}, Now: w.now, Rand: rand.NewChaCha8([32]byte{2}),
			Masters: func() []string { return nil }, Dial: func(context.Context, string) (net.Conn, error) { return nil, errors.New("there is no line") }})
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		talk, err := b.Greeted(h, welcome, w.clock)
		if err != nil {
			t.Fatal(err)
		}
		defer talk.End()
		for n := 0; n < 32; n++ {
			frame, rest := nextFrame(said)
			if frame == nil {
				break
			}
			said = rest
			if batch, ok := frame.(*syncproto.Batch); ok && !proven {
				batch.Digests = nil // lies that a digest shows reach no further
			}
			before := b.Status()
			if err := talk.Hear(frame); err != nil {
				break
			}
			if now := b.Status(); now.Cursor < before.Cursor || now.Decided < before.Decided || now.Decided > now.Seq || now.Seq != 2 {
				t.Fatalf("%s: from %+v to %+v", frame.Kind(), before, now)
			}
			if out, err := talk.Due(); err != nil || len(out) > 128 {
				t.Fatalf("%d frames are due, %v", len(out), err)
			}
		}
		if s := b.Status(); s.Decided < 2 && s.Outbox.Entries != 1 {
			t.Fatalf("an edit is neither decided nor in the outbox: %+v", s)
		}
		if found, err := b.Check(t.Context()); err != nil || len(found) > 0 {
			t.Fatalf("check: %+v %v", found, err)
		}
	})
}

// recorded returns a handshake of the branch and what the master sent in it: a
// change, a deletion, a record that left, a grant, whole and in parts.
func recorded(w *world, account crm.RecordID) (h *syncproto.Hello, welcome *syncproto.Welcome, batches []syncproto.Frame) {
	w.t.Helper()
	w.hangUp()
	h, err := w.branch.Hello()
	w.must(err)
	welcome = w.judge(h).(*syncproto.Welcome)
	down := w.srv.NewTalk(h, welcome, branchID)
	defer down.End()
	patch := func(e crm.EntityID, id crm.RecordID, f crm.FieldID, v crm.Value) crm.Op {
		return crm.Op{Kind: crm.OpPatch, Entity: e, Record: id, Seen: crm.Token{Timeline: 7, Rev: w.fsm.Head()}, Cells: []crm.Input{{Field: f, Value: v}}}
	}
	second := w.create(catalog.Account, accName, crm.TextValue("second"), accTerr, crm.TextValue("north"))
	for _, op := range []func() crm.Op{
		func() crm.Op { return patch(catalog.Account, account, accName, crm.TextValue("renamed")) },
		func() crm.Op { return second },
		func() crm.Op { return patch(catalog.Account, second.Record, accTerr, crm.TextValue("south")) },
		func() crm.Op {
			return crm.Op{Kind: crm.OpDelete, Entity: catalog.Account, Record: account, Seen: crm.Token{Timeline: 7, Rev: w.fsm.Head()}}
		},
		func() crm.Op {
			return patch(crm.EntitySite, w.site, crm.SiteTerritories, crm.ChoicesValue("north", "south"))
		},
		func() crm.Op { return patch(crm.EntitySite, w.site, crm.SiteTerritories, crm.ChoicesValue("south")) },
	} {
		w.office(op())
		act, err := down.Due()
		w.must(err)
		batches = append(batches, act.Send...)
	}
	return h, welcome, batches
}
