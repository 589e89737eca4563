package spec

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"unicode/utf8"
)

// template is a string in which ${NAME} stands for variables. $${ is a literal ${; any other $ is itself.
type template struct {
	n     *node
	parts []part
}

// part is a literal or the name of a variable.
type part struct {
	literal string
	name    string // "" for a literal
	at      *node  // where the name stands
}

var nameText = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`) })

// parseTemplate splits t and reports what looks like a variable and is none.
func parseTemplate(r *reporter, t text) *template {
	out := &template{n: t.n}
	rest, literal := t.s, strings.Builder{}
	from := placeCursor{r: r, line: t.n.line, col: t.n.col}
	for rest != "" {
		switch {
		case strings.HasPrefix(rest, "$${"):
			literal.WriteString("${")
			from.find("$${")
			rest = rest[3:]
		case strings.HasPrefix(rest, "${"):
			name, after, closed := strings.Cut(rest[2:], "}")
			if !closed {
				at := from.find("${")
				r.at(at, "$${ is a literal ${", "${ without }")
				return &template{n: t.n, parts: []part{{literal: t.s}}}
			}
			at := from.find("${" + name)
			if !nameText().MatchString(name) {
				r.at(at, "$${ is a literal ${", "${%s} is not a variable: only ${NAME} is expanded", name)
				name = ""
			}
			if literal.Len() > 0 {
				out.parts = append(out.parts, part{literal: literal.String()})
				literal.Reset()
			}
			if name != "" {
				out.parts = append(out.parts, part{name: name, at: at})
			}
			rest = after
		default:
			i := 1 + strings.IndexByte(rest[1:], '$')
			if i == 0 {
				i = len(rest)
			}
			literal.WriteString(rest[:i])
			rest = rest[i:]
		}
	}
	if literal.Len() > 0 {
		out.parts = append(out.parts, part{literal: literal.String()})
	}
	return out
}

// placeCursor finds where parts of a decoded string stand in the source.
type placeCursor struct {
	r         *reporter
	line, col int
}

// find returns the place of the next s at or after the cursor, the cursor itself when it is not
// found (a double-quoted string with escapes), and moves behind it.
func (c *placeCursor) find(s string) *node {
	here := &node{line: c.line, col: c.col}
	col := c.col
	for line := c.line; line <= len(c.r.lines) && line < c.line+1000; line++ {
		rs := []rune(c.r.line(line))
		tail := string(rs[min(max(col-1, 0), len(rs)):])
		if i := strings.Index(tail, s); i >= 0 {
			at := &node{line: line, col: max(col, 1) + utf8.RuneCountInString(tail[:i])}
			c.line, c.col = line, at.col+utf8.RuneCountInString(s)
			return at
		}
		col = 1
	}
	return here
}

// variables are the names that a template may use for one platform. A nil value is known but has none there.
type variables map[string]*string

// eval returns the text; ok is false after reporting a variable without a value.
func (t *template) eval(r *reporter, vars variables) (s string, ok bool) {
	var b strings.Builder
	ok = true
	for _, p := range t.parts {
		if p.name == "" {
			b.WriteString(p.literal)
			continue
		}
		v, known := vars[p.name]
		switch {
		case !known:
			ok = false // reported once, for all platforms, by the planner
		case v == nil:
			platform := ""
			if tp := vars["TARGETPLATFORM"]; tp != nil {
				platform = " for " + *tp
			}
			r.at(p.at, "", "variable %s has no value%s", p.name, platform)
			ok = false
		default:
			b.WriteString(*v)
		}
	}
	return b.String(), ok
}

// String is the text with its variables' names, for messages.
func (t *template) String() string {
	var b strings.Builder
	for _, p := range t.parts {
		if p.name != "" {
			fmt.Fprintf(&b, "${%s}", p.name)
			continue
		}
		b.WriteString(p.literal)
	}
	return b.String()
}
