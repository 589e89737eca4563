package sandbox

// This file is the first process of the pid namespace that steps run in. It exists so that the agent does not: what a
// step sees of other processes in /proc is this one, which has no file of the host open, an empty root, an empty
// network and nothing in its memory. It reaps what steps leave, and kills all of it when it is told to.

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// initName is argv[0] of an init; its socket is agentFD too.
const initName = "manifestctl-sandbox-init"

// What an agent and its init tell each other, one byte each.
const (
	initReady = 'r' // with the pid namespace, and a procfs of it unless the kernel refuses one
	initKill  = 'k' // kill everything
	initDone  = 'd' // nothing is left
)

// runInit is the main of an init. It ends with the agent.
func runInit() error {
	unix.CloseOnExec(agentFD)
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
	if proc, err := newMount("proc", attrProc); err == nil {
		fds = append(fds, proc)
	}
	if err := emptyRoot(); err != nil {
		return err
	}
	if err := unix.Sendmsg(agentFD, []byte{initReady}, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL); err != nil {
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
		var b [1]byte
		if err := readFull(agentFD, b[:]); err != nil {
			return err
		}
		if b[0] != initKill {
			return fmt.Errorf("sandbox: init was told %q", b[0])
		}
		if err := killAll(); err != nil {
			return err
		}
		if _, err := unix.Write(agentFD, []byte{initDone}); err != nil {
			return err
		}
	}
}

// emptyRoot replaces the root of a mount namespace by an empty directory.
func emptyRoot() error {
	m, err := newMount("ramfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|attrRO)
	if err != nil {
		return err
	}
	defer unix.Close(m)
	at, err := openDir(holdDir)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	if err := attach(m, at); err != nil {
		return err
	}
	return pivotTo(m)
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

// holdDir is a directory that every procfs has and no agent needs: a mount point in an agent's own mount namespace.
const holdDir = "/proc/driver"

// initProc is an init as its agent sees it.
type initProc struct {
	pid   int
	sock  int
	pidns int
	proc  bool // its procfs is at holdDir

	mu sync.Mutex // one talks to it at a time

	nofile *unix.Rlimit // what it inherited; the Go runtime raises it for itself, and only lowers it again for its own children
}

// errInit is the end of an init, and with it of its agent.
var errInit = errors.New("the first process of the step's pid namespace died")

// startInit starts an init from this program's file.
func startInit() (*initProc, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("starting an init: %w", err)
	}
	defer unix.Close(pair[1])
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		unix.Close(pair[0])
		return nil, fmt.Errorf("starting an init: /dev/null: %w", err)
	}
	defer unix.Close(null)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{initName}, &syscall.ProcAttr{
		Dir: "/", Env: agentEnv, Files: []uintptr{uintptr(null), uintptr(null), 2, uintptr(pair[1])},
		Sys: &syscall.SysProcAttr{
			Setsid:     true,
			Ptrace:     true,
			Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		},
	})
	if err != nil {
		unix.Close(pair[0])
		return nil, fmt.Errorf("%w: starting the first process of a pid namespace: %w", ErrHost, err)
	}
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
	if err != nil || n != 1 || b[0] != initReady {
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
	at, err := openDir(holdDir)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	p.proc = true
	return attach(fds[1], at)
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
	if _, err := unix.SendmsgN(p.sock, []byte{initKill}, nil, nil, unix.MSG_NOSIGNAL); err != nil {
		return errors.Join(errInit, err)
	}
	var b [1]byte
	if err := readFull(p.sock, b[:]); err != nil {
		return errors.Join(errInit, err)
	}
	return nil
}
