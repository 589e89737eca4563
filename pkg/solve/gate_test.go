package solve

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestGateLetsTheHighestPriorityInFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		require.NoError(t, g.enter(t.Context(), 0))
		var mu sync.Mutex
		var order []int
		var wg sync.WaitGroup
		for i, priority := range []int{1, 5, 3, 5, 0} {
			wg.Go(func() {
				assert.NoError(t, g.enter(t.Context(), priority))
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				g.leave()
			})
			synctest.Wait()
		}
		g.leave()
		wg.Wait()
		assert.Equal(t, []int{1, 3, 2, 0, 4}, order)
	})
}

func TestGateIsBoundedAndLosesNoPlace(t *testing.T) {
	g := newGate(3)
	var in, most atomic.Int32
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%3 == 0 {
				go cancel()
			}
			if g.enter(ctx, i%7) != nil {
				return
			}
			n := in.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(time.Microsecond)
			in.Add(-1)
			g.leave()
		})
	}
	wg.Wait()
	assert.LessOrEqual(t, most.Load(), int32(3))
	assert.Equal(t, 3, g.free, "every place is free again")
	assert.Empty(t, g.waiting)
}

func TestGateEndsWithTheCause(t *testing.T) {
	g := newGate(1)
	require.NoError(t, g.enter(t.Context(), 0))
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	cancel(why)
	assert.ErrorIs(t, g.enter(ctx, 0), why)
}
