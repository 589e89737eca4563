package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestCollectLater: the first collection is put off, later ones are not.
func TestCollectLater(t *testing.T) {
	const usual = 100
	old := debug.SetGCPercent(usual)
	defer debug.SetGCPercent(old)
	current := func() int {
		sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(sample)
		return int(sample[0].Value.Uint64())
	}
	t.Setenv("GOGC", "50")
	collectLater()
	assert.Equal(t, usual, current(), "who says how often is asked")

	require.NoError(t, os.Unsetenv("GOGC")) // t.Setenv puts back what was
	collectLater()
	assert.Greater(t, current(), usual)
	runtime.GC()
	require.Eventually(t, func() bool { return current() == usual }, 2*time.Minute, time.Millisecond, "after the first one")
}
