package platform

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// maxText is the most bytes of a platform in text; longer ones are no platform.
const maxText = 1024

// Parse reads "os/arch[/variant]", "os(version+feature)/arch", or a lone
// architecture, which means Linux (containerd takes the machine's own system, which
// this package does not know). The version may also follow at the end after a
// colon, "windows/amd64:10.0.17763", as crane and oras write it. In versions and
// features, %XX stands for a byte that is not a letter, digit, '_', '.' or '-'.
//
// An operating system, architecture or variant that does not exist is an error of
// kind [ErrInvalid] that names the nearest one which does.
func Parse(s string) (Platform, error) {
	p, err := parse(s)
	if err != nil {
		if len(s) > maxText {
			s = s[:64] + "..."
		}
		return Platform{}, fmt.Errorf("%w %q: %w", ErrInvalid, s, err)
	}
	return p, nil
}

func parse(s string) (Platform, error) {
	switch {
	case s == "":
		return Platform{}, errors.New("it is empty: write os/arch[/variant], like linux/arm64")
	case len(s) > maxText:
		return Platform{}, fmt.Errorf("it is %d characters", len(s))
	case strings.Contains(s, "*"):
		return Platform{}, errors.New("a pattern is not a platform")
	}
	text, version, hasVersion := strings.Cut(s, ":")
	parts := strings.Split(text, "/")
	if len(parts) > 3 {
		return Platform{}, errors.New("it has more than three parts: write os/arch[/variant]")
	}
	if len(parts) == 1 {
		if known := canonicalOS(parts[0]); knownOS[known] {
			return Platform{}, fmt.Errorf("the architecture is missing: write %s/ARCH, like %[1]s/arm64", known)
		}
		parts = []string{"linux", parts[0]}
	}
	var p Platform
	var err error
	if p.OS, p.OSVersion, p.OSFeatures, err = parseOS(parts[0]); err != nil {
		return Platform{}, err
	}
	if hasVersion {
		if p.OSVersion != "" {
			return Platform{}, errors.New("it has two versions")
		}
		if p.OSVersion, err = unescapeStrict(version); err != nil {
			return Platform{}, err
		}
	}
	p.Arch = parts[1]
	if len(parts) == 3 {
		if p.Variant = parts[2]; !isName(p.Variant) {
			return Platform{}, fmt.Errorf("%q is not a variant", p.Variant)
		}
	}
	return p, check(&p)
}

// parseOS reads OS[([VERSION][+FEATURE]...)].
func parseOS(s string) (os, version, features string, err error) {
	os, options, ok := strings.Cut(s, "(")
	if !ok {
		return os, "", "", nil
	}
	options, ok = strings.CutSuffix(options, ")")
	if !ok {
		return "", "", "", errors.New("the ( is not closed at the end of the operating system")
	}
	version, rest, hasFeatures := strings.Cut(options, "+")
	if version, err = unescapeStrict(version); err != nil {
		return "", "", "", err
	}
	if !hasFeatures {
		return os, version, "", nil
	}
	list := strings.Split(rest, "+")
	for i, f := range list {
		text, err := unescapeStrict(f)
		if err != nil {
			return "", "", "", err
		}
		if text == "" {
			return "", "", "", errors.New("a feature is empty")
		}
		list[i] = escape(text)
	}
	return os, version, joinFeatures(list), nil
}

// check normalises p, whose parts are as written, and reports what does not exist.
func check(p *Platform) error {
	written := *p
	*p = Normalise(*p)
	switch {
	case !knownOS[p.OS] && knownArch[p.OS] && knownOS[canonicalOS(written.Arch)]:
		return fmt.Errorf("the operating system comes first: write %s/%s", canonicalOS(written.Arch), p.OS)
	case !knownOS[p.OS]:
		return unknown("operating system", written.OS, knownOS)
	case !knownArch[p.Arch]:
		names := map[string]bool{}
		for alias := range archAliases {
			names[alias] = true
		}
		for arch := range knownArch {
			names[arch] = true
		}
		return unknown("architecture", written.Arch, names)
	case p.Variant != "" && variants[p.Arch] != nil && !variants[p.Arch][p.Variant]:
		return unknown("variant of "+p.Arch, written.Variant, variants[p.Arch])
	}
	return nil
}

// unknown reports a name that does not exist and what may have been meant.
func unknown(what, name string, names map[string]bool) error {
	if best := nearest(name, names); best != "" && !strings.HasPrefix(what, "variant") {
		return fmt.Errorf("unknown %s %q: did you mean %q?", what, name, best)
	}
	var list []string
	switch what {
	case "operating system", "architecture":
		for _, p := range Known() {
			text := p.OS
			if what == "architecture" {
				text = p.Arch
			}
			if !slices.Contains(list, text) {
				list = append(list, text)
			}
		}
	default:
		for v := range names {
			list = append(list, v)
		}
		slices.Sort(list)
	}
	return fmt.Errorf("unknown %s %q: known are %s", what, name, strings.Join(list, ", "))
}

// ParseList reads comma-separated platforms of several flags, in order, without repeats.
func ParseList(ss ...string) ([]Platform, error) {
	var out []Platform
	var errs []error
	for _, s := range ss {
		for word := range strings.SplitSeq(s, ",") {
			p, err := Parse(strings.TrimSpace(word))
			if err != nil {
				errs = append(errs, err)
			} else if !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}

// isName reports whether s can stand for a part of a platform without escaping.
func isName(s string) bool {
	for i := range len(s) {
		if !isNameByte(s[i]) {
			return false
		}
	}
	return s != ""
}

func isNameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == '-'
}

// escape writes every byte that cannot stand in a version or feature as %XX.
func escape(s string) string {
	if s == "" || isName(s) {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		if isNameByte(s[i]) {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
	}
	return b.String()
}

// unescape is the inverse of escape; bytes that need no escape are taken as they are.
func unescape(s string) (string, error) {
	if !strings.Contains(s, "%") {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		if len(s) < i+3 {
			return "", fmt.Errorf("%q: %% without two hexadecimal digits", s)
		}
		n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("%q: %% without two hexadecimal digits", s)
		}
		b.WriteByte(byte(n))
		i += 2
	}
	return b.String(), nil
}

// unescapeStrict is unescape for text that people write: what needs an escape must have one.
func unescapeStrict(s string) (string, error) {
	for i := range len(s) {
		if !isNameByte(s[i]) && s[i] != '%' {
			return "", fmt.Errorf("%q: letters, digits, '_', '.' and '-' are allowed", s)
		}
	}
	return unescape(s)
}
