package spec

import (
	"path"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// pattern selects platforms: "linux/arm/*", "linux/arm" (every variant), "!linux/386".
type pattern struct {
	n      *node
	not    bool
	parts  []string // os, arch[, variant]
	weight int      // how much of it is literal; the heavier is the more specific
}

// pattern reads a pattern of platforms; negations only in lists of them.
func (d *decoder) pattern(t text, negation bool) pattern {
	p := pattern{n: t.n}
	s := t.s
	if negation && strings.HasPrefix(s, "!") {
		p.not, s = true, s[1:]
	}
	p.parts = strings.Split(s, "/")
	if len(p.parts) == 1 && s == "*" {
		p.parts = []string{"*", "*"}
	}
	if len(p.parts) < 2 || len(p.parts) > 3 {
		hint := "os/arch or os/arch/variant, each may be *"
		if len(p.parts) == 1 && nameText.MatchString(s) {
			hint = `write "linux/` + s + `"`
		}
		d.r.at(t.n, hint, "%q is not a pattern of platforms", t.s)
		return p
	}
	literal := true
	for i, part := range p.parts {
		if _, err := path.Match(part, ""); err != nil || part == "" {
			d.r.at(t.n, "", "%q is not a pattern of platforms", t.s)
			return p
		}
		switch {
		case !strings.ContainsAny(part, `*?[\`):
			p.weight += 2 << (2 * i)
		case part != "*":
			p.weight += 1 << (2 * i)
			literal = false
		default:
			literal = false
		}
	}
	if literal { // aliases: linux/aarch64, linux/x86_64
		q, err := platform.Parse(s)
		if err != nil {
			d.r.at(t.n, didYouMean(s, knownPlatforms()), "invalid platform %q", s)
			return p
		}
		p.parts[0], p.parts[1] = q.OS, q.Arch
		if len(p.parts) == 3 {
			p.parts[2] = variant(q)
		}
		return p
	}
	for _, k := range platform.Known() {
		if p.matches(k) {
			return p
		}
	}
	if len(platform.Known()) > 0 {
		d.r.at(t.n, didYouMean(s, knownPlatforms()), "no known platform is %q", s)
	}
	return p
}

// variant is the variant of p with the one that normalised platforms leave out.
func variant(p platform.Platform) string {
	switch {
	case p.Variant != "":
		return p.Variant
	case p.Arch == "arm64":
		return "v8"
	case p.Arch == "amd64":
		return "v1"
	case p.Arch == "arm":
		return "v7"
	}
	return ""
}

// matches reports whether p is of the pattern, its negation aside.
func (t pattern) matches(p platform.Platform) bool {
	for i, have := range []string{p.OS, p.Arch, variant(p)} {
		if i >= len(t.parts) {
			break
		}
		if ok, err := path.Match(t.parts[i], have); err != nil || !ok {
			return false
		}
	}
	return true
}

// matchesAny reports whether p is selected: by one of the positive patterns, or by default when there are none, and by no negation.
func matchesAny(ps []pattern, p platform.Platform) bool {
	positive, found := false, false
	for _, t := range ps {
		if t.not {
			if t.matches(p) {
				return false
			}
			continue
		}
		positive = true
		found = found || t.matches(p)
	}
	return found || !positive
}

func knownPlatforms() []string {
	var names []string
	for _, p := range platform.Known() {
		names = append(names, p.String())
	}
	return names
}
