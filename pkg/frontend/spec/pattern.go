package spec

import (
	"strings"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// pattern selects platforms as [platform.Match] does: "linux/arm/*", "linux/arm" (every variant), "!linux/386".
type pattern struct {
	n      *node
	not    bool
	text   string
	weight int // how much of it is literal; the heavier is the more specific
}

// pattern reads a pattern of platforms; negations only in lists of them.
func (d *decoder) pattern(t text, negation bool) pattern {
	p := pattern{n: t.n, text: t.s}
	if negation && strings.HasPrefix(t.s, "!") {
		p.not, p.text = true, t.s[1:]
	}
	if _, err := platform.Match(p.text, platform.Platform{OS: "linux", Arch: "amd64"}); err != nil {
		d.r.add(t.n.line, t.n.col, err, "", "%v", err)
		return p
	}
	parts := strings.Split(p.text, "/")
	if len(parts) == 1 && p.text != "*" { // a lone architecture, or a lone OS
		parts = []string{"*", p.text}
	}
	for i, part := range parts {
		switch {
		case part == "*":
		case strings.Contains(part, "*"):
			p.weight += 1 << (2 * i)
		default:
			p.weight += 2 << (2 * i)
		}
	}
	return p
}

// matches reports whether p is of the pattern, its negation aside.
func (t pattern) matches(p platform.Platform) bool {
	ok, err := platform.Match(t.text, p)
	return err == nil && ok
}

// matchesAny reports whether p is selected: by one of the positive patterns, or by default when there are none, and by no negation.
func matchesAny(ps []pattern, p platform.Platform) bool {
	positive, found := false, false
	for _, t := range ps {
		switch {
		case !t.not:
			positive = true
			found = found || t.matches(p)
		case t.matches(p):
			return false
		}
	}
	return found || !positive
}
