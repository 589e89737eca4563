package platform

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// Match reports whether p fits a pattern: a platform as [Parse] reads it whose
// parts may be left out at the end, or hold '*' for any characters. So
// "linux/arm/*" and "linux/arm" are every 32-bit Arm, "linux/arm/v7" is one of
// them, "linux/amd64/v1" and "linux/arm64/v8" are the plain ones only, "linux/*"
// is everything on Linux and "*/arm64" or "arm64" everything on arm64. A version in the pattern
// ("windows(10.0.17763)") fits what begins with it.
//
// A name that does not exist is an error of kind [ErrInvalid].
func Match(pattern string, p Platform) (bool, error) {
	m, err := parsePattern(pattern)
	if err != nil {
		if len(pattern) > maxText {
			pattern = pattern[:64] + "..."
		}
		return false, fmt.Errorf("%w pattern %q: %w", ErrInvalid, pattern, err)
	}
	return m.match(Normalise(p)), nil
}

// pattern holds a glob a part; "" fits anything.
type pattern struct {
	os, arch, variant string
	version, features string
	plain             bool // the variant must be ""
}

func parsePattern(s string) (m pattern, err error) {
	if s == "" || len(s) > maxText {
		return m, errors.New("write os/arch[/variant] with * for any, like linux/*")
	}
	parts := strings.Split(s, "/")
	if len(parts) > 3 {
		return m, errors.New("it has more than three parts: write os/arch[/variant]")
	}
	if len(parts) == 1 && !strings.ContainsAny(s, "*(") && !knownOS[canonicalOS(s)] {
		parts = []string{"*", s} // a lone architecture
	}
	for len(parts) < 3 {
		parts = append(parts, "*")
	}
	if m.os, m.version, m.features, err = parseOS(parts[0]); err != nil {
		return m, err
	}
	for _, part := range []string{m.os, parts[1], parts[2]} {
		if !isName(strings.ReplaceAll(part, "*", "x")) {
			return m, fmt.Errorf("%q: letters, digits, '_', '.', '-' and '*' are allowed", part)
		}
	}
	written := Platform{OS: m.os, Arch: parts[1], Variant: parts[2]}
	m.os = canonicalOS(m.os)
	if hasStar(written.Arch) {
		m.arch, m.variant = strings.ToLower(written.Arch), strings.ToLower(written.Variant)
	} else if hasStar(written.Variant) {
		m.arch, m.variant = canonicalArch(written.Arch, "")
		if _, alias := archAliases[strings.ToLower(written.Arch)]; !alias || m.variant == "" {
			m.variant = strings.ToLower(written.Variant)
		}
	} else {
		m.arch, m.variant = canonicalArch(written.Arch, written.Variant)
		m.plain = m.variant == ""
	}
	return m, m.check(written)
}

func hasStar(s string) bool { return strings.Contains(s, "*") }

// check reports names without '*' that do not exist.
func (m pattern) check(written Platform) error {
	p := Platform{OS: "linux", Arch: "amd64"}
	if !hasStar(m.os) {
		p.OS = written.OS
	}
	if !hasStar(m.arch) {
		p.Arch = written.Arch
		if !hasStar(m.variant) && !hasStar(written.Variant) {
			p.Variant = written.Variant
		}
	}
	return check(&p)
}

func (m pattern) match(p Platform) bool {
	fits := func(glob, s string) bool {
		ok, err := path.Match(glob, s)
		return ok && err == nil
	}
	switch {
	case !fits(m.os, p.OS), !fits(m.arch, p.Arch), m.plain && p.Variant != "", !m.plain && !fits(m.variant, p.Variant):
		return false
	case m.version != "" && p.OSVersion != m.version && !strings.HasPrefix(p.OSVersion, m.version+"."):
		return false
	}
	for f := range strings.SplitSeq(m.features, "+") {
		if f != "" && !strings.Contains("+"+p.OSFeatures+"+", "+"+f+"+") {
			return false
		}
	}
	return true
}
