package sandbox

// This file starts the first process of the pid namespace that steps run in, and talks to it: see package firstproc.

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/sandbox/firstproc"
)

// initProc is an init as its agent sees it.
type initProc struct {
	pid   int
	sock  int
	pidns int
	proc  bool // its procfs is at firstproc.HoldDir

	mu sync.Mutex // one talks to it at a time

	nofile *unix.Rlimit // what it inherited; the Go runtime raises it for itself, and only lowers it again for its own children
}

// errInit is the end of an init, and with it of its agent.
var errInit = errors.New("the first process of the step's pid namespace died")

// startInit starts an init from this program's file.
func startInit() (*initProc, error) { return startInitFrom("/proc/self/exe") }

func startInitFrom(file string) (_ *initProc, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("starting an init: %w", err)
	}
	defer func() {
		if err != nil {
			unix.Close(pair[0])
		}
	}()
	theirs := os.NewFile(uintptr(pair[1]), "init")
	defer theirs.Close()
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("starting an init: /dev/null: %w", err)
	}
	defer unix.Close(null)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, err := syscall.ForkExec(file, []string{firstproc.Name}, &syscall.ProcAttr{
		Dir: "/", Env: agentEnv, Files: []uintptr{uintptr(null), uintptr(null), 2, uintptr(pair[1])},
		Sys: &syscall.SysProcAttr{
			Setsid:     true,
			Ptrace:     true,
			Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("%w: starting the first process of a pid namespace: %w", ErrHost, err)
	}
	_ = theirs.Close() // else an init that dies before it is ready would be waited for
	p := &initProc{pid: pid, sock: pair[0]}
	if p.nofile, err = inherited(pid); err != nil {
		return nil, err
	}
	if err := p.ready(); err != nil {
		return nil, err
	}
	return p, nil
}

// inherited reads the limit of open files of a child that has stopped at its exec, and lets it go.
func inherited(pid int) (*unix.Rlimit, error) {
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil || !ws.Stopped() {
		return nil, errors.Join(errInit, err)
	}
	lim := &unix.Rlimit{}
	if unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, lim) != nil {
		lim = nil
	}
	return lim, unix.PtraceDetach(pid)
}

// ready takes what the init made before it left for its empty root.
func (p *initProc) ready() error {
	var b [1]byte
	oob := make([]byte, unix.CmsgSpace(2*4))
	n, oobn, _, _, err := unix.Recvmsg(p.sock, b[:], oob, unix.MSG_CMSG_CLOEXEC)
	for errors.Is(err, unix.EINTR) {
		n, oobn, _, _, err = unix.Recvmsg(p.sock, b[:], oob, unix.MSG_CMSG_CLOEXEC)
	}
	if err != nil || n != 1 || b[0] != firstproc.Ready {
		return errors.Join(errInit, err)
	}
	fds, err := rights(oob[:oobn])
	if err != nil || len(fds) == 0 {
		return errors.Join(errInit, err)
	}
	p.pidns = fds[0]
	if len(fds) == 1 {
		return nil
	}
	defer unix.Close(fds[1])
	at, err := openDir(firstproc.HoldDir)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	if err := attach(fds[1], at); err != nil {
		return err
	}
	p.proc = true
	return coverOwnProc()
}

// rights are the descriptors that came with a message.
func rights(oob []byte) (fds []int, err error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for i := range msgs {
		got, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return fds, err
		}
		fds = append(fds, got...)
	}
	return fds, nil
}

// killAll ends all that a step left, and returns when it is gone.
func (p *initProc) killAll() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, err := unix.SendmsgN(p.sock, []byte{firstproc.Kill}, nil, nil, unix.MSG_NOSIGNAL); err != nil {
		return errors.Join(errInit, err)
	}
	var b [1]byte
	if err := readFull(p.sock, b[:]); err != nil {
		return errors.Join(errInit, err)
	}
	return nil
}
