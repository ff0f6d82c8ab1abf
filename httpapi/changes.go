package httpapi

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// A ChangeEvent is the data of a "change" event.
type ChangeEvent struct {
	Entity  string  `json:"entity"`
	ID      string  `json:"id"`
	Rev     crm.Rev `json:"rev,omitempty"` // 0: taken here and not decided yet
	Deleted bool    `json:"deleted,omitempty"`
	Left    bool    `json:"left,omitempty"` // it left the territories this node holds
}

// eventTimeout bounds how long a reader may take to accept one event.
const eventTimeout = 30 * time.Second

// changes answers GET /api/v1/changes?entity= with a stream of server-sent
// events: first "ready", then a "change" for each change, then, if changes were
// missed, "reload", which ends the stream. The id of "ready" is the node's mark; a
// client that reconnects with it as Last-Event-ID gets "reload" at once unless the
// node is still there. Changes have no id: one Rev may change many records, and
// a client that saw some of them has not seen the Rev.
func (s *Server) changes(w http.ResponseWriter, r *http.Request, _ string) error {
	q, err := readParams(r, "entity")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	feed := s.cfg.Node.Subscribe(ctx) // before the mark is read, so that nothing falls between
	st := &stream{server: s, w: w, control: http.NewResponseController(w)}
	f, err := s.cfg.Node.Read(ctx, crm.Demand{Level: crm.Local}, func(rd *store.Reader) (err error) {
		st.schema = rd.Schema()
		st.only, err = onlyEntities(st.schema, q.text("entity"))
		return err
	})
	if err != nil {
		return err
	}
	mark := string(AppendMark(nil, f.Mark))
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set(headerMark, mark)
	unhurried(w)
	w.WriteHeader(http.StatusOK)
	if last := r.Header.Get("Last-Event-ID"); last != "" && last != mark {
		st.reload("changes happened while the stream was cut")
		return nil
	}
	if st.write("event: ready\nid: " + mark + "\ndata: {}\n\n") {
		st.follow(ctx, feed)
	}
	return nil
}

// onlyEntities reads entity=account,contact; nil means every entity.
func onlyEntities(schema *crm.Schema, text string) (map[crm.EntityID]bool, error) {
	if text == "" {
		return nil, nil
	}
	list, err := searched(schema, text)
	out := map[crm.EntityID]bool{}
	for _, e := range list {
		out[e.ID] = true
	}
	return out, err
}

// A stream is one open stream of changes.
type stream struct {
	server  *Server
	w       http.ResponseWriter
	control *http.ResponseController
	schema  *crm.Schema
	only    map[crm.EntityID]bool // nil: every entity
}

// follow sends what feed brings until it ends, the client leaves or the server stops.
func (st *stream) follow(ctx context.Context, feed <-chan crm.Change) {
	beat := time.NewTicker(st.server.cfg.Heartbeat)
	defer beat.Stop()
	for ok := true; ok; {
		select {
		case c, open := <-feed:
			if !open {
				if ctx.Err() == nil {
					st.reload("changes came faster than this client took them")
				}
				return
			}
			ok = st.change(ctx, c)
		case <-beat.C:
			ok = st.write(":\n\n")
		case <-ctx.Done():
			return
		case <-st.server.stopping:
			return
		}
	}
}

func (st *stream) change(ctx context.Context, c crm.Change) bool {
	if st.only != nil && !st.only[c.Entity] {
		return true
	}
	ev := ChangeEvent{Entity: st.entity(ctx, c.Entity), ID: c.Record.String(), Rev: c.Rev, Deleted: c.Deleted, Left: c.Left}
	if c.Rev == crm.Pending {
		ev.Rev = 0
	}
	return st.event("change", ev)
}

// entity returns the entity's name, from a newer schema if need be.
func (st *stream) entity(ctx context.Context, id crm.EntityID) string {
	if st.schema.EntityByID(id) == nil {
		_, err := st.server.cfg.Node.Read(ctx, crm.Demand{Level: crm.Local}, func(rd *store.Reader) error {
			st.schema = rd.Schema()
			return nil
		})
		if err != nil {
			st.server.log.Warn("changes: the schema cannot be read", "error", err)
		}
	}
	if e := st.schema.EntityByID(id); e != nil {
		return e.Name
	}
	return ""
}

func (st *stream) reload(reason string) {
	st.event("reload", map[string]string{"reason": reason})
}

func (st *stream) event(name string, data any) bool {
	b, err := json.Marshal(data)
	if err != nil {
		panic("httpapi: an event does not encode: " + err.Error())
	}
	return st.write("event: " + name + "\ndata: " + string(b) + "\n\n")
}

func (st *stream) write(text string) bool {
	if err := st.control.SetWriteDeadline(time.Now().Add(eventTimeout)); err != nil {
		return false
	}
	if _, err := io.WriteString(st.w, text); err != nil {
		return false
	}
	return st.control.Flush() == nil
}
