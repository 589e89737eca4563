//go:build unix

package store

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// foreignOwner reports whether somebody else owns the file.
func foreignOwner(fi fs.FileInfo) (uid, me int, foreign bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return int(st.Uid), os.Geteuid(), int(st.Uid) != os.Geteuid()
}

func isReadOnlyFS(err error) bool { return errors.Is(err, unix.EROFS) }

const errNotDir = unix.ENOTDIR

func isNotDir(err error) bool { return errors.Is(err, errNotDir) }

func isCrossDevice(err error) bool { return errors.Is(err, unix.EXDEV) }

// noLocks reports what file systems say that cannot lock (NFS without lockd, some FUSE).
func noLocks(err error) bool {
	return errors.Is(err, unix.ENOLCK) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)
}

// openFlags keep a reader of a blob's name from following a symlink or waiting for a FIFO's writer.
const openFlags = unix.O_NOFOLLOW | unix.O_NONBLOCK

// syncDir makes the names in dir durable. File systems that cannot do that for directories say EINVAL.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	return nil
}

// markDurable notes in a blob's mode that it is on disk for good. It only saves later syncs.
func markDurable(path string) { _ = os.Chmod(path, syncedMode) }

func isDurable(fi fs.FileInfo) bool { return fi.Mode().Perm()&0o200 == 0 }
