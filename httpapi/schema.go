package httpapi

import (
	"encoding/json"
	"net/http"
	"strconv"
	"sync/atomic"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// A SchemaText is the live schema as the API writes it.
type SchemaText struct {
	Version  crm.Rev      `json:"version"`
	Entities []EntityText `json:"entities"` // by id
}

// An EntityText is an entity with what crm.Entity keeps elsewhere.
type EntityText struct {
	ID   crm.EntityID `json:"id"`
	Name string       `json:"name"`
	crm.Entity
	Fields []FieldText `json:"fields"` // by id, without those of every record
}

// A FieldText is a field with what crm.Field keeps elsewhere.
type FieldText struct {
	ID   crm.FieldID `json:"id"`
	Name string      `json:"name"`
	crm.Field
}

func schemaText(schema *crm.Schema) SchemaText {
	out := SchemaText{Version: schema.Version}
	for _, e := range schema.Entities {
		t := EntityText{ID: e.ID, Name: e.Name, Entity: *e}
		for _, f := range e.Fields {
			ft := FieldText{ID: f.ID, Name: f.Name, Field: *f}
			ft.KindName = f.Kind.String()
			t.Fields = append(t.Fields, ft)
		}
		out.Entities = append(out.Entities, t)
	}
	return out
}

// Schema builds the schema that the text describes.
func (t SchemaText) Schema() (*crm.Schema, error) {
	var list []*crm.Entity
	for i := range t.Entities {
		text := &t.Entities[i]
		if text.ID < crm.FirstEntity {
			continue // every schema has the system's
		}
		e := text.Entity
		e.ID, e.Name, e.Fields = text.ID, text.Name, nil
		for _, ft := range text.Fields {
			f := ft.Field
			f.ID, f.Name = ft.ID, ft.Name
			var ok bool
			if f.Kind, ok = crm.ParseKind(f.KindName); !ok {
				return nil, &crm.Error{Code: crm.CodeFormat, Op: "read schema", Item: e.Name + "." + f.Name, Message: "a field of a kind that this program does not know: " + short(f.KindName)}
			}
			e.Fields = append(e.Fields, &f)
		}
		list = append(list, &e)
	}
	return crm.NewSchema(t.Version, list...)
}

// A document is text made of one schema, kept because schemas seldom change.
type document struct {
	schema *crm.Schema
	body   []byte
}

// getSchema answers GET /api/v1/schema.
func (s *Server) getSchema(w http.ResponseWriter, r *http.Request, _ string) error {
	return s.sendDocument(w, r, &s.schema, func(schema *crm.Schema) any { return schemaText(schema) })
}

// getOpenAPI answers GET /openapi.json.
func (s *Server) getOpenAPI(w http.ResponseWriter, r *http.Request, _ string) error {
	return s.sendDocument(w, r, &s.openapi, func(schema *crm.Schema) any { return openAPI(schema) })
}

func (s *Server) sendDocument(w http.ResponseWriter, r *http.Request, kept *atomic.Pointer[document], build func(*crm.Schema) any) error {
	if _, err := readParams(r); err != nil {
		return err
	}
	return s.answer(w, r, "point", func(rd *store.Reader, p *page) (int, error) {
		d := kept.Load()
		if d == nil || d.schema != rd.Schema() {
			body, err := json.Marshal(build(rd.Schema()))
			if err != nil {
				return 0, err
			}
			d = &document{rd.Schema(), body}
			kept.Store(d)
		}
		p.etag = strconv.AppendUint(append(p.etag, 's'), uint64(d.schema.Version), 10)
		p.body = append(p.body, d.body...)
		return 0, nil
	})
}
