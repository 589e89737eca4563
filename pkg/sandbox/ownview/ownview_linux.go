package ownview

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func init() {
	if !started() {
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err) //nolint:forbidigo // the parent drops it, and does without a view
		os.Exit(1)                   //nolint:forbidigo // a process of its own
	}
	os.Exit(0) //nolint:forbidigo // likewise
}

func started() bool {
	if len(os.Args) != 1 || os.Args[0] != Name {
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(FD, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK
}

func run() error {
	src, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer src.Close()
	view, err := Open(src)
	if err != nil {
		return err
	}
	defer view.Close()
	return unix.Sendmsg(FD, []byte{0}, unix.UnixRights(int(view.Fd())), nil, unix.MSG_NOSIGNAL)
}

// Open opens src, a program, through a view of its directory. A read-only bind mount would do for as long as nobody changes its
// flags; an overlay without an upper layer has nothing to write to. It needs a second layer, below: any directory without mounts
// in it (those that a user namespace inherits cannot be left behind), of which nothing is ever looked up.
func Open(src *os.File) (_ *os.File, err error) {
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", src.Fd()))
	if err != nil {
		return nil, err
	}
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the program's directory: %w", err)
	}
	defer unix.Close(dir)
	m := -1
	for _, below := range []string{"/sys/class", "/etc"} {
		// A descriptor's name has none of the characters that mean something in the option.
		if m, err = overlay(fmt.Sprintf("/proc/self/fd/%d:%s", dir, below)); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	defer unix.Close(m)
	fd, err := unix.Openat(m, filepath.Base(path), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the program through an overlay: %w", err)
	}
	view := os.NewFile(uintptr(fd), path)
	if err := same(src, view); err != nil {
		return nil, errors.Join(err, view.Close())
	}
	return view, nil
}

// overlay makes a read-only overlay that is attached nowhere.
func overlay(lowers string) (int, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen(overlay): %w", err)
	}
	defer unix.Close(fs)
	if err := errors.Join(unix.FsconfigSetFlag(fs, "ro"), unix.FsconfigSetString(fs, "lowerdir", lowers)); err != nil {
		return -1, fmt.Errorf("fsconfig(overlay): %w", err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("mounting an overlay: %w", err)
	}
	m, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return -1, fmt.Errorf("fsmount(overlay): %w", err)
	}
	return m, nil
}

// errReplaced: what has the program's name is another file by now.
var errReplaced = errors.New("the program's file was replaced")

// same compares a file with what an overlay shows of it: everything but the device's number.
func same(a, b *os.File) error {
	var x, y unix.Stat_t
	if err := errors.Join(unix.Fstat(int(a.Fd()), &x), unix.Fstat(int(b.Fd()), &y)); err != nil {
		return err
	}
	if x.Ino != y.Ino || x.Size != y.Size || x.Mtim != y.Mtim || x.Ctim != y.Ctim {
		return errReplaced
	}
	return nil
}
