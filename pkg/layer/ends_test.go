package layer

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestEndsOfArchives holds what ADD takes as the end of an archive, and that a layer must have a whole one.
func TestEndsOfArchives(t *testing.T) {
	member := append(rawHeader("a", '0', func(b []byte) { copy(b[124:], "00000000002\x00") }), blocks("a\n")...)
	zeros := make([]byte, blockSize)
	for name, tc := range map[string]struct {
		data            []byte
		layer, unpacked bool
	}{
		"whole":               {bytes.Join([][]byte{member, zeros, zeros}, nil), true, true},
		"one block of zeros":  {bytes.Join([][]byte{member, zeros}, nil), true, true},
		"none":                {member, false, true},
		"cut in padding":      {member[:700], false, true},
		"cut in data":         {member[:513], false, false},
		"cut in a header":     {append(bytes.Clone(member), member[:100]...), false, false},
		"text after it":       {bytes.Join([][]byte{member, zeros, zeros, []byte("text")}, nil), false, true},
		"text after one":      {bytes.Join([][]byte{member, zeros, []byte("text")}, nil), false, false},
		"a member after one":  {bytes.Join([][]byte{member, zeros, member}, nil), false, false},
		"a member after both": {bytes.Join([][]byte{member, zeros, zeros, member}, nil), false, true},
		"nothing":             {nil, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			for lenient, want := range map[bool]bool{false: tc.layer, true: tc.unpacked} {
				s := newScanner(t.Context(), bytes.NewReader(tc.data), nil, Limits{})
				s.lenient = lenient
				var err error
				members := 0
				for err == nil {
					if _, err = s.next(); err == nil {
						members++
					}
				}
				if want {
					require.EqualError(t, err, "EOF", "lenient: %v", lenient)
					assert.Equal(t, min(len(tc.data), 1), members)
					continue
				}
				assert.NotEqual(t, "EOF", err.Error(), "lenient: %v", lenient)
			}
		})
	}
}
