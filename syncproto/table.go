package syncproto

import (
	"fmt"
	"strings"
)

// Tables returns the Markdown of docs/protocol.md that draws the fields of every
// frame, in the order they are sent, from the code that sends them.
func Tables() string {
	var b strings.Builder
	for k := Kind(1); int(k) < len(kindNames); k++ {
		c := codec{mode: describing, version: MaxVersion, kind: k}
		newFrame(k).fields(&c)
		fmt.Fprintf(&b, "### %d `%s`\n\n| field | form | bound |\n|---|---|---|\n", k, k)
		for _, r := range c.rows {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.field, r.form, r.bound)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
