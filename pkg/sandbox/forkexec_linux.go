package sandbox

// This file starts the first process of a step where it needs a filter or a tracer before it executes anything.
// [syscall.ForkExec] cannot: it is a vfork, which keeps a processor of this program busy until the child executes, and
// a child that waits for an answer of this program (from its filter's listener, or its tracer) would wait for ever once
// the garbage collector wants that processor. This is a fork: the child is a copy and this program goes on.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// forkAttr is what the child does before it executes.
type forkAttr struct {
	files   [3]uintptr
	slack   uintptr      // PR_SET_TIMERSLACK (supervisor); 0: as inherited
	nofile  *unix.Rlimit // nil: as inherited
	cred    *syscall.Credential
	tty     bool              // stdin becomes the controlling terminal
	profile []unix.SockFilter // what it may not call; none: everything
	listen  []unix.SockFilter // a filter whose listener the parent gets
	filter  []unix.SockFilter // another one
	flags   uintptr           // of the listener's filter
	confine *confinement      // nil: namespaces do that
	// executed, when set, gets the outcome of the execve instead of the caller, who is its tracer and has to let it happen.
	executed chan error
	// ready is called while the child waits, with the listener's descriptor (-1 when it could not be had, and why).
	ready func(pid, listener int, errno syscall.Errno) error
}

// forkExec starts a process, as [syscall.ForkExec] would. The caller has locked its thread.
func forkExec(file string, args, env []string, attr forkAttr) (pid int, err error) {
	path, err := syscall.BytePtrFromString(file)
	if err != nil {
		return 0, err
	}
	argv, err := syscall.SlicePtrFromStrings(args)
	if err != nil {
		return 0, err
	}
	envp, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return 0, err
	}
	var said, told [2]int
	if err := unix.Pipe2(said[:], unix.O_CLOEXEC); err != nil {
		return 0, err
	}
	handed := false
	defer func() {
		if !handed {
			unix.Close(said[0])
		}
	}()
	if err := unix.Pipe2(told[:], unix.O_CLOEXEC); err != nil {
		unix.Close(said[1])
		return 0, err
	}
	defer unix.Close(told[1])
	c := &forkChild{
		path: path, argv: &argv[0], envp: &envp[0], files: attr.files, slack: attr.slack, nofile: attr.nofile,
		said: uintptr(said[1]), told: uintptr(told[0]), flags: attr.flags,
	}
	if attr.cred != nil {
		c.become, c.uid, c.gid, c.groups = true, uintptr(attr.cred.Uid), uintptr(attr.cred.Gid), uintptr(len(attr.cred.Groups))
		if len(attr.cred.Groups) > 0 {
			c.list = &attr.cred.Groups[0]
		}
	}
	if attr.tty {
		c.tty = 1
	}
	if len(attr.profile) > 0 {
		c.profile = &unix.SockFprog{Len: uint16(len(attr.profile)), Filter: &attr.profile[0]}
	}
	sock := -1 // our end of where a listener comes from
	if attr.confine != nil {
		c.confine = true
		c.landlock, c.capHeader, c.caps = uintptr(attr.confine.landlock), attr.confine.header, attr.confine.caps
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			unix.Close(said[1])
			unix.Close(told[0])
			return 0, err
		}
		sock, c.sock = pair[0], uintptr(pair[1])
		defer unix.Close(pair[0])
		defer unix.Close(pair[1])
		c.carry()
	}
	if len(attr.listen) > 0 {
		c.listen = &unix.SockFprog{Len: uint16(len(attr.listen)), Filter: &attr.listen[0]}
	}
	if len(attr.filter) > 0 {
		c.filter = &unix.SockFprog{Len: uint16(len(attr.filter)), Filter: &attr.filter[0]}
	}
	syscall.ForkLock.Lock()
	pid, errno := c.fork()
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(attr)
	unix.Close(said[1])
	unix.Close(told[0])
	if errno != 0 {
		return 0, errno
	}
	if err := attr.handshake(pid, said[0], told[1], sock); err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		for {
			if _, err := unix.Wait4(pid, nil, 0, nil); !errors.Is(err, unix.EINTR) {
				break
			}
		}
		return 0, err
	}
	handed = attr.executed != nil
	return pid, nil
}

// handshake hears how far the child came: its listener, then nothing (it executed) or an error.
func (a *forkAttr) handshake(pid, said, told, sock int) error {
	listener, errno, err := hear(said)
	if err != nil {
		return err
	}
	if a.ready != nil {
		fd := -1
		if errno == 0 && listener >= 0 {
			if sock >= 0 {
				fd, err = carried(sock)
			} else {
				fd, err = descriptorOf(pid, listener)
			}
			if err != nil {
				return err
			}
		}
		if err := a.ready(pid, fd, errno); err != nil {
			return err
		}
	}
	if _, err := unix.Write(told, []byte{1}); err != nil {
		return fmt.Errorf("starting a step: %w", err)
	}
	outcome := func() error {
		if _, _, err := hear(said); !errors.Is(err, errHungUp) {
			return err
		}
		return nil // it is another program now
	}
	if a.executed == nil {
		return outcome()
	}
	go func() {
		a.executed <- outcome()
		unix.Close(said)
	}()
	return nil
}

// forkFailed marks the number of an error that ended the child.
const forkFailed = 1 << 32

