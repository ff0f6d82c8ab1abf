package httpapi

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

// backupPatience is how long a piece of a backup may take to be taken.
const backupPatience = time.Minute

var errNoBackups = elsewhere("back up", "a master: a branch's records are all there, and its own edits are in its journal")

// backup answers GET /api/v1/backup with the file. An answer that breaks off is
// no backup: its trailer is missing.
func (s *Server) backup(w http.ResponseWriter, r *http.Request, _ string) error {
	if s.cfg.Backups == nil {
		return errNoBackups
	}
	if _, err := readParams(r); err != nil {
		return err
	}
	unhurried(w)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := &hurried{w: w, control: http.NewResponseController(w)}
	err := s.cfg.Backups.Write(r.Context(), out)
	if err != nil && out.begun {
		s.log.Warn("a backup broke off", "error", err)
		panic(http.ErrAbortHandler) // half a file must not look whole
	}
	return err
}

// A hurried writer gives up on a reader that takes nothing for backupPatience,
// because the master keeps old pages for it.
type hurried struct {
	w       io.Writer
	control *http.ResponseController
	begun   bool
}

func (h *hurried) Write(b []byte) (int, error) {
	h.begun = true
	if err := h.control.SetWriteDeadline(time.Now().Add(backupPatience)); err != nil {
		return 0, err
	}
	return h.w.Write(b)
}

// announceBackup answers POST /api/v1/backup with a trailer.
func (s *Server) announceBackup(w http.ResponseWriter, r *http.Request, _ string) error {
	if s.cfg.Backups == nil {
		return errNoBackups
	}
	members, err := readObject(w, r)
	if err != nil {
		return err
	}
	trailer := map[string]json.RawMessage{}
	for _, m := range members {
		trailer[m.name] = m.raw
	}
	text, err := json.Marshal(trailer)
	if err != nil {
		return err
	}
	if err := s.cfg.Backups.Announce(r.Context(), text); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// Backup writes a backup file of the master's data to w. The client must have no
// time limit. What was written before an error is no backup.
func (c *Client) Backup(ctx context.Context, w io.Writer) error {
	resp, err := c.open(ctx, request{method: "GET", path: path("backup")})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	from := &tellReads{r: resp.Body}
	if _, err = io.Copy(w, from); err == nil || from.err == nil {
		return err // w's own
	}
	return &crm.Error{Code: crm.CodeUnavailable, Op: "receive backup", Item: c.BaseURL, Message: "the master broke off; its log says why. Nothing was announced: try again", Err: err}
}

// tellReads remembers that reading failed.
type tellReads struct {
	r   io.Reader
	err error
}

func (t *tellReads) Read(b []byte) (int, error) {
	n, err := t.r.Read(b)
	if err != nil && err != io.EOF {
		t.err = err
	}
	return n, err
}

// AnnounceBackup tells the cluster that the file which the trailer describes is
// safe.
func (c *Client) AnnounceBackup(ctx context.Context, trailer any) error {
	_, err := c.do(ctx, request{method: "POST", path: path("backup"), body: trailer}, nil)
	return err
}
