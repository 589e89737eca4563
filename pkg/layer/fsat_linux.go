package layer

import (
	"errors"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Threat note. What is in a tree that Apply fills or Diff reads, and in an archive, is chosen by
// somebody who wants to reach files outside of it, perhaps while we work. So every
// system call here names one component relative to a directory descriptor and never follows a symlink;
// descriptors come from such opens or from openat2 with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS. Whatever is not a
// regular file or a directory is only ever opened with O_PATH.

const (
	pathFlags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	dirFlags  = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
)

// noOpenat2 is set when the kernel (before 5.6) or a seccomp filter has no openat2.
var noOpenat2 atomic.Bool

func openat(dir int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// openBeneath opens the clean name below root without following any symlink. ELOOP or ENOTDIR means that there is one.
func openBeneath(root int, name string, flags int) (int, error) {
	if !noOpenat2.Load() {
		how := unix.OpenHow{
			Flags:   uint64(flags | unix.O_NOFOLLOW | unix.O_CLOEXEC),
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
		}
		for range 32 {
			fd, err := unix.Openat2(root, name, &how)
			switch err {
			case unix.EINTR, unix.EAGAIN:
				continue
			case unix.ENOSYS, unix.EPERM:
				noOpenat2.Store(true)
			default:
				return fd, err
			}
			break
		}
	}
	return openStepwise(root, name, flags)
}

func openStepwise(root int, name string, flags int) (int, error) {
	dir := root
	for {
		c, rest, more := strings.Cut(name, "/")
		if c == ".." {
			return -1, unix.EXDEV
		}
		f := flags | unix.O_NOFOLLOW | unix.O_CLOEXEC
		if more {
			f = pathFlags | unix.O_DIRECTORY
		}
		fd, err := openat(dir, c, f, 0)
		if dir != root {
			unix.Close(dir)
		}
		if err != nil || !more {
			return fd, err
		}
		dir, name = fd, rest
	}
}

func fstatat(dir int, name string) (st unix.Stat_t, err error) {
	for {
		err = unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err != unix.EINTR {
			return st, err
		}
	}
}

func readlinkat(dir int, name string) (string, error) {
	buf := make([]byte, 256)
	for {
		n, err := unix.Readlinkat(dir, name, buf)
		if err != nil {
			return "", err
		}
		if n < len(buf) {
			return string(buf[:n]), nil
		}
		buf = make([]byte, 2*len(buf))
	}
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func isDirMode(mode uint32) bool { return mode&unix.S_IFMT == unix.S_IFDIR }

// procFD is a name of an open descriptor for calls that take no O_PATH descriptor.
func procFD(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// chmodFD sets the mode of what an O_PATH descriptor means; it must not be a symlink.
func chmodFD(fd int, mode uint32) error {
	err := unix.Fchmodat(fd, "", mode, unix.AT_EMPTY_PATH)
	if err == nil || err != unix.EOPNOTSUPP && err != unix.ENOSYS && err != unix.EINVAL && err != unix.EPERM && err != unix.ENOENT {
		return err
	}
	return unix.Chmod(procFD(fd), mode) // fchmodat2 is Linux 6.6
}

// futimens sets both times of an open file.
func futimens(fd int, ts unix.Timespec) error {
	both := [2]unix.Timespec{ts, ts}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&both)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// timespec is t for the kernel, which clamps it to what the file system can keep.
func timespec(t time.Time) unix.Timespec {
	ts, err := unix.TimeToTimespec(t)
	if err != nil { // 32-bit: after 2038
		return unix.Timespec{Sec: math.MaxInt32}
	}
	return ts
}

func lutimes(dir int, name string, ts unix.Timespec) error {
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrShortWrite
		}
		b = b[n:]
	}
	return nil
}

// readNames lists a directory, sorted. fd stays open and is read from its start.
func readNames(fd int) ([]string, error) {
	dup, err := openat(fd, ".", dirFlags, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dup), ".")
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, underlying(err)
	}
	slices.Sort(names)
	return names, nil
}

// underlying drops the name that package os put around an errno: it is not the image's.
func underlying(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// listXattrs returns the names of an open file's attributes; none where the file system has none.
func listXattrs(fd int, buf []byte) ([]string, error) {
	n, err := unix.Flistxattr(fd, buf)
	if err == unix.ERANGE {
		if n, err = unix.Flistxattr(fd, nil); err == nil {
			buf = make([]byte, n)
			n, err = unix.Flistxattr(fd, buf)
		}
	}
	if err == unix.EOPNOTSUPP || n == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := strings.Split(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00")
	slices.Sort(names)
	return names, nil
}

func getXattr(fd int, name string) (string, error) {
	buf := make([]byte, 256)
	for {
		n, err := unix.Fgetxattr(fd, name, buf)
		if err == unix.ERANGE {
			buf = make([]byte, min(2*len(buf), 2*maxXattrValue))
			continue
		}
		if err != nil {
			return "", err
		}
		return string(buf[:n]), nil
	}
}

// RemoveAll deletes the tree at dir: directories of any mode and any depth, whatever
// their names, without following a symlink. Nothing there is no error.
func RemoveAll(dir string) error {
	dir = strings.TrimRight(dir, "/")
	parent, base := ".", dir
	if i := strings.LastIndexByte(dir, '/'); i >= 0 {
		parent, base = dir[:i+1], dir[i+1:]
	}
	if base == "" || base == "." || base == ".." {
		return &os.PathError{Op: "remove", Path: dir, Err: unix.EINVAL}
	}
	fd, err := openat(unix.AT_FDCWD, parent, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: parent, Err: err}
	}
	defer unix.Close(fd)
	if err := removeTree(fd, base); err != nil {
		return &os.PathError{Op: "remove", Path: dir, Err: err}
	}
	return nil
}
