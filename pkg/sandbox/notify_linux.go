package sandbox

import (
	"errors"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file is the listener's side of seccomp's user notifications (seccomp_unotify(2)): calls are received, judged and answered one
// after the other, by one thread.

// notif and notifResp are struct seccomp_notif and seccomp_notif_resp, notifAddfd seccomp_notif_addfd (linux/seccomp.h).
type notif struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

type notifResp struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

type notifAddfd struct {
	id         uint64
	flags      uint32
	srcfd      uint32
	newfd      uint32
	newfdFlags uint32
}

// answer is what a task gets.
type answer struct {
	val   int64
	errno syscall.Errno
	cont  bool // the kernel does it
	sent  bool // it was answered already
}

var proceed = answer{cont: true}

func failed(err error) answer {
	return answer{errno: errnoOf(err)}
}

// wakeup is what a listener does between two calls, whenever its eventfd is written.
type wakeup struct {
	fd int
	do func()
}

// serveNotifs answers what comes from a listener until stop, an eventfd, is written or nobody is left whose calls come to it.
func serveNotifs(fd, stop int, judge func(*notif) answer, wake *wakeup) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(stop), Events: unix.POLLIN}, {Fd: -1, Events: unix.POLLIN}}
	if wake != nil {
		fds[2].Fd = int32(wake.fd)
	}
	for {
		for i := range fds {
			fds[i].Revents = 0
		}
		if _, err := unix.Poll(fds, -1); err != nil {
			if errors.Is(err, unix.EINTR) {
				continue
			}
			return
		}
		if fds[1].Revents != 0 || fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0 {
			return
		}
		if fds[2].Revents != 0 {
			var b [8]byte
			_, _ = unix.Read(wake.fd, b[:])
			wake.do()
			continue
		}
		if fds[0].Revents != 0 {
			serveNotif(fd, judge)
		}
	}
}

func serveNotif(fd int, judge func(*notif) answer) {
	var n notif
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&n))); errno != 0 { //nolint:gosec // no wrapper
		return // the caller was killed meanwhile
	}
	a := judge(&n)
	if a.sent {
		return
	}
	resp := notifResp{id: n.id, val: a.val, errno: -int32(a.errno)}
	if a.cont {
		resp = notifResp{id: n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	}
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&resp))) //nolint:gosec // no wrapper
}
