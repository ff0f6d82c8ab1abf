package master

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

// CodeDistrusted is the code of a master that will not start because it once
// found its own files damaged, or different from those of the other masters.
const CodeDistrusted crm.Code = "distrusted"

var (
	// errDistrusted is in the chain of every reason not to trust these files again.
	errDistrusted = errors.New("the files of this master cannot be trusted")
	// errDamaged says that stored bytes are not those that were stored.
	errDamaged = fmt.Errorf("%w: damaged", errDistrusted)
	// errDiverged says that the other masters decided something else.
	errDiverged = fmt.Errorf("%w: diverged", errDistrusted)
)

// handoverTime bounds how long a master that stops tries to hand over the lead.
const handoverTime = 2 * time.Second

func untrustworthy(err error) bool {
	return errors.Is(err, errDistrusted) || crm.CodeOf(err) == crm.CodeCorrupt
}

// distrust takes this master out of service for good because of what was found
// in its files: it notes the reason beside them, hands over the lead if it has
// it, and calls Fatal. Started again it refuses, so that it never stands for
// election on files that may lack what it had vouched for. It does not wait and
// may be called more than once and under a lock.
func (l *ledger) distrust(reason error) { l.fatal(fmt.Errorf("%w: %w", errDistrusted, reason)) }

// fatal reports a failure after which this master must not go on. It does not
// wait for anything, so it may be called under a lock.
func (l *ledger) fatal(err error) {
	note := untrustworthy(err) && l.noted.CompareAndSwap(false, true)
	stop := l.stopped.CompareAndSwap(false, true)
	if !note && !stop {
		return
	}
	l.cfg.Logger.Error("this master stops and keeps its files", "error", err, "advice", l.advice(err))
	if !l.hold() {
		l.bowOut(err, note, stop)
		return
	}
	go func() {
		defer l.proposals.Done()
		l.bowOut(err, note, stop)
	}()
}

func (l *ledger) advice(err error) string {
	if untrustworthy(err) {
		return l.remedy()
	}
	return "mend what the error names, then start it again"
}

// advise words the refusal to start on files that cannot be right.
func (l *ledger) advise(err error) error {
	if !errors.Is(err, errDistrusted) {
		return err
	}
	return &crm.Error{Code: crm.CodeCorrupt, Op: "start master", Item: l.cfg.Dir, Message: fmt.Sprintf("%v; %s", err, l.remedy()), Err: err}
}

func (l *ledger) remedy() string {
	return fmt.Sprintf("keep %s for diagnosis, remove this master with `tradepost operator raft remove-peer %s` at another one, and let a new one join in an empty directory; a cluster without another master restores a backup",
		l.cfg.Dir, l.cfg.ID)
}

// bowOut does what fatal promised.
func (l *ledger) bowOut(err error, note, stop bool) {
	if note {
		if l.cfg.Observe.Distrusted != nil {
			l.cfg.Observe.Distrusted(err)
		}
		if werr := writeDistrust(l.cfg.Dir, l.cfg.Now(), err); werr != nil {
			l.cfg.Logger.Error("the reason could not be noted: do not start this master again", "error", werr)
		}
	}
	if !stop {
		return
	}
	l.handOver()
	if l.cfg.Fatal != nil {
		l.cfg.Fatal(err)
	}
}

// handOver lets another master lead, if this one does and can. A main loop that
// hangs on a disk cannot; then the end of the process makes the others elect.
func (l *ledger) handOver() {
	select {
	case <-l.opened:
	default:
		return
	}
	if _, _, self := l.leader(); !self {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), handoverTime)
	defer cancel()
	if err := l.transfer(ctx, ""); err != nil {
		l.cfg.Logger.Warn("the lead was not handed over", "error", err)
	}
}

func distrustPath(dir string) string { return filepath.Join(dir, "distrusted") }

// writeDistrust notes durably why the files in dir are not to be used.
func writeDistrust(dir string, at time.Time, reason error) error {
	f, err := os.OpenFile(distrustPath(dir), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil // the first reason counts
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s\n%v\n", at.UTC().Format(time.RFC3339), reason)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return syncDir(dir)
}

// refuseDistrusted refuses files that were noted as not to be used.
func (l *ledger) refuseDistrusted() error {
	b, err := os.ReadFile(distrustPath(l.cfg.Dir))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	at, reason, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return &crm.Error{Code: CodeDistrusted, Op: "start master", Item: l.cfg.Dir, Message: fmt.Sprintf("it stopped at %s: %s; %s", at, reason, l.remedy())}
}
