//go:build !unix

package serve

import (
	"errors"
	"syscall"
)

// The numbers of Windows: ERROR_DISK_FULL, ERROR_HANDLE_DISK_FULL, WSAEADDRINUSE.
func isDiskFull(err error) bool {
	return errors.Is(err, syscall.Errno(112)) || errors.Is(err, syscall.Errno(39))
}

func isAddrInUse(err error) bool { return errors.Is(err, syscall.Errno(10048)) }

// syncsDirs says that a directory can be opened and synced.
const syncsDirs = false
