package syncproto

import "github.com/tradepost-crm/tradepost/crm"

// A Repair says that a territory of the sender is not the master's. The feed
// goes back to Cursor. If Buckets is empty its next final Batch carries the
// territory's bucket sums, else these buckets whole.
type Repair struct {
	Cursor    crm.Rev // of the sender: nothing above is in its base
	Territory crm.TerritoryID
	Buckets   BucketSet
}

// Kind returns KindRepair.
func (*Repair) Kind() Kind { return KindRepair }

func (f *Repair) fields(c *codec) {
	c.rev("cursor", &f.Cursor)
	number(c, "territory", &f.Territory)
	c.fixed("buckets", f.Buckets[:])
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
