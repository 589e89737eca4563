//go:build !unix

package store

import (
	"errors"
	"syscall"
)

// Windows' codes of a full disk and a full handle quota.
const (
	errorHandleDiskFull = syscall.Errno(39)
	errorDiskFull       = syscall.Errno(112)
)

func noSpace(_ string, err error) (what string, ok bool) {
	var no syscall.Errno
	if errors.As(err, &no) && (no == errorDiskFull || no == errorHandleDiskFull) {
		return "space", true
	}
	return "", false
}
