// Package tradepost is the root of a CRM with a node in every branch. The root
// holds no code, only tests about the repository itself: the layers of its
// packages, its documentation and its samples.
package tradepost
