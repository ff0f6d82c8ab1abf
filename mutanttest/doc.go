// Package mutanttest breaks Tradepost on purpose and asks whether its tests
// notice. Each [Mutant] replaces one passage of one file, in the build only
// (go's -overlay), and names the test that must fail then. A passage that is not
// in the file exactly once fails too, so the table follows the code.
//
// The idea is DeMillo, Lipton and Sayward's, "Hints on test data selection"
// (1978): a test that a wrong program passes proves little.
package mutanttest
