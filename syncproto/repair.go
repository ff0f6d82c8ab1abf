package syncproto

import "github.com/tradepost-crm/tradepost/crm"

// A Repair says that territories of the sender are not the master's. The feed
// goes back to Cursor as if a session had begun there with nothing staged, and
// from then on every Batch bears the Repair's Number: one that does not was sent
// before and is not to be applied. The next final Batch answers what is wanted of
// each territory that the sender may hold. A later Repair takes the place of an
// earlier one.
type Repair struct {
	Number uint32  // of the Repair in its session, counted from 1
	Cursor crm.Rev // of the sender: nothing above is in its base
	Wants  []Want  // at most MaxWants
}

// A Want says what is needed to mend a territory: the sums of its buckets if
// Buckets is empty, else the records of these buckets.
type Want struct {
	Territory crm.TerritoryID
	Buckets   BucketSet
}

// MaxWants bounds the territories of a Repair: so many bucket sums fit a Batch
// beside its items.
const MaxWants = 256

// Kind returns KindRepair.
func (*Repair) Kind() Kind { return KindRepair }

func (f *Repair) fields(c *codec) {
	number(c, "number", &f.Number)
	c.rev("cursor", &f.Cursor)
	each(c, "wants", &f.Wants, MaxWants, 1+32, func(w *Want) {
		number(c, "territory", &w.Territory)
		c.fixed("buckets", w.Buckets[:])
	})
	if f.Number == 0 {
		c.fail("number", "0 is no number of a repair")
	}
}

// Reports tell the node above how far the nodes below the sender are. They are
// hints.
type Reports struct {
	Reports []Report
}

// A Report says how far one node is.
type Report struct {
	Node       crm.NodeID
	Cursor     crm.Rev
	LowBase    crm.Rev // as in Hello
	SeenMillis int64   // when it was last heard of, by the reporting node's clock
}

// Kind returns KindReports.
func (*Reports) Kind() Kind { return KindReports }

func (f *Reports) fields(c *codec) {
	each(c, "reports", &f.Reports, maxReports, 4, func(r *Report) {
		number(c, "node", &r.Node)
		c.rev("cursor", &r.Cursor)
		c.rev("low_base", &r.LowBase)
		c.time("seen", &r.SeenMillis)
	})
}

// maxReports keeps a frame of reports small.
const maxReports = 4096
