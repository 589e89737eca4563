package spec

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Texts that made the YAML library slow, deep or large are refused in seconds, with a place.
func TestParseIsBounded(t *testing.T) {
	for name, tc := range map[string]struct{ prefix, repeated, want string }{
		"open brackets":            {"", "[", "too large"},
		"open braces":              {"a: ", "{a: ", "too large"},
		"sequences on one line":    {"", "- ", "too large"},
		"explicit keys":            {"", "? ", "too large"},
		"tags":                     {"a: ", "!!str ", "too large"},
		"content in a literal":     {"a: |\n", "  [x], {y: z}, -\n", ""},
		"content in quotes":        {"a: '", "[x], {y: z}, -", "could not find"},
		"empty lists":              {"a: [", "[],", "too large"},
		"many entries":             {"a:\n", "- b\n", "too large"},
		"blank lines in a literal": {"a: |\n ", "\n", "too many blank lines"},
		"spaces in a literal":      {"a: |\n ", "  \n", "too many blank lines"},
		"one quoted string":        {"a: \"", "x", "could not find end"},
	} {
		t.Run(name, func(t *testing.T) {
			text := tc.prefix + strings.Repeat(tc.repeated, (1<<20)/len(tc.repeated))
			r := newReporter("rootfs.yaml", []byte(text))
			start := time.Now()
			parse(r, []byte(text))
			assert.Less(t, time.Since(start), time.Minute)
			if tc.want == "" {
				require.Empty(t, r.errs)
				return
			}
			require.NotEmpty(t, r.errs)
			assert.Contains(t, r.errs[0].Message, tc.want)
			assert.Less(t, len(r.errs[0].Error()), 2000)
		})
	}
}

func TestNearest(t *testing.T) {
	keys := documentObject.names()
	for word, want := range map[string]string{
		"stpes": "steps", "step": "steps", "Platforms": "platforms", "platfrom": "platforms", "configuration": "config",
		"form": "from", "x": "", "": "", "annotation": "annotations", "volumes": "", strings.Repeat("a", 100): "",
	} {
		assert.Equal(t, want, nearest(word, keys), "%q", word)
	}
	assert.Empty(t, nearest("B", []string{"A"}), "one letter resembles nothing")
}
