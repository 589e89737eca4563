//go:build unix

package serve

import (
	"errors"
	"syscall"
)

func isDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

func isAddrInUse(err error) bool { return errors.Is(err, syscall.EADDRINUSE) }

// syncsDirs says that a directory can be opened and synced.
const syncsDirs = true
