package sim

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
	"github.com/tradepost-crm/tradepost/store"
)

// An EditID numbers the edits of a Script; the first is 1. It travels as the
// actor of the Mutation and stays with every value that the edit sets: a Seq may
// change when a disk was rolled back.
type EditID int

// Actor is who asks for the edit: somebody who asks for nothing else.
func (e EditID) Actor() string { return fmt.Sprintf("clerk-%d", e) }

// Canary is a text that occurs nowhere but where the edit has put it.
func (e EditID) Canary() string { return fmt.Sprintf("%s%d%s", canaryBegin, e, canaryEnd) }

const canaryBegin, canaryEnd = "qz7~", "~7zq"

// editBy returns the edit of an actor, 0 if it is none of a Script.
func editBy(actor string) EditID {
	n, ok := strings.CutPrefix(actor, "clerk-")
	e, err := strconv.Atoi(n)
	if !ok || err != nil {
		return 0
	}
	return EditID(e)
}

// An Edit is something that a person asked a node for.
type Edit struct {
	ID      EditID
	At      time.Duration
	Node    crm.NodeID
	Disk    DiskID
	Ops     []crm.Op
	Guards  []crm.Guard
	Screens map[store.RecordKey]Screen // what they had in front of them of each record
	Acked   bool                       // told "saved here", or the decision
	Seq     crm.Seq                    // as acknowledged
	Refused crm.Code                   // why it was not
	Excused string                     // why it may remain without an outcome; "" if it must have one
	Numbers []string                   // that the node gave to documents it makes
	Forged  bool                       // by somebody who had no right to the node's name
}

// A DiskID names a disk that a node's files were on: the node's first one, a
// copy, or one that an older copy was put back on.
type DiskID struct {
	Node  crm.NodeID
	Copy  int // 0: the first
	Reset int // how often an older copy was put back
}

// A Screen is what somebody saw of a record: when, with which token, and whose
// values.
type Screen struct {
	At      time.Duration
	Token   crm.Token
	Stamps  map[crm.FieldID]crm.Stamp
	Values  map[crm.FieldID]crm.Value
	Elems   map[crm.FieldID]map[string]crm.Stamp // of sets
	Deleted bool
}

// screenOf reads what a page about r shows.
func screenOf(r *crm.Record, token crm.Token, at time.Duration) Screen {
	s := Screen{At: at, Token: token, Stamps: map[crm.FieldID]crm.Stamp{}, Values: map[crm.FieldID]crm.Value{},
		Elems: map[crm.FieldID]map[string]crm.Stamp{}, Deleted: r.Deleted}
	for _, c := range r.Cells {
		s.Stamps[c.Field], s.Values[c.Field] = c.Stamp, c.Value
		for i, elem := range c.Value.Set() {
			if s.Elems[c.Field] == nil {
				s.Elems[c.Field] = map[string]crm.Stamp{}
			}
			s.Elems[c.Field][elem] = c.Elems[i]
		}
	}
	return s
}

// Shows reports whether the screen shows the value of the field that the stamp
// is of.
func (s Screen) Shows(f crm.FieldID, by crm.Stamp) bool {
	shown, ok := s.Stamps[f]
	return ok && sameAuthor(shown, by)
}

// ShowsElem is Shows of an element of a set.
func (s Screen) ShowsElem(f crm.FieldID, elem string, by crm.Stamp) bool {
	shown, ok := s.Elems[f][elem]
	return ok && sameAuthor(shown, by)
}

// sameAuthor reports whether two stamps are of one edit: those of the Script
// have an actor each.
func sameAuthor(a, b crm.Stamp) bool { return a.Actor == b.Actor && a.Node == b.Node }
