package sandbox

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParseMap(t *testing.T) {
	for name, tc := range map[string]struct {
		in   string
		want []span
		err  error
	}{
		"the initial namespace": {"         0          0 4294967295\n", []span{{0, 0, 4294967295}}, nil},
		"two":                   {"0 1000 1\n1 100000 65536\n", []span{{0, 1000, 1}, {1, 100000, 65536}}, nil},
		"none":                  {"", nil, nil},
		"words":                 {"a b c\n", nil, errMap},
		"short":                 {"0 0\n", nil, errMap},
		"nothing mapped":        {"0 0 0\n", nil, errMap},
		"negative":              {"0 -1 1\n", nil, errMap},
		"too large":             {"0 0 4294967296\n", nil, errMap},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseMap(strings.NewReader(tc.in))
			require.ErrorIs(t, err, tc.err)
			assert.Equal(t, tc.want, got)
		})
	}
}

func TestParseSubIDs(t *testing.T) {
	const file = "# comment\nother:100000:65536\nme:165536:65536\n1000:300000:10\nme:1:x\nme:4294967290:100\nme:5:0\nbroken\n  me:400000:5  \n"
	got, err := parseSubIDs(strings.NewReader(file), "me", "1000")
	require.NoError(t, err)
	assert.Equal(t, []span{{0, 165536, 65536}, {0, 300000, 10}, {0, 400000, 5}}, got)
	got, err = parseSubIDs(strings.NewReader(file), "", "54321")
	require.NoError(t, err)
	assert.Empty(t, got)
	got, err = parseSubIDs(strings.NewReader(":1:2\n"), "", "5")
	require.NoError(t, err)
	assert.Empty(t, got, "a user without a name does not own nameless lines")
}

func TestMapRanges(t *testing.T) {
	m := mapRanges(1000, []span{{0, 100000, 65536}, {0, 999, 10}, {0, 300000, 10}})
	assert.Equal(t, []span{{0, 1000, 1}, {1, 100000, 65536}, {65537, 300000, 10}}, m, "a range with the own id in it cannot be mapped")
	assert.EqualValues(t, 65547, reach(m))
	assert.EqualValues(t, 0, reach(nil))
	assert.EqualValues(t, 0, reach([]span{{1, 0, 5}}))
	assert.EqualValues(t, 6, reach([]span{{1, 0, 5}, {0, 9, 1}}), "in any order")
	assert.EqualValues(t, 1, reach([]span{{0, 9, 1}, {5, 0, 5}}), "gaps do not count")
}

func FuzzParseMap(f *testing.F) {
	for _, s := range []string{"0 0 4294967295\n", "0 1000 1\n1 100000 65536\n", "", "a b c", "0 0 0", "4294967295 4294967295 4294967295"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		m, err := parseMap(strings.NewReader(in))
		if err != nil {
			return
		}
		n := reach(m)
		assert.GreaterOrEqual(t, n, int64(0))
		var b strings.Builder
		for _, s := range m {
			assert.Positive(t, s.Count)
			b.WriteString(strings.ReplaceAll(s.String(), "-", " ") + "\n")
		}
		again, err := parseMap(strings.NewReader(b.String()))
		require.NoError(t, err)
		assert.Equal(t, m, again)
	})
}

func FuzzParseSubIDs(f *testing.F) {
	f.Add("me:100000:65536\n1000:1:1\n", "me", "1000", int64(1000))
	f.Add(":::\nme:4294967295:4294967295", "me", "", int64(0))
	f.Fuzz(func(t *testing.T, in, name, uid string, own int64) {
		ranges, err := parseSubIDs(strings.NewReader(in), name, uid)
		if err != nil {
			return
		}
		own = max(0, min(own, 1<<32-2))
		m := mapRanges(own, ranges)
		var sum int64
		for _, s := range m {
			assert.Equal(t, sum, s.Inside, "no gaps")
			assert.Positive(t, s.Count)
			assert.LessOrEqual(t, s.Outside+s.Count, int64(1)<<32)
			sum += s.Count
		}
		assert.Equal(t, sum, reach(m))
	})
}
