// Package query reads the filter language, sort orders and field lists that
// lists, reports and workflow conditions share.
//
// A filter is a subset of the Common Expression Language over the fields of one
// entity:
//
//	stage == "won" && amount >= 1000 && account.name.contains("acme") && !(status in ["open", "draft"])
//
// Operators are == != < <= > >= in && || ! and parentheses; methods contains,
// startsWith and endsWith; has(field), which is field != null. Literals are
// "text" or 'text', numbers, true, false, null, lists, date("2026-01-31") and
// timestamp("2026-01-31T10:00:00Z"). "red" in tags asks a set for an element.
// An address is compared by part (billing_address.city), and a record one link
// away by its fields (account.name, account.billing_address.city). A field that
// holds yes or no may stand alone.
//
// Literals are typed against the field when the filter is parsed, so a parsed
// filter cannot fail: [Expr.Match] is total. Text is compared folded
// (crm.FoldText), telephone numbers by the number they dial. An amount without
// a currency, amount >= 1000, compares the number whatever the currency;
// amount >= "1000 EUR" holds only for euros.
//
// A field without a value is equal to null only: != holds for it and every
// other comparison is false. Empty text is null.
//
// The package is pure: no I/O, clock or goroutine. Its values are immutable
// once parsed and may be shared.
package query
