package sim

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/crm/catalog"
)

// numbersDense is I15 as far as the product has numbers: each site counts its
// documents itself, ORD-R1-000001. No number is given twice, and below the
// highest of a series none is missing: each is on a record, deleted ones
// included, or was asked for by an edit that was not accepted or that was lost
// with its disk. There are no leased blocks and no void records yet.
func numbersDense(h *History) error {
	if h.Settled == 0 {
		return nil
	}
	given, err := h.given()
	if err != nil {
		return err
	}
	highest := map[string]int{}
	for n := range given {
		if series, i, ok := splitNumber(n); ok {
			highest[series] = max(highest[series], i)
		}
	}
	for _, series := range slices.Sorted(maps.Keys(highest)) {
		for i := 1; i <= highest[series]; i++ {
			if n := fmt.Sprintf("%s-%06d", series, i); given[n] == 0 && !h.founded(n) {
				return fmt.Errorf("series %s has numbers up to %d and no %s", series, highest[series], n)
			}
		}
	}
	return nil
}

// given returns who asked for each number: what nodes gave to edits that they
// acknowledged, and what edits brought that nobody was told of. Of two edits that
// stand none has the other's.
func (h *History) given() (map[string]EditID, error) {
	out := map[string]EditID{}
	for _, e := range h.Edits {
		if e == nil {
			continue
		}
		d := h.Decided(e.ID)
		for _, n := range slices.Concat(e.Numbers, d.numbers()) {
			if other := out[n]; other != 0 && other != e.ID && stood(d) && stood(h.Decided(other)) {
				return nil, fmt.Errorf("number %s is given to edits %d and %d", n, other, e.ID)
			}
			out[n] = e.ID
		}
	}
	return out, nil
}

// numbers returns the numbers of the documents that the edit makes.
func (d *Decision) numbers() (out []string) {
	if d == nil {
		return nil
	}
	for _, op := range d.Mutation.Ops {
		for _, c := range op.Cells {
			if op.Kind == crm.OpCreate && c.Field == numberField && (op.Entity == catalog.Order || op.Entity == catalog.Case) {
				out = append(out, c.Value.Str())
			}
		}
	}
	return out
}

func stood(d *Decision) bool { return d != nil && d.Outcome.Kind != crm.Rejected }

func splitNumber(n string) (series string, i int, ok bool) {
	at := strings.LastIndexByte(n, '-')
	if at < 0 {
		return "", 0, false
	}
	i, err := strconv.Atoi(n[at+1:])
	return n[:at], i, err == nil
}

// founded reports whether a record of the founding bears the number.
func (h *History) founded(number string) bool {
	t := h.Timelines[0]
	for k := range t.States {
		if r := t.State(k, t.Begin); r != nil && r.Value(numberField).Str() == number {
			return true
		}
	}
	return false
}

// numberField is the field of orders and cases that a series fills.
const numberField crm.FieldID = 18
