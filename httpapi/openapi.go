package httpapi

import (
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/tradepost-crm/tradepost/crm"
)

// object is a part of the OpenAPI document.
type object = map[string]any

// openAPI describes the API as it is under the schema (OpenAPI 3.1).
func openAPI(schema *crm.Schema) object {
	paths, schemas := fixedPaths(), fixedSchemas()
	for _, e := range schema.Entities {
		schemas[e.Name] = recordSchema(e)
		schemas[e.Name+".edit"] = editSchema(e)
		for path, item := range entityPaths(e) {
			if reserved[path] == nil {
				paths[path] = item
			}
		}
	}
	return object{
		"openapi": "3.1.0",
		"info": object{"title": "Tradepost", "version": "1." + strconv.FormatUint(uint64(schema.Version), 10),
			"description": "The API of one node. Records travel between nodes by themselves; every answer says how fresh it is."},
		"paths":      paths,
		"components": object{"schemas": schemas, "parameters": sharedParameters(), "headers": sharedHeaders(), "responses": sharedResponses(), "securitySchemes": object{"bearer": object{"type": "http", "scheme": "bearer"}}},
		"security":   []object{{"bearer": []string{}}},
		"tags":       tags(schema),
	}
}

func tags(schema *crm.Schema) []object {
	out := []object{{"name": "node", "description": "This node and its cluster"}, {"name": "all records", "description": "Across entities"}}
	for _, e := range schema.Entities {
		out = append(out, object{"name": e.Name, "description": e.Plural})
	}
	return out
}

// entityPaths are the paths of one entity.
func entityPaths(e *crm.Entity) map[string]object {
	list, one := "/api/v1/"+e.Name, "/api/v1/"+e.Name+"/{id}"
	op := func(verb, summary, body string, params []string, answers object) object {
		return operation(e.Name, verb+"_"+e.Name, summary, body, params, answers)
	}
	edits := []string{"Wait", "Timeout", "Consistency", "Session"}
	changes := slices.Concat([]string{"IfMatch"}, edits)
	written := object{"200": answer("The edit as it stands", ref("Written")), "202": answer("Saved here; the master's decision took longer than timeout", ref("Written"))}
	created := maps.Clone(written)
	delete(created, "200")
	created["201"] = answer("Created", ref("Written"))
	return map[string]object{
		list: {
			"get": op("list", "List "+e.Plural, "", []string{"Filter", "Sort", "Limit", "Cursor", "Fields", "Expand", "Consistency", "Session"},
				object{"200": answer("A page", object{"type": "object", "required": []string{"items"}, "properties": object{
					"items": object{"type": "array", "items": ref(e.Name)}, "next": object{"type": "string", "description": "cursor of the next page"}, "count": object{"type": "integer"}}})}),
			"post": op("create", "Create one "+e.Label, e.Name+".edit", edits, created),
		},
		one: {
			"parameters": []object{parameter("ID")},
			"get":        op("get", "One "+e.Label, "", []string{"Fields", "Expand", "Consistency", "Session"}, object{"200": answer("The record", ref(e.Name)), "304": object{"description": "Unchanged"}}),
			"patch":      op("patch", "Change one "+e.Label, e.Name+".edit", changes, written),
			"delete":     op("delete", "Delete one "+e.Label, "", changes, written),
		},
		one + "/restore": {
			"parameters": []object{parameter("ID")},
			"post":       op("restore", "Restore a deleted "+e.Label, "", changes, written),
		},
	}
}

// operation describes one method of one path. body and params are names of components.
func operation(tag, id, summary, body string, params []string, answers object) object {
	op := object{"tags": []string{tag}, "operationId": id, "summary": summary}
	if len(params) > 0 {
		var list []object
		for _, name := range params {
			list = append(list, parameter(name))
		}
		op["parameters"] = list
	}
	if body != "" {
		op["requestBody"] = object{"required": true, "content": content(ref(body))}
	}
	answers = maps.Clone(answers)
	answers["default"] = object{"$ref": "#/components/responses/Problem"}
	op["responses"] = answers
	return op
}

