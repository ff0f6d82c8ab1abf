package master

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/tradepost-crm/tradepost/crm"
)

// passOn has the master at addr, which leads, log an entry.
func (l *ledger) passOn(ctx context.Context, addr string, e Entry) error {
	b, err := EncodeEntry(e)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	return l.stream.sendEntry(ctx, addr, b)
}

// logFor logs an entry of another master. It takes only those that say nothing
// but what that master did: the rest follows from records.
func (l *ledger) logFor(ctx context.Context, e Entry) error {
	if _, ok := e.(BackupEntry); !ok {
		return &crm.Error{Code: crm.CodeForbidden, Op: "log entry", Item: fmt.Sprintf("%T", e), Message: "only announcements of backups are passed on"}
	}
	_, _, err := l.propose(ctx, e)
	return err
}

// maxAnswer bounds the answer to an entry that was passed on, in bytes.
const maxAnswer = 4 << 10

// sendEntry carries an encoded entry as size 4 ‖ entry, big-endian, and waits for
// what came of it: size 4 ‖ code, a zero byte and a message, of which nothing
// means that it is logged.
func (s *stream) sendEntry(ctx context.Context, to string, entry []byte) error {
	fail := func(err error) error {
		return &crm.Error{Code: crm.CodeUnavailable, Op: "reach the leader", Item: to, Message: "it did not answer; try again", Err: err}
	}
	c, err := s.open(ctx, to, connEntry)
	if err != nil {
		return fail(err)
	}
	defer c.Close()
	if err := bound(ctx, c); err != nil {
		return fail(err)
	}
	if err := writeSized(c, entry); err != nil {
		return fail(err)
	}
	answer, err := readSized(c, maxAnswer)
	if err != nil {
		return fail(err)
	}
	for i, b := range answer {
		if b == 0 {
			return &crm.Error{Code: crm.Code(answer[:i]), Op: "log entry", Item: to, Message: string(answer[i+1:])}
		}
	}
	return nil
}

// takeEntry reads what sendEntry wrote and answers it.
func (s *stream) takeEntry(ctx context.Context, c *tracked) error {
	if err := bound(ctx, c); err != nil {
		return err
	}
	b, err := readSized(c, MaxEntry)
	if err != nil {
		return err
	}
	e, err := DecodeEntry(b)
	if err == nil {
		err = s.calls.log(ctx, e)
	}
	var answer []byte
	if err != nil {
		answer = append(append([]byte(crm.CodeOf(err)), 0), err.Error()...)
	}
	return writeSized(c, answer[:min(len(answer), maxAnswer)])
}

// bound ends what is under way on the connection at ctx's deadline.
func bound(ctx context.Context, c net.Conn) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		return errors.New("no deadline")
	}
	return c.SetDeadline(deadline)
}

func writeSized(w io.Writer, b []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

func readSized(r io.Reader, most int) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if int64(n) > int64(most) {
		return nil, fmt.Errorf("%d bytes are more than %d", n, most)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}
