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
	now := time.Unix(0, 0)
	ctx, stop := withSignals(context.Background(), func() time.Time { return now }, func(code int) { exits <- code })
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

	// The same one at the same time is no second one: timeout(1) sends it twice. Another is.
	require.NoError(t, self.Signal(syscall.SIGTERM))
	require.NoError(t, self.Signal(os.Interrupt))
	select {
	case code := <-exits:
		assert.Equal(t, exitInterrupted, code)
	case <-time.After(time.Minute):
		require.Fail(t, "the second signal does not exit")
	}
}

// TestSignals_twice: a signal that comes once more later ends the process.
func TestSignals_twice(t *testing.T) {
	exits := make(chan int, 1)
	times := make(chan time.Time, 2)
	times <- time.Unix(0, 0)
	times <- time.Unix(0, 0).Add(echo + 1)
	ctx, stop := withSignals(context.Background(), func() time.Time { return <-times }, func(code int) { exits <- code })
	defer stop()
	self, err := os.FindProcess(os.Getpid())
	require.NoError(t, err)
	require.NoError(t, self.Signal(syscall.SIGTERM))
	<-ctx.Done()
	require.NoError(t, self.Signal(syscall.SIGTERM))
	assert.Equal(t, exitTerminated, <-exits)
}
