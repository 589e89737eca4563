package graph

import (
	"fmt"
	"strings"
)

// Excerpt is the part of a file that a vertex was made of, for messages that show it.
type Excerpt struct {
	File     string // "Dockerfile"
	Text     []byte // all of the file
	From, To int    // lines, 1 is the first; both included
}

// String shows the lines and a few around them, as buildx does. Control characters are shown as they are.
func (e *Excerpt) String() string {
	if e == nil {
		return ""
	}
	lines := strings.Split(string(e.Text), "\n")
	from, to := e.From, min(max(e.To, e.From), len(lines))
	if from < 1 || from > len(lines) {
		return ""
	}
	pad := 2
	if from == to {
		pad = 4
	}
	for p := 0; p < pad; p++ {
		if from > 1 {
			from--
			p++
		}
		if to < len(lines) {
			to++
			p++
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d\n--------------------\n", e.File, e.From)
	for i := from; i <= to; i++ {
		mark := "   "
		if i >= e.From && i <= max(e.To, e.From) {
			mark = ">>>"
		}
		fmt.Fprintf(&b, " %3d | %s %s\n", i, mark, lines[i-1])
	}
	b.WriteString("--------------------\n")
	return b.String()
}
