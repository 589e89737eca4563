//go:build unix

package store

import (
	"errors"

	"golang.org/x/sys/unix"
)

// noSpace reports whether err means that dir's file system, or this user's or
// process's share of it, is full, and of what.
func noSpace(dir string, err error) (what string, ok bool) {
	switch {
	case errors.Is(err, unix.EDQUOT):
		return "quota", true
	case errors.Is(err, unix.EFBIG):
		return "room under the file size limit (ulimit -f)", true
	case errors.Is(err, unix.ENOSPC):
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Files > 0 && st.Ffree == 0 && st.Bavail > 0 {
			return "inodes", true
		}
		return "space", true
	}
	return "", false
}
