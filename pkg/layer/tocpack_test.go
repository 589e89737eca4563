package layer

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPackedTables(t *testing.T) {
	for name, n := range map[string]int{"small": 3, "large": 5000} {
		t.Run(name, func(t *testing.T) {
			toc := readTOC(t, manyFiles(t, n))
			packed, err := toc.Pack()
			require.NoError(t, err)
			got, err := UnpackTOC(packed)
			require.NoError(t, err)
			assert.Equal(t, toc, got)
			text, err := json.Marshal(toc)
			require.NoError(t, err)
			got, err = UnpackTOC(text)
			require.NoError(t, err)
			assert.Equal(t, toc, got)
			_, err = UnpackTOC(packed[:len(packed)-1])
			require.ErrorIs(t, err, ErrInvalid)
		})
	}
	_, err := UnpackTOC(nil)
	require.ErrorIs(t, err, ErrInvalid)
}

// A table that is too large to be held is kept as if it had been.
func TestATableThatIsNotHeld(t *testing.T) {
	data := manyFiles(t, 300)
	whole := readTOC(t, data)
	want, err := whole.Pack()
	require.NoError(t, err)
	n := len(whole.Entries)
	for hold, held := range map[int]bool{0: true, 1: false, n - 1: false, n: true, n + 1: true} {
		visited := 0
		toc, err := Scan(t.Context(), bytes.NewReader(data), ScanOptions{Hold: hold, Visit: func(*Entry, Packed) error { visited++; return nil }})
		require.NoError(t, err)
		assert.Equal(t, n, visited)
		assert.Equal(t, n, toc.Len())
		assert.Equal(t, held, toc.Entries != nil, "hold %d of %d", hold, n)
		got, err := toc.Pack()
		require.NoError(t, err)
		assert.Equal(t, want, got, "hold %d of %d", hold, n)
		text, err := json.Marshal(toc)
		require.NoError(t, err)
		again, err := UnpackTOC(text)
		require.NoError(t, err)
		assert.Equal(t, whole, again)
	}
}
