package session

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradepost-crm/tradepost/syncproto"
)

// A node above that takes nothing any more must not hold a call for longer than
// the caller waits.
func TestLink_APeerThatTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mine, theirs := net.Pipe()
		defer theirs.Close()
		k := &Link{Name: "node-9", Logger: slog.New(slog.DiscardHandler), Dial: func(context.Context) (*syncproto.Conn, error) { return syncproto.NewConn(mine), nil }}
		defer k.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		_, err := k.Ask(ctx, syncproto.AskLeader)
		if took := time.Since(start); took > 5*time.Second || !errors.Is(err, ErrUnknown) {
			t.Errorf("the call took %v: %v", took, err)
		}
	})
}

func TestLink_ClosedOrUnreachableNothingWasChanged(t *testing.T) {
	refused := errors.New("refused")
	k := &Link{Name: "node-9", Logger: slog.New(slog.DiscardHandler), Dial: func(context.Context) (*syncproto.Conn, error) { return nil, refused }}
	_, err := k.Submit(t.Context(), Submission{})
	if !errors.Is(err, refused) || errors.Is(err, ErrUnknown) || !Transient(err) {
		t.Errorf("unreachable: %v", err)
	}
	k.Close()
	_, err = k.Submit(t.Context(), Submission{})
	if !errors.Is(err, net.ErrClosed) || errors.Is(err, ErrUnknown) {
		t.Errorf("closed: %v", err)
	}
}

// A relay that loses its session closes its link: a node above that does not even
// answer must not keep it from going elsewhere.
func TestLink_CloseDoesNotWaitForADial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &Link{Name: "node-9", Logger: slog.New(slog.DiscardHandler), Dial: func(ctx context.Context) (*syncproto.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		failed := make(chan error)
		go func() {
			_, err := k.Ask(t.Context(), syncproto.AskLeader)
			failed <- err
		}()
		synctest.Wait()
		start := time.Now()
		k.Close()
		if err := <-failed; errors.Is(err, ErrUnknown) || !Transient(err) {
			t.Errorf("the call: %v", err)
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("closing took %v", took)
		}
	})
}
