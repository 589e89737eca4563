package sandbox

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// openTerminal makes a terminal in the step's /dev/pts, gives its other side to the caller, and returns the side that the
// process gets.
func (st *step) openTerminal() (int, error) {
	ptmx, err := st.openMaster()
	if err != nil {
		return -1, fmt.Errorf("opening a terminal: /dev/ptmx: %w", err)
	}
	defer unix.Close(ptmx)
	if err := unix.IoctlSetPointerInt(ptmx, unix.TIOCSPTLCK, 0); err != nil {
		return -1, fmt.Errorf("unlocking a terminal: %w", err)
	}
	// Not by its name in the step's /dev/pts.
	tty, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(ptmx), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, fmt.Errorf("opening a terminal: %w", errno)
	}
	err = unix.Fchown(int(tty), st.Account.UID, -1)
	if st.srv.single && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM)) {
		err = nil // there is one id, which it has
	}
	if err == nil {
		err = unix.Sendmsg(st.ctl, []byte{controlTerminal}, unix.UnixRights(ptmx), nil, unix.MSG_NOSIGNAL)
	}
	var ready [1]byte
	if err == nil {
		err = readFull(st.ctl, ready[:])
	}
	if err == nil && ready[0] != terminalReady {
		err = unix.EPROTO
	}
	if err != nil {
		unix.Close(int(tty))
		return -1, fmt.Errorf("opening a terminal: %w", err)
	}
	return int(tty), nil
}