// hear reads one message of the child: a descriptor's number, or why there is none. An error ends the child.
func hear(fd int) (value int, errno syscall.Errno, err error) {
	var b [8]byte
	if err := readFull(fd, b[:]); err != nil {
		return -1, 0, err
	}
	v := int64(binary.NativeEndian.Uint64(b[:]))
	if v <= -forkFailed {
		return -1, 0, syscall.Errno(-v - 1 - forkFailed)
	}
	if v < 0 {
		return -1, syscall.Errno(-v - 1), nil
	}
	return int(v) - 1, 0, nil
}

// descriptorOf takes a descriptor of another process.
func descriptorOf(pid, fd int) (int, error) {
	p, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(p)
	got, err := unix.PidfdGetfd(p, fd, 0)
	if err != nil {
		return -1, fmt.Errorf("pidfd_getfd: %w", err)
	}
	return got, nil
}

// forkChild is all that the child touches: it must not allocate, grow its stack or call what may do so.
type forkChild struct {
	path           *byte
	argv, envp     **byte
	files          [3]uintptr
	slack          uintptr
	nofile         *unix.Rlimit
	tty            uintptr
	profile        *unix.SockFprog
	listen, filter *unix.SockFprog
	become         bool
	uid, gid       uintptr
	groups         uintptr
	list           *uint32
	flags          uintptr
	confine        bool // the following count
	landlock       uintptr
	capHeader      *unix.CapUserHeader
	caps           *[2]unix.CapUserData
	sock           uintptr
	rights         rightsMessage
	said, told     uintptr
	msg            int64
	ack            [1]byte
}

// fork returns in the parent only.
//
//go:norace
//go:noinline
func (c *forkChild) fork() (int, syscall.Errno) {
	var fd, pid uintptr
	var errno syscall.Errno
	beforeFork()
	pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		afterFork()
		return int(pid), errno
	}
	afterForkInChild()
	syscall.RawSyscall(syscall.SYS_SETSID, 0, 0, 0)
	for i := range c.files {
		if _, _, errno = syscall.RawSyscall(syscall.SYS_DUP3, c.files[i], uintptr(i), 0); errno != 0 {
			goto fail
		}
	}
	if c.tty != 0 {
		if _, _, errno = syscall.RawSyscall(syscall.SYS_IOCTL, 0, unix.TIOCSCTTY, 0); errno != 0 {
			goto fail
		}
	}
	if c.confine {
		// Nobody may trace a copy of the agent, which its tracer has to.
		if _, _, errno = syscall.RawSyscall6(syscall.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1, 0, 0, 0, 0); errno != 0 {
			goto fail
		}
		if _, _, errno = syscall.RawSyscall6(syscall.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
			goto fail
		}
		if c.landlock != 0 {
			if _, _, errno = syscall.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, c.landlock, 0, 0); errno != 0 {
				goto fail
			}
		}
		if _, _, errno = syscall.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(c.capHeader)), uintptr(unsafe.Pointer(c.caps)), 0); errno != 0 {
			goto fail
		}
	}
	if c.profile != nil {
		if _, _, errno = syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(c.profile))); errno != 0 {
			goto fail
		}
	}
	if c.slack != 0 {
		if _, _, errno = syscall.RawSyscall6(syscall.SYS_PRCTL, unix.PR_SET_TIMERSLACK, c.slack, 0, 0, 0, 0); errno != 0 {
			goto fail
		}
	}
	if c.nofile != nil {
		if _, _, errno = syscall.RawSyscall6(syscall.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(c.nofile)), 0, 0, 0); errno != 0 {
			goto fail
		}
	}
	if c.filter != nil {
		if _, _, errno = syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(c.filter))); errno != 0 {
			goto fail
		}
	}
	c.msg = 0 // no listener
	if c.listen != nil {
		fd, _, errno = syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, c.flags, uintptr(unsafe.Pointer(c.listen)))
		c.msg = int64(fd) + 1
		if errno != 0 {
			c.msg = -int64(errno) - 1
		} else if c.confine {
			c.rights.fd = int32(fd)
			if _, _, errno = syscall.RawSyscall(syscall.SYS_SENDMSG, c.sock, uintptr(unsafe.Pointer(&c.rights.msg)), unix.MSG_NOSIGNAL); errno != 0 {
				goto fail
			}
			syscall.RawSyscall(syscall.SYS_CLOSE, fd, 0, 0)
		}
	}
	syscall.RawSyscall(syscall.SYS_WRITE, c.said, uintptr(unsafe.Pointer(&c.msg)), 8)
	fd, _, errno = syscall.RawSyscall(syscall.SYS_READ, c.told, uintptr(unsafe.Pointer(&c.ack)), 1)
	if errno != 0 || fd != 1 {
		goto exit
	}
	if c.become {
		if _, _, errno = syscall.RawSyscall(syscall.SYS_SETGROUPS, c.groups, uintptr(unsafe.Pointer(c.list)), 0); errno != 0 {
			goto fail
		}
		if _, _, errno = syscall.RawSyscall(syscall.SYS_SETRESGID, c.gid, c.gid, c.gid); errno != 0 {
			goto fail
		}
		if _, _, errno = syscall.RawSyscall(syscall.SYS_SETRESUID, c.uid, c.uid, c.uid); errno != 0 {
			goto fail
		}
	}
	_, _, errno = syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(c.path)), uintptr(unsafe.Pointer(c.argv)), uintptr(unsafe.Pointer(c.envp)))
fail:
	c.msg = -int64(errno) - 1 - forkFailed
	syscall.RawSyscall(syscall.SYS_WRITE, c.said, uintptr(unsafe.Pointer(&c.msg)), 8)
exit:
	for {
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 253, 0, 0)
	}
}