func ref(schema string) object     { return object{"$ref": "#/components/schemas/" + schema} }
func parameter(name string) object { return object{"$ref": "#/components/parameters/" + name} }
func content(schema object) object { return object{"application/json": object{"schema": schema}} }

func answer(description string, schema object) object {
	headers := object{}
	for _, name := range names(sharedHeaders()) {
		headers[name] = object{"$ref": "#/components/headers/" + name}
	}
	return object{"description": description, "content": content(schema), "headers": headers}
}

// recordSchema describes the records of e as they are read.
func recordSchema(e *crm.Entity) object {
	properties := object{
		"id":         object{"type": "string", "format": "uuid", "readOnly": true},
		entityKey(e): object{"const": e.Name, "readOnly": true},
		tokenKey(e):  object{"type": "string", "pattern": `^[0-9a-z]+-\d+(-\d+\.\d+)?$`, "readOnly": true, "description": "for If-Match: timeline-rev, and -node.seq while an edit taken at that node is undecided"},
		"created_at": object{"type": "string", "format": "date-time", "readOnly": true},
		"created_by": object{"type": "string", "readOnly": true},
		"updated_at": object{"type": "string", "format": "date-time", "readOnly": true},
		"updated_by": object{"type": "string", "readOnly": true},
	}
	for _, f := range e.Fields {
		properties[f.Name] = fieldSchema(f)
	}
	return object{"type": "object", "title": e.Label, "properties": properties, "required": []string{"id", entityKey(e), tokenKey(e)}}
}

// editSchema describes what a creation or a patch of e may hold; a creation must
// hold the fields listed under x-required-on-create.
func editSchema(e *crm.Entity) object {
	properties := object{"id": object{"type": "string", "format": "uuid", "description": "on creation only; a new one by default"}}
	required := []string{}
	for _, f := range e.Fields {
		if f.ReadOnly {
			continue
		}
		properties[f.Name] = object{"anyOf": []object{fieldSchema(f), {"type": "null"}}}
		if delta := deltaSchema(f); delta != nil {
			properties[f.Name] = object{"anyOf": []object{fieldSchema(f), {"type": "null"}, delta}}
		}
		if f.Required && f.Default == "" {
			required = append(required, f.Name)
		}
	}
	return object{"type": "object", "title": e.Label + ", edited", "properties": properties, "additionalProperties": false, "x-required-on-create": required}
}

// deltaSchema describes the object form of an edit of a set or a counter.
func deltaSchema(f *crm.Field) object {
	part := fieldSchema(f)
	switch {
	case f.Kind == crm.Choices:
		return object{"type": "object", "additionalProperties": false, "properties": object{"add": part, "remove": part}}
	case f.Rule() == crm.Counter:
		return object{"type": "object", "additionalProperties": false, "properties": object{"add": part}}
	}
	return nil
}

func fieldSchema(f *crm.Field) object {
	s := kindSchema(f)
	s["title"], s["x-kind"] = f.Label, f.Kind.String()
	if f.ReadOnly {
		s["readOnly"] = true
	}
	for name, on := range map[string]bool{"x-required": f.Required, "x-unique": f.Unique, "x-immutable": f.Immut} {
		if on {
			s[name] = true
		}
	}
	if f.Rule() != crm.Latest {
		s["x-conflict-policy"] = f.Rule()
	}
	if f.Default != "" {
		s["default"] = f.Default
	}
	if f.Max > 0 {
		s["description"] = "at most " + strconv.Itoa(f.Max) + " bytes"
	}
	return s
}

