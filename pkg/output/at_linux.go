package output

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// makeFifo makes a fifo in dir; name is a single name.
func makeFifo(dir *os.Root, name string) error {
	return inDirectory(dir, func(fd int) error { return unix.Mkfifoat(fd, name, 0o600) }, "mkfifo", name)
}

// setLinkTime sets the time of a symbolic link itself; name is a single name.
func setLinkTime(dir *os.Root, name string, at time.Time) error {
	ts, err := unix.TimeToTimespec(at)
	if err != nil {
		return &os.PathError{Op: "utimens", Path: name, Err: err}
	}
	return inDirectory(dir, func(fd int) error {
		return unix.UtimesNanoAt(fd, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	}, "utimens", name)
}

// inDirectory calls fn with dir's descriptor.
func inDirectory(dir *os.Root, fn func(fd int) error, op, name string) error {
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	err = fn(int(d.Fd()))
	if err != nil {
		err = &os.PathError{Op: op, Path: name, Err: err}
	}
	return errors.Join(err, d.Close())
}
