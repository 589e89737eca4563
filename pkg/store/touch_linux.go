package store

import "golang.org/x/sys/unix"

// touch sets the times of path to the kernel's now.
func touch(path string) {
	now := unix.Timespec{Nsec: unix.UTIME_NOW}
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{now, now}, unix.AT_SYMLINK_NOFOLLOW) // see Touch
}

// fileSystemSize is the size in bytes of the file system that holds path.
func fileSystemSize(path string) (int64, bool) {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return 0, false
	}
	return int64(st.Blocks) * st.Bsize, true
}
