//go:build linux

package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testuser"
)

// agents counts those that were started.
func (p *Pool) agents() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.all)
}

// TestAhead: agents that were started ahead serve the steps that run at once, and nobody starts another one.
func TestAhead(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		t.Run("are used", func(t *testing.T) {
			b := boxOf(t, newPool(t, Options{Agents: 3, Ahead: 2}))
			var wg sync.WaitGroup
			for range 3 {
				s := b.step("true")
				wg.Go(func() { assert.NoError(t, b.run(s).failure) })
			}
			wg.Wait()
			assert.Equal(t, 3, b.pool.agents())
		})
		t.Run("are no more than agents", func(t *testing.T) {
			b := boxOf(t, newPool(t, Options{Agents: 1, Ahead: 5}))
			b.ok("true")
			assert.Equal(t, 1, b.pool.agents())
		})
		t.Run("end with the pool", func(t *testing.T) {
			p, err := NewPool(t.Context(), Options{Mode: mode(t), Agents: 3, Ahead: 2})
			require.NoError(t, err)
			require.NoError(t, p.Close())
			assert.Zero(t, p.agents())
		})
		t.Run("are not waited for by who gives up", func(t *testing.T) {
			p := newPool(t, Options{Agents: 2})
			first, err := p.acquire(t.Context())
			require.NoError(t, err)
			p.mu.Lock()
			p.coming = append(p.coming, make(chan *agent, 1)) // never comes
			p.mu.Unlock()
			enough := errors.New("enough")
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(enough)
			_, err = p.acquire(ctx)
			require.ErrorIs(t, err, enough)
			p.coming[0] <- nil // it could not be started
			second, err := p.acquire(t.Context())
			require.NoError(t, err)
			assert.NotSame(t, first, second)
			p.release(first)
			p.release(second)
		})
	})
	t.Run("where nothing can be started", func(t *testing.T) {
		dir := t.TempDir()
		for _, tool := range []string{"newuidmap", "newgidmap"} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, tool), []byte("#!/bin/sh\nexit 1\n"), 0o755))
		}
		_, err := NewPool(t.Context(), Options{Mode: ModeRanges, Path: dir, Agents: 3, Ahead: 2})
		require.ErrorIs(t, err, ErrHost)
	})
}