func kindSchema(f *crm.Field) object {
	text := func(format string) object { return object{"type": "string", "format": format} }
	switch f.Kind {
	case crm.Integer:
		return object{"type": "integer", "format": "int64"}
	case crm.Bool:
		return object{"type": "boolean"}
	case crm.Decimal:
		return decimalSchema(f)
	case crm.Date:
		return text("date")
	case crm.Instant:
		return text("date-time")
	case crm.Email:
		return text("email")
	case crm.URL:
		return text("uri")
	case crm.Address:
		return ref("PostalAddress")
	case crm.Link:
		return linkSchema(f)
	case crm.Choice:
		return optionSchema(f)
	case crm.Choices:
		return object{"type": "array", "uniqueItems": true, "items": optionSchema(f)}
	}
	return object{"type": "string"}
}

func decimalSchema(f *crm.Field) object {
	number := object{"type": "string", "pattern": `^-?\d+(\.\d{1,9})?$`}
	if !f.Money {
		return number
	}
	return object{"anyOf": []object{{"type": "object", "required": []string{"amount", "currency"}, "additionalProperties": false,
		"properties": object{"amount": number, "currency": object{"type": "string", "pattern": "^[A-Z]{3}$"}}}, number}}
}

func linkSchema(f *crm.Field) object {
	id := object{"type": "string", "format": "uuid"}
	expanded := object{"type": "object", "readOnly": true, "description": "with expand", "properties": object{"id": id, "title": object{"type": "string"}}}
	return object{"anyOf": []object{id, expanded}, "x-target": f.Target}
}

func optionSchema(f *crm.Field) object {
	s := object{"type": "string"}
	if len(f.Options) > 0 {
		values := make([]string, len(f.Options))
		for i, o := range f.Options {
			values[i] = o.Value
		}
		s["enum"] = values
	}
	return s
}

func sharedHeaders() object {
	header := func(description string, schema object) object {
		return object{"description": description, "schema": schema}
	}
	text := object{"type": "string"}
	return object{
		headerMark:      header("timeline.rev.node.seq: the position this was answered from", text),
		headerAsOf:      header("when the master was there", object{"type": "string", "format": "date-time"}),
		headerStaleness: header("seconds since then", object{"type": "number"}),
		headerPending:   header("edits of this node that the master has not decided", object{"type": "integer"}),
		headerConnected: header("whether this node hears from a master", object{"type": "boolean"}),
	}
}

func sharedParameters() object {
	in := func(where, name, description string, schema object) object {
		return object{"in": where, "name": name, "description": description, "schema": schema, "required": where == "path"}
	}
	text, uuid := object{"type": "string"}, object{"type": "string", "format": "uuid"}
	return object{
		"ID":          in("path", "id", "Id of the record", uuid),
		"Filter":      in("query", "filter", `Condition, as stage == "won" && amount >= 1000`, text),
		"Sort":        in("query", "sort", "Fields, a minus before those that descend: -close_date,name", text),
		"Limit":       in("query", "limit", "Most items", object{"type": "integer", "minimum": 1}),
		"Cursor":      in("query", "cursor", "next of the page before", text),
		"Fields":      in("query", "fields", "Fields to show: name,stage; all that have a value by default", text),
		"Expand":      in("query", "expand", "Links to show with a title: account,owner or *", text),
		"Wait":        in("query", "wait", "decided: answer when the master has decided", object{"const": "decided"}),
		"Timeout":     in("query", "timeout", "How long to wait, 5s by default", text),
		"IfMatch":     in("header", "If-Match", "Token of the record that the author saw, of this node or another; what this node shows now by default. A token that is not current is no error", text),
		"Consistency": in("header", headerConsistency, "local, session, bounded;max=5s or leader", text),
		"Session":     in("header", headerSession, "A mark that the answer must include", text),
	}
}

func sharedResponses() object {
	return object{"Problem": object{"description": "An error (RFC 9457)", "content": object{"application/problem+json": object{"schema": ref("Problem")}}}}
}

