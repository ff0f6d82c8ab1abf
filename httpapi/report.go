package httpapi

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/report"
	"github.com/tradepost-crm/tradepost/store"
)

// maxReportRows bounds the rows of an answer.
const maxReportRows = 10_000

// A ReportText is a report's result as the API writes it. Values are written as
// in records, dates of a bucket by its first day.
type ReportText struct {
	Columns []ColumnText        `json:"columns"`
	Rows    [][]json.RawMessage `json:"rows"`
	Totals  []json.RawMessage   `json:"totals"`  // by column; null for groups
	Scanned int                 `json:"scanned"` // records looked at
	Mixed   int                 `json:"mixed"`   // records left out because their amounts are of different currencies
}

// A ColumnText is a column of a report.
type ColumnText struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`
	Bucket string `json:"bucket,omitempty"` // day, week, month, quarter or year
}

// report answers GET /api/v1/reports?entity=&group=&measure=&filter=&sort=&limit=&expand=.
// With expand=* the links it groups by are shown with a title, as in records.
func (s *Server) report(w http.ResponseWriter, r *http.Request, _ string) error {
	q, err := readParams(r, "entity", "group", "measure", "filter", "sort", "limit", "expand")
	if err != nil {
		return err
	}
	limit, err := q.limit("limit", maxReportRows)
	if err != nil {
		return err
	}
	if limit == 0 {
		limit = maxReportRows
	}
	if q.text("entity") == "" {
		return invalid("entity", "name the entity whose records are counted")
	}
	if expand := q.text("expand"); expand != "" && expand != "*" {
		return invalid("expand", "%q is not *: a report shows all its links with a title, or none", short(expand))
	}
	return s.answer(w, r, "report", func(rd *store.Reader, p *page) (int, error) {
		e, err := entityOf(rd.Schema(), q.text("entity"))
		if err != nil {
			return 0, err
		}
		def, err := report.Parse(rd.Schema(), e, q.text("group"), q.text("measure"), q.text("filter"), q.text("sort"), limit)
		if err != nil {
			return 0, err
		}
		result, err := s.columns.Run(r.Context(), rd, def)
		if err != nil {
			return 0, err
		}
		v := &view{rd: rd, every: q.text("expand") == "*"}
		p.body = appendResult(p.body, result, def.Groups, v)
		return result.Scanned, v.err
	})
}

// appendResult writes a ReportText, with its links as v shows them.
func appendResult(dst []byte, result *report.Result, groups []report.Group, v *view) []byte {
	columns := make([]ColumnText, 0, len(result.Columns))
	for _, c := range result.Columns {
		text := ColumnText{Name: c.Name, Kind: c.Kind.String()}
		if c.Bucket != report.Exact {
			text.Bucket = c.Bucket.String()
		}
		columns = append(columns, text)
	}
	head, err := json.Marshal(columns)
	if err != nil {
		panic("httpapi: columns do not encode: " + err.Error())
	}
	dst = append(append(dst, `{"columns":`...), head...)
	dst = append(dst, `,"rows":[`...)
	for i, row := range result.Rows {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendRow(dst, row, groups, v)
	}
	dst = appendRow(append(dst, `],"totals":`...), result.Totals, groups, v)
	dst = strconv.AppendInt(append(dst, `,"scanned":`...), int64(result.Scanned), 10)
	dst = strconv.AppendInt(append(dst, `,"mixed":`...), int64(result.Mixed), 10)
	return append(dst, '}')
}

func appendRow(dst []byte, row []crm.Value, groups []report.Group, v *view) []byte {
	dst = append(dst, '[')
	for i, value := range row {
		if i > 0 {
			dst = append(dst, ',')
		}
		if i < len(groups) {
			dst = v.appendValue(dst, groups[i].Path.Field, value)
		} else {
			dst = appendValue(dst, value)
		}
	}
	return append(dst, ']')
}
