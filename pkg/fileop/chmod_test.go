package fileop

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMode(t *testing.T) {
	for text, tc := range map[string]struct {
		from, file, dir int64
	}{
		"0640":        {0o755, 0o640, 0o640},
		"4755":        {0o600, 0o4755, 0o4755},
		"u+x":         {0o644, 0o744, 0o744},
		"+x":          {0o604, 0o715, 0o715},
		"a-w":         {0o666, 0o444, 0o444},
		"go=":         {0o755, 0o700, 0o700},
		"go=rX":       {0o600, 0o644, 0o655},
		"u=rwX,go=rX": {0o700, 0o755, 0o755},
		"g=u":         {0o640, 0o660, 0o660},
		"g=u,o=g":     {0o640, 0o664, 0o664},
		"u+s":         {0o755, 0o4755, 0o4755},
		"+t":          {0o777, 0o1777, 0o1777},
		"u-s,g-s":     {0o6755, 0o755, 0o755},
		"u+r-w":       {0o200, 0o400, 0o400},
	} {
		t.Run(text, func(t *testing.T) {
			clauses, err := parseMode(text)
			require.NoError(t, err)
			assert.Equal(t, fmt.Sprintf("%o", tc.file), fmt.Sprintf("%o", applyMode(clauses, tc.from, false)), "file")
			assert.Equal(t, fmt.Sprintf("%o", tc.dir), fmt.Sprintf("%o", applyMode(clauses, tc.from, true)), "directory")
		})
	}
	for _, text := range []string{"", "x", "u", "u+", "8", "77777", "u+q", "u!x", ",", "u+x,"} {
		_, err := parseMode(text)
		if text == "u+" {
			require.NoError(t, err, "nothing is added")
			continue
		}
		require.ErrorIs(t, err, ErrMode, text)
	}
}

func FuzzMode(f *testing.F) {
	for _, s := range []string{"0644", "u+x,g-w", "a=rX", "g=u", "+t"} {
		f.Add(s, int64(0o644))
	}
	f.Fuzz(func(t *testing.T, s string, mode int64) {
		clauses, err := parseMode(s)
		if err != nil {
			return
		}
		assert.Zero(t, applyMode(clauses, mode&0o7777, true)&^0o7777)
	})
}