// fixedSchemas are the components that do not depend on the schema. Their names
// begin with a capital, so that no entity has one of them.
func fixedSchemas() object {
	text, integer := object{"type": "string"}, object{"type": "integer"}
	codes := make([]string, 0, len(statuses))
	for code := range statuses {
		codes = append(codes, string(code))
	}
	slices.Sort(codes)
	outcome := object{"type": []string{"object", "null"}, "description": "null until the master has decided", "properties": object{
		"kind": object{"enum": []string{"accepted", "merged", "parked", "rejected"}}, "rev": integer, "code": text, "message": text}}
	op := object{"type": "object", "required": []string{"op", "entity"}, "additionalProperties": false, "properties": object{
		"op":     object{"enum": []string{"create", "patch", "delete", "restore", "set-add", "set-remove", "counter-add", "transition"}},
		"entity": text, "record": object{"type": "string", "format": "uuid"}, "seen": object{"type": "string", "description": "token that the author saw"},
		"fields": object{"type": "object"}, "from": object{"description": "of a transition"}}}
	guard := object{"type": "object", "required": []string{"kind", "entity", "record"}, "additionalProperties": false, "properties": object{
		"kind": object{"enum": names(guardKinds)}, "entity": text, "record": text, "field": text, "value": object{}}}
	return object{
		"Problem": object{"type": "object", "required": []string{"type", "title", "status", "detail", "code"}, "properties": object{
			"type": text, "title": text, "status": integer, "detail": text, "code": object{"enum": codes}, "op": text, "item": text, "request_id": text, "outcome": outcome}},
		"PostalAddress": object{"type": "object", "additionalProperties": false, "properties": object{"street": text, "city": text, "state": text, "postal_code": text, "country": text}},
		"Written": object{"type": "object", "required": []string{"saved", "node", "seq", "outcome"}, "properties": object{
			"saved": object{"enum": []string{"here", "everywhere"}}, "node": integer, "seq": integer, "outcome": outcome,
			"record": object{"type": []string{"object", "null"}}, "records": object{"type": "array", "items": object{"type": []string{"object", "null"}}}}},
		"Mutation": object{"type": "object", "required": []string{"ops"}, "additionalProperties": false, "properties": object{
			"intent": text, "ops": object{"type": "array", "minItems": 1, "maxItems": maxOps, "items": op}, "guards": object{"type": "array", "items": guard}}},
		"Resolution": object{"type": "object", "required": []string{"take"}, "additionalProperties": false, "properties": object{"take": object{"enum": []string{"lost", "kept", "dismiss", "apply"}}}},
		"JoinToken":  object{"type": "object", "required": []string{"site", "role"}, "additionalProperties": false, "properties": object{"site": text, "role": object{"enum": []string{"master", "replica"}}, "ttl": text}},
		"Transfer":   object{"type": "object", "additionalProperties": false, "properties": object{"to": text}},
		"WanChange":  object{"type": "object", "required": []string{"action"}, "additionalProperties": false, "properties": object{"action": object{"enum": []string{"cut", "heal"}}, "site": text}},
		"Object":     object{"type": "object"},
	}
}

// A fixedOp is an operation on a path that every node has, whatever its schema.
type fixedOp struct {
	method, path, id, summary, body string
	status                          int
	params                          [][2]string // name, description
}

