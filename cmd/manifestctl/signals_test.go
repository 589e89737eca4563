//go:build unix

package main

import (
	"context"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSignals(t *testing.T) {
	exits := make(chan int, 1)
	ctx, stop := withSignals(context.Background(), func(code int) { exits <- code })
	defer stop()
	self, err := os.FindProcess(os.Getpid())
	require.NoError(t, err)

	require.NoError(t, self.Signal(syscall.SIGTERM))
	select {
	case <-ctx.Done():
	case <-time.After(time.Minute):
		require.Fail(t, "the first signal does not cancel")
	}
	s, ok := signalled(ctx)
	require.True(t, ok)
	assert.Equal(t, exitTerminated, s.code)

	require.NoError(t, self.Signal(os.Interrupt))
	select {
	case code := <-exits:
		assert.Equal(t, exitInterrupted, code)
	case <-time.After(time.Minute):
		require.Fail(t, "the second signal does not exit")
	}
}
