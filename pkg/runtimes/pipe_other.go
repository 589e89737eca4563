//go:build !unix

package runtimes

import (
	"errors"
	"io"
)

func brokenPipe(err error) bool { return errors.Is(err, io.ErrClosedPipe) }
