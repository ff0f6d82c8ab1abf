// Package crm holds the words of the business: values, schema, records,
// mutations and the merge that decides them. It imports the standard library
// only and does no I/O: it owns no clock, goroutine, file or socket, so that a
// branch and the master run the very same functions and agree.
//
// The flow of an edit through this package is one way:
//
//	form → Mutation → Decide(View, Mutation) → Decision{Outcome, writes}
//
// A replica calls [Fold] to show what it hopes will be decided; the master
// calls [Decide] to decide. Both reach the same merge.
package crm