var fixedOps = []fixedOp{
	{method: "get", path: "/livez", id: "live", summary: "Whether the process runs"},
	{method: "get", path: "/readyz", id: "ready", summary: "Whether the node can serve, or why not"},
	{method: "get", path: "/metrics", id: "metrics", summary: "Metrics for Prometheus"},
	{method: "get", path: "/openapi.json", id: "openapi", summary: "This document"},
	{method: "get", path: "/api/v1/schema", id: "schema", summary: "The live schema"},
	{method: "post", path: "/api/v1/mutations", id: "mutate", summary: "Edit any number of records at once, all or nothing", body: "Mutation"},
	{method: "get", path: "/api/v1/reports", id: "report", summary: "Group, count and add up records", params: [][2]string{{"entity", "Whose records"}, {"group", "account.name, order_date:month"}, {"measure", "count, sum(amount) as total"}, {"filter", "Condition"}, {"sort", "Columns"}, {"limit", "Most rows"}, {"expand", "* to show links with a title"}}},
	{method: "get", path: "/api/v1/search", id: "search", summary: "Find records by the beginnings of words", params: [][2]string{{"q", "Words"}, {"entity", "Within these entities"}, {"limit", "Most items"}}},
	{method: "get", path: "/api/v1/attention", id: "list_attention", summary: "Conflicts, parked and rejected edits, newest first", params: [][2]string{{"status", "open (default), resolved, dismissed or all"}, {"kind", "conflict, parked or rejected"}, {"record", "About this record"}, {"limit", "Most items"}, {"cursor", "next of the page before"}}},
	{method: "get", path: "/api/v1/attention/{id}", id: "get_attention", summary: "One item of the attention list"},
	{method: "post", path: "/api/v1/attention/{id}/resolve", id: "resolve", summary: "Take the losing value, keep the other, apply a refused edit, or dismiss", body: "Resolution"},
	{method: "get", path: "/api/v1/changes", id: "changes", summary: "Changes as they happen, as server-sent events: ready, change, reload", params: [][2]string{{"entity", "Of these entities"}}},
	{method: "get", path: "/api/v1/status", id: "status", summary: "The state of this node"},
	{method: "get", path: "/api/v1/nodes", id: "nodes", summary: "The nodes of the cluster"},
	{method: "get", path: "/api/v1/outbox", id: "outbox", summary: "Edits that the master has not decided"},
	{method: "get", path: "/api/v1/check", id: "check", summary: "Check the stored files"},
	{method: "get", path: "/api/v1/backup", id: "backup", summary: "A backup of the masters' data, as a file"},
	{method: "post", path: "/api/v1/backup", id: "announce_backup", summary: "Tell the cluster that a backup is safe", body: "Object", status: http.StatusNoContent},
	{method: "get", path: "/api/v1/raft/peers", id: "peers", summary: "The servers of Raft"},
	{method: "delete", path: "/api/v1/raft/peers/{id}", id: "remove_peer", summary: "Remove a server from Raft", status: http.StatusNoContent},
	{method: "post", path: "/api/v1/raft/peers/transfer", id: "transfer", summary: "Hand leadership over", body: "Transfer", status: http.StatusNoContent},
	{method: "post", path: "/api/v1/tokens", id: "create_token", summary: "Let one new node join", body: "JoinToken", status: http.StatusCreated},
	{method: "get", path: "/api/v1/wan", id: "wan", summary: "The simulated WAN"},
	{method: "post", path: "/api/v1/wan", id: "change_wan", summary: "Cut or heal the simulated WAN", body: "WanChange", status: http.StatusNoContent},
}

// reserved are the fixed paths: an entity does not get a path of theirs.
var reserved = func() object {
	out := object{}
	for _, op := range fixedOps {
		out[op.path] = op
	}
	return out
}()

func fixedPaths() object {
	paths := object{}
	for _, f := range fixedOps {
		status := max(f.status, http.StatusOK)
		ok := object{"description": f.summary}
		if status != http.StatusNoContent {
			ok = answer(f.summary, ref("Object"))
		}
		op := operation("node", f.id, f.summary, f.body, nil, object{strconv.Itoa(status): ok})
		var params []object
		for _, p := range f.params {
			params = append(params, object{"in": "query", "name": p[0], "description": p[1], "schema": object{"type": "string"}})
		}
		if params != nil {
			op["parameters"] = params
		}
		item, _ := paths[f.path].(object)
		if item == nil {
			item = object{}
			if f.path == "/api/v1/attention/{id}" || f.path == "/api/v1/attention/{id}/resolve" {
				item["parameters"] = []object{parameter("ID")}
			}
			if f.path == "/api/v1/raft/peers/{id}" {
				item["parameters"] = []object{{"in": "path", "name": "id", "required": true, "schema": object{"type": "string"}}}
			}
			paths[f.path] = item
		}
		item[f.method] = op
	}
	return paths
}
