package firstproc

import (
	"errors"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

func init() {
	if !Started() {
		return
	}
	if err := run(); !errors.Is(err, errHungUp) {
		fmt.Fprintln(os.Stderr, err) //nolint:forbidigo // the parent's pipe, shown when an agent dies
		os.Exit(1)                   //nolint:forbidigo // a process of its own
	}
	os.Exit(0) //nolint:forbidigo // likewise
}

// Started reports whether this process was started as a first process.
func Started() bool { return startedAs(Name) }

func startedAs(name string) bool {
	if len(os.Args) != 1 || os.Args[0] != name {
		return false
	}
	var st unix.Stat_t
	return unix.Fstat(FD, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK
}

// errHungUp is the end of the socket: the agent is gone, and this process with it.
var errHungUp = errors.New("sandbox: hung up")

// run serves the agent until it hangs up; there is always an error.
func run() error {
	unix.CloseOnExec(FD)
	signal.Notify(make(chan os.Signal, 1)) // none that a step sends kills it
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("prctl(PR_SET_DUMPABLE): %w", err)
	}
	ns, err := unix.Open("/proc/self/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("/proc/self/ns/pid: %w", err)
	}
	fds := []int{ns}
	if proc, err := newMount("proc", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC); err == nil {
		fds = append(fds, proc)
	}
	if err := emptyRoot(); err != nil {
		return err
	}
	if err := unix.Sendmsg(FD, []byte{Ready}, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("reporting: %w", err)
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	go func() {
		for range died {
			for {
				if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 && !errors.Is(err, unix.EINTR) {
					break
				}
			}
		}
	}()
	for {
		b, err := readByte()
		if err != nil {
			return err
		}
		if b != Kill {
			return fmt.Errorf("sandbox: init was told %q", b)
		}
		if err := killAll(); err != nil {
			return err
		}
		if _, err := unix.Write(FD, []byte{Done}); err != nil {
			return err
		}
	}
}

func readByte() (byte, error) {
	var b [1]byte
	for {
		n, err := unix.Read(FD, b[:])
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case n == 0:
			return 0, errHungUp
		default:
			return b[0], nil
		}
	}
}

// newMount makes a mount that is attached nowhere.
func newMount(fstype string, attrs int) (int, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen(%s): %w", fstype, err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("mounting %s: %w", fstype, err)
	}
	m, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, fmt.Errorf("fsmount(%s): %w", fstype, err)
	}
	return m, nil
}

// emptyRoot replaces the root of this mount namespace by an empty directory.
func emptyRoot() error {
	m, err := newMount("ramfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(m)
	if err := unix.MoveMount(m, "", unix.AT_FDCWD, HoldDir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	if err := unix.Fchdir(m); err != nil {
		return fmt.Errorf("entering an empty root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leaving the agent's root: %w", err)
	}
	return unix.Chdir("/")
}

// killAll kills and reaps every process of this pid namespace but this one. A process whose parent died is ours
// before the parent can be reaped, so there are none left when there is no child.
func killAll() error {
	if err := unix.Kill(-1, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("killing what a step left: %w", err)
	}
	for {
		_, err := unix.Wait4(-1, nil, 0, nil)
		switch {
		case errors.Is(err, unix.ECHILD):
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("reaping what a step left: %w", err)
		}
	}
}
