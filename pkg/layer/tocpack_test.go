package layer

import (
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
