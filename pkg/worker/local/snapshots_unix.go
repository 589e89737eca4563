//go:build unix

package local

import "golang.org/x/sys/unix"

const (
	errBrokenPipe = unix.EPIPE
	errNotEmpty   = unix.ENOTEMPTY
)
