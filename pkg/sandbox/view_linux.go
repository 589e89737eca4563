package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/sandbox/ownview"
)

// sentView has src, this program, opened through a view by a process in a user namespace of its own: for who may not mount
// here. The view belongs to that namespace, which no step is in.
func sentView(src *os.File) (*os.File, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("making a view's socket: %w", err)
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "view")
	defer theirs.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	runtime.LockOSThread() // which the process ends with
	defer runtime.UnlockOSThread()
	one := func(id int) []syscall.SysProcIDMap { return []syscall.SysProcIDMap{{HostID: id, Size: 1}} }
	proc, err := os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", src.Fd()), []string{ownview.Name}, &os.ProcAttr{
		Dir: "/", Env: agentEnv, Files: []*os.File{null, null, null, theirs}, Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
			UidMappings: one(os.Geteuid()), GidMappings: one(os.Getegid()),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("starting a process for a view: %w", err)
	}
	_ = theirs.Close() // so that its end is seen
	fds, err := receiveView(pair[0])
	if _, waitErr := proc.Wait(); waitErr != nil {
		err = errors.Join(err, waitErr)
	}
	if err == nil && len(fds) != 1 {
		err = errNoView
	}
	if err != nil {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), src.Name()), nil
}

var errNoView = errors.New("no view of this program could be had")

func receiveView(socket int) ([]int, error) {
	var b [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := unix.Recvmsg(socket, b[:], oob, unix.MSG_CMSG_CLOEXEC)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, err
		case n != 1:
			return nil, errNoView
		default:
			return rights(oob[:oobn])
		}
	}
}
