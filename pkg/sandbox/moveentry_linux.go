package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// moveEntry moves a name from one directory into another, whatever it is. Where rename cannot it is done piece by piece: a directory of an
// overlay's lower layer can be moved by nobody (EXDEV, without redirect_dir), but what is in it can, and then belongs to the
// upper one; between file systems files are copied. A directory that is there already is merged into, so a move
// that was interrupted can be begun again.
func moveEntry(from int, name string, to int) error { return moveAs(from, name, to, name) }

// moveIn moves what a path of the host names to a name in to.
func moveIn(from string, to int, as string) error {
	parent, err := readDir(filepath.Dir(from))
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	return moveAs(parent, filepath.Base(from), to, as)
}

// moveOut moves a name in from to a path of the host.
func moveOut(from int, name, to string) error {
	parent, err := readDir(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	return moveAs(from, name, parent, filepath.Base(to))
}

// betweenMoves is called before each change that is made to a root; tests end the process there.
var betweenMoves = func() {}

func moveAs(from int, name string, to int, as string) error {
	betweenMoves()
	err := unix.Renameat2(from, name, to, as, unix.RENAME_NOREPLACE)
	if err == nil {
		return nil
	}
	var st unix.Stat_t
	if statErr := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); statErr != nil {
		return statErr
	}
	dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	switch {
	case dir && (errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EEXIST)):
		return moveDir(from, name, to, as)
	case dir && errors.Is(err, unix.EACCES) && st.Mode&0o200 == 0: // its ".." cannot be written to, without CAP_DAC_OVERRIDE
		return movePrivate(from, name, to, as, &st)
	case errors.Is(err, unix.EXDEV):
		if err := copyEntry(from, name, to, as, &st); err != nil {
			return err
		}
		betweenMoves()
		return unix.Unlinkat(from, name, 0)
	}
	return err
}

// movePrivate moves a directory that its owner may not write to.
func movePrivate(from int, name string, to int, as string, st *unix.Stat_t) error {
	if err := unix.Fchmodat(from, name, st.Mode&0o7777|0o700, 0); err != nil {
		return err
	}
	err := moveAs(from, name, to, as)
	at, now := to, as
	if err != nil {
		at, now = from, name
	}
	return errors.Join(err, unix.Fchmodat(at, now, st.Mode&0o7777, 0))
}

func moveDir(from int, name string, to int, as string) error {
	sub, err := openBeneath(from, name)
	if err != nil {
		return err
	}
	defer unix.Close(sub)
	if err := twin(sub, to, as); err != nil {
		return err
	}
	other, err := openBeneath(to, as)
	if err != nil {
		return err
	}
	defer unix.Close(other)
	m, err := readMeta(sub)
	if err != nil {
		return err
	}
	if m.mode&0o200 == 0 { // for who has no CAP_DAC_OVERRIDE
		for _, fd := range []int{sub, other} {
			if err := unix.Fchmod(fd, m.mode&0o7777|0o700); err != nil {
				return err
			}
		}
	}
	names, err := namesIn(sub)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := moveEntry(sub, n, other); err != nil {
			return named2(n, err)
		}
	}
	if err := setMeta(other, m); err != nil {
		return err
	}
	betweenMoves()
	return unix.Unlinkat(from, name, unix.AT_REMOVEDIR)
}

// copyEntry copies what is no directory to another file system.
func copyEntry(from int, name string, to int, as string, st *unix.Stat_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return copyFile(from, name, to, as, st)
	case unix.S_IFLNK:
		text, err := readlinkAt(from, name)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(text, to, as); err != nil {
			return err
		}
	case unix.S_IFSOCK:
		return nil // of nobody who is still there
	default:
		if err := unix.Mknodat(to, as, st.Mode, int(st.Rdev)); err != nil {
			return err
		}
	}
	if err := unix.Fchownat(to, as, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return unix.UtimesNanoAt(to, as, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

func copyFile(from int, name string, to int, as string, st *unix.Stat_t) (err error) {
	in, err := unix.Openat(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	src := os.NewFile(uintptr(in), name)
	defer src.Close()
	out, err := unix.Openat(to, as, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(out), as)
	defer func() { err = errors.Join(err, dst.Close()) }()
	if _, err := dst.ReadFrom(src); err != nil {
		return err
	}
	if err := unix.Fchown(out, int(st.Uid), int(st.Gid)); err != nil && (st.Uid != 0 || st.Gid != 0) {
		return err
	}
	if err := unix.Fchmod(out, st.Mode&0o7777); err != nil {
		return err
	}
	xattrs, err := readXattrs(in)
	if err != nil {
		return err
	}
	for name, value := range xattrs { // after the owner, whose change drops capabilities
		if err := unix.Fsetxattr(out, name, []byte(value), 0); err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return setTimes(out, st)
}

func setTimes(fd int, st *unix.Stat_t) error {
	ns := func(ts unix.Timespec) unix.Timespec { return unix.NsecToTimespec(ts.Sec*int64(time.Second) + ts.Nsec) }
	return unix.UtimesNanoAt(fd, "", []unix.Timespec{ns(st.Atim), ns(st.Mtim)}, unix.AT_EMPTY_PATH)
}
