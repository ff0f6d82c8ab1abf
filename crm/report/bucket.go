package report

import (
	"fmt"
	"slices"
	"time"

	"github.com/tradepost-crm/tradepost/crm"
)

// A Bucket is a span of days that a date or instant is grouped by. Its value in
// a result is the Date of its first day. Instants are cut in UTC.
type Bucket uint8

// The buckets.
const (
	Exact   Bucket = iota // the value itself
	Day                   //
	Week                  // ISO 8601: from Monday
	Month                 //
	Quarter               //
	Year                  //
)

var bucketNames = []string{"", "day", "week", "month", "quarter", "year"}

// String returns the name a report is parsed with, "" for Exact.
func (b Bucket) String() string { return bucketNames[b] }

func parseBucket(name string) (Bucket, bool) {
	i := slices.Index(bucketNames, name)
	return Bucket(max(i, 0)), i > 0
}

// Label returns a result's value of the bucket for people: "2026-W05",
// "2026-01", "2026-Q1", "2026"; other values as they are.
func (b Bucket) Label(v crm.Value) string {
	if v.Kind() != crm.Date {
		return v.String()
	}
	t := v.Time()
	switch b {
	case Week:
		y, w := t.ISOWeek()
		return fmt.Sprintf("%04d-W%02d", y, w)
	case Month:
		return t.Format("2006-01")
	case Quarter:
		return fmt.Sprintf("%04d-Q%d", t.Year(), (t.Month()+2)/3)
	case Year:
		return t.Format("2006")
	}
	return v.String()
}

// farDays bounds the days that have a calendar date here; farther ones, which
// no parser accepts, are their own bucket.
const farDays = 1 << 24

// start returns the first day of the bucket around day, in days since
// 1970-01-01, which was a Thursday.
func (b Bucket) start(day int64) int64 {
	if day <= -farDays || day >= farDays {
		return day
	}
	switch b {
	case Exact, Day:
		return day
	case Week:
		return day - floorMod(day+3, 7)
	}
	y, m, _ := time.Unix(day*86400, 0).UTC().Date()
	switch b {
	case Quarter:
		m -= (m - 1) % 3
	case Year:
		m = time.January
	}
	return floorDiv(time.Date(y, m, 1, 0, 0, 0, 0, time.UTC).Unix(), 86400)
}

const millisPerDay = 86_400_000

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func floorMod(a, b int64) int64 { return a - floorDiv(a, b)*b }
