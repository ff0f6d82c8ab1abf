// Package report groups, counts and adds up records from columns held in
// memory.
//
// A [Report] says what to compute; [Parse] reads one from text:
//
//	groups    account.billing_address.country, order_date:month
//	measures  count, sum(quantity*unit_price*(1-discount)) as revenue
//
// [Tables] hold the columns that reports need, one table an entity. Whoever owns
// the records fills them once and keeps them up to date:
//
//	for _, e := range tables.Extend(def.Needs()) {
//		// tables.Put(e.ID, r.ID, r.Value) for every live record r of e
//	}
//	result, err := tables.Run(def)
//	// later, for each change: tables.Put(...) or tables.Kill(...)
//
// Columns are derived and rebuildable. Text is coded by dictionary, numbers and
// times are int64, and a link is the row number of its target, so that a field
// one link away is read without a join table and never copied.
//
// # Arithmetic
//
// Sums and products are exact decimals: scales add on *, and align on + and -.
// What does not fit 64 bits is computed with math/big. An average is rounded
// half to even to 6 decimals. A result is shortened, half to even, only where a
// crm.Value cannot hold it: to 9 decimals, and fewer if its digits do not fit 64
// bits; a number whose whole part does not fit is an error. A value missing in
// an expression makes the expression null, and null is left out of every
// measure.
//
// # Currencies
//
// Amounts of different currencies never add. A report with a measure of amounts
// has a group column "currency" after its groups; records without an amount
// stand in the group without a currency. A record whose amounts are of different
// currencies is left out and counted in [Result.Mixed].
//
// # Concurrency
//
// Any number of Run may go on at once; Extend, Put and Kill need the Tables to
// themselves. The package starts no goroutine.
package report
