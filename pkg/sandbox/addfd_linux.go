package sandbox

import (
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inject gives a task a copy of fd, as the result of the call that it waits in (SECCOMP_IOCTL_NOTIF_ADDFD with SEND). flags
// may have O_CLOEXEC. The calling thread is locked.
//
// No signal may come meanwhile. The kernel marks the call as answered, then waits for the task to take the descriptor; if that
// is interrupted it takes the descriptor back but not the mark (seen on Linux 6.18; the flag exists since 5.14), so the task
// goes on with what the answer was before: the result 0, without an error. It then reads and writes its standard input for the
// file that it opened. Signals do come: the scheduler of Go sends them, and every stop of a traced task is one.
func inject(listener int, id uint64, fd, flags int) syscall.Errno {
	var all, was unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, &was); err != nil {
		return errnoOf(err)
	}
	defer func() { _ = unix.PthreadSigmask(unix.SIG_SETMASK, &was, nil) }()
	add := notifAddfd{id: id, flags: unix.SECCOMP_ADDFD_FLAG_SEND, srcfd: uint32(fd), newfdFlags: uint32(flags & unix.O_CLOEXEC)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_ADDFD, uintptr(unsafe.Pointer(&add))) //nolint:gosec // no wrapper
	return errno
}

func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return unix.EIO
}
