package stage

import (
	"fmt"
	"slices"
	"strings"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

// Expected is a platform that an index is to have.
type Expected struct {
	Platform platform.Platform
	Optional bool // it may be missing
}

// ParseExpected reads lists of OS/ARCH[/VARIANT][?] with commas between them; '?' marks what may be missing. The order is
// that of the index. At least one must be required.
func ParseExpected(lists ...string) ([]Expected, error) {
	var out []Expected
	required := false
	for _, list := range lists {
		for word := range strings.SplitSeq(list, ",") {
			name, optional := strings.CutSuffix(strings.TrimSpace(word), "?")
			p, err := platform.Parse(name)
			if err != nil {
				return nil, err
			}
			if slices.ContainsFunc(out, func(e Expected) bool { return e.Platform == p }) {
				return nil, fmt.Errorf("%w: %s is expected twice", ErrInvalid, p)
			}
			required = required || !optional
			out = append(out, Expected{p, optional})
		}
	}
	if len(out) > 0 && !required {
		return nil, fmt.Errorf("%w: every expected platform is optional: an index of none would do", ErrInvalid)
	}
	return out, nil
}
