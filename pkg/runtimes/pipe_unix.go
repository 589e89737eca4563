//go:build unix

package runtimes

import (
	"errors"
	"syscall"
)

// brokenPipe reports whether a reader went away: what it said is the better error.
func brokenPipe(err error) bool { return errors.Is(err, syscall.EPIPE) }
