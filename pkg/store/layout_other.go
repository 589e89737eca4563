//go:build !unix

package store

import (
	"errors"
	"io/fs"
	"syscall"
)

// Windows' codes.
const (
	errorNotSameDevice = syscall.Errno(17)
	errNotDir          = syscall.Errno(267)
)

func foreignOwner(fs.FileInfo) (uid, me int, foreign bool) { return 0, 0, false }

func isReadOnlyFS(error) bool { return false }

func isNotDir(err error) bool { return errors.Is(err, errNotDir) }

func isCrossDevice(err error) bool { return errors.Is(err, errorNotSameDevice) }

func noLocks(err error) bool { return errors.Is(err, errors.ErrUnsupported) }

const openFlags = 0

func syncDir(string) error { return nil }

func markDurable(string) {}

func isDurable(fs.FileInfo) bool { return false }
