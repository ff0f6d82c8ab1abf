package crm

import "fmt"

// PoisonAdvice is the message of a rejection with [CodePoison].
const PoisonAdvice = "judging it brought down the masters, so it was not judged; make the edit anew in another form, and tell the makers"

// DecidePoison is [Decide] for a Mutation that a master's process did not survive
// judging: always a rejection, with a note on the attention list of the author's
// home that holds what the edit would have changed.
func DecidePoison(v View, m *Mutation, env Env) (Decision, error) {
	return newDecider(v, m, env).rejected(&rejection{why: Error{Code: CodePoison, Item: fmt.Sprintf("edit %d of node %d", m.Seq, m.Node), Message: PoisonAdvice}})
}
