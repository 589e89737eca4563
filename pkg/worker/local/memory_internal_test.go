package local

import (
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/source"
)

// What somebody has said of the collector stays; what nobody has is given back.
func TestTheCollectorIsGivenBack(t *testing.T) {
	was := debug.SetGCPercent(defaultGC)
	defer debug.SetGCPercent(was)
	now := func() int {
		percent := debug.SetGCPercent(defaultGC)
		debug.SetGCPercent(percent)
		return percent
	}
	for said, during := range map[int]int{defaultGC: largeTreeGC, 40: 40, -1: -1} {
		debug.SetGCPercent(said)
		w := &Worker{virtual: virtuals{sums: map[string]*source.Sums{}}}
		w.virtual.gc.Do(w.saveMemory)
		assert.Equal(t, during, now())
		require.NoError(t, w.closeVirtual())
		assert.Equal(t, said, now())
	}
}
