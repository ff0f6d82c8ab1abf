package replica

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/tradepost-crm/tradepost/crm"
)

// A line that fails is no bug of this node; what a master said keeps its code.
func TestStatus_CodeOfTrouble(t *testing.T) {
	r := open(t, newScripted(t), t.TempDir())
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for _, c := range []struct {
		trouble error
		want    crm.Code
	}{
		{fmt.Errorf("session with hq1:7400: %w", refused), crm.CodeUnavailable},
		{errors.Join(errors.New("hq1:7400"), net.ErrClosed), crm.CodeUnavailable},
		{fmt.Errorf("receive: %w", io.ErrUnexpectedEOF), crm.CodeUnavailable},
		{fmt.Errorf("receive: %w", io.EOF), crm.CodeUnavailable},
		{&crm.Error{Code: crm.CodeFrozen, Err: refused}, crm.CodeFrozen},
		{errors.New("a bug"), crm.CodeInternal},
	} {
		r.mu.Lock()
		r.link.trouble = c.trouble
		r.mu.Unlock()
		if got := r.Status().Code; got != c.want {
			t.Errorf("%v: code %s, want %s", c.trouble, got, c.want)
		}
	}
}
