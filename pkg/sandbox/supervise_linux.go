package sandbox

// This file is the supervisor: with a single uid it lets a step have all the owners and users it wants. A seccomp filter
// reports the system calls that depend on owners or ids (syscalls_linux.go) to the agent, which answers them as the
// kernel would answer root: chown records an owner (owners_linux.go), stat shows it, setuid changes what the task
// believes to be (supervise_creds_linux.go), and what a task makes then belongs to it. Everything else, and everything
// that cannot be understood, goes on to the kernel, whose rules hold all the time. Programs of other machines need
// nothing of their own: qemu makes the host's system calls.
//
// Who is not trusted: the step. It controls the arguments, its memory while we read it, and every name below its root.
// What keeps it in:
//
//   - The supervisor does nothing that the kernel would not let the step do itself: both are root of the same user
//     namespace with the same single uid, so there are no owners to confuse. What the step cannot reach and the agent can
//     are other mount namespaces (the host's files) and other processes' memory.
//   - Names are resolved below the task's own root (/proc/TID/root, openat2 with RESOLVE_IN_ROOT or RESOLVE_BENEATH)
//     and never through magic links (RESOLVE_NO_MAGICLINKS), which lead out of mount namespaces.
//   - After that there are only descriptors: a name that changes under us changes nothing that was decided.
//   - Before memory is written or something is made, the notification is checked to be alive, so that a number that was
//     given to another process meanwhile is not taken for the task.
//   - "Continue" is never an answer that protects something: a task may change its arguments after we looked. It means
//     that the kernel decides, as if there were no supervisor; the worst is an owner in the step's own layer that the
//     step itself wanted wrong.
//   - Fake ids give no rights and take none: a step that became another user can still do what root of the namespace can.
//     Users inside of a step are for bookkeeping, as the step as a whole is the unit of isolation.

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// supervisor answers the filter of one step.
type supervisor struct {
	fd     int                 // the listener; -1: not started
	stop   int                 // eventfd
	proc   int                 // procfs of the agent's pid namespace, or the host's
	number func(uint32) string // a task's name there
	rootfs unix.Statfs_t       // the step's overlay
	home   int                 // root of the agent, where its /proc is; of serve
	work   chan func()         // for serve, which owns a thread of the agent's
	wake   int                 // eventfd for it
	done   chan struct{}
	mem    memory // nil: vmMemory
	jail   *jail  // of a step without namespaces; else nil

	real     bool                   // ids of tasks and files are what they seem, and only devices are not
	listener *os.File               // likewise, in a user namespace: fd
	makes    bool                   // likewise: the step made a device
	made     map[string]layer.Owner // likewise: those that stay, by name

	tasks  taskCreds
	owners owners

	mu      sync.Mutex // guards refused
	refused []string
}

// superviseFlags: a task that we have begun to serve is interrupted only by what kills it, or it would ask twice for what
// can be done once (mkdir).
const superviseFlags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV

// newSupervisor prepares one for a step on lowers whose first task has the ids first.
func (s *server) newSupervisor(lowers []string, first creds) (*supervisor, error) {
	sv := &supervisor{fd: -1, proc: s.proc, number: decimal, done: make(chan struct{})}
	if sv.proc < 0 {
		sv.proc, sv.number = s.hostProc, translated
	}
	return sv, sv.prepare(lowers, first)
}

func decimal(pid uint32) string { return strconv.FormatUint(uint64(pid), 10) }

// translated is the number of a task in the host's /proc, where another pid namespace's are shown: a pidfd tells.
func translated(pid uint32) string {
	fd, err := unix.PidfdOpen(int(pid), unix.PIDFD_THREAD)
	if errors.Is(err, unix.EINVAL) { // before linux 6.9
		fd, err = unix.PidfdOpen(int(pid), 0)
	}
	if err != nil {
		return "0"
	}
	defer unix.Close(fd)
	info, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(fd))
	if err != nil {
		return "0"
	}
	for line := range strings.Lines(string(info)) {
		if v, ok := strings.CutPrefix(line, "Pid:"); ok {
			return strings.TrimSpace(v)
		}
	}
	return "0"
}

func (s *supervisor) prepare(lowers []string, first creds) error {
	s.tasks.init(first)
	if err := s.owners.load(lowers); err != nil {
		return err
	}
	var err error
	if s.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	if s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		unix.Close(s.stop)
		return fmt.Errorf("eventfd: %w", err)
	}
	s.work = make(chan func(), 1)
	return nil
}

// start answers what comes from a listener until close. Then the supervisor is the listener's owner.
func (s *supervisor) start(listener int) {
	s.fd = listener
	// The answer wakes the task on this processor, which is about to sleep (linux 6.6).
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(listener), unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	go s.serve()
}

// close ends it and returns what could not be kept.
func (s *supervisor) close() []string {
	if s == nil {
		return nil
	}
	if s.fd >= 0 {
		one := [8]byte{1}
		_, _ = unix.Write(s.stop, one[:])
		<-s.done
		unix.Close(s.fd)
	}
	unix.Close(s.stop)
	unix.Close(s.wake)
	return s.refused
}

func (s *supervisor) serve() {
	defer close(s.done)
	// A thread of its own: its root and directory change (resolveExact), and files are made with no umask.
	runtime.LockOSThread() // never unlocked
	if s.jail != nil {
		// Its root does not change, the step has its own umask by now, and containers' profiles refuse the following.
	} else if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return // the step's calls fail with ENOSYS once the listener is closed
	}
	unix.Umask(0)
	var err error
	if s.home, err = openDir("/"); err != nil {
		return
	}
	defer unix.Close(s.home)
	if s.real {
		serveNotifs(s.fd, s.stop, s.judge, nil)
		return
	}
	serveNotifs(s.fd, s.stop, s.judge, &wakeup{s.wake, func() { (<-s.work)() }})
}

// call is one notification that is being answered.
type call struct {
	sysCall
	traced bool // by the tracer, not by a notification
	n      *notif
	args   *[6]uint64
	tid    string
}

func callOf(n *notif) (sysCall, bool) {
	for i := range hostABIs {
		if hostABIs[i].arch != n.arch {
			continue
		}
		for _, c := range hostABIs[i].calls {
			if c.nr == uint32(n.nr) {
				return c, true
			}
		}
	}
	return sysCall{}, false
}

func (s *supervisor) judge(n *notif) answer {
	sc, ok := callOf(n)
	if !ok {
		return proceed
	}
	c := &call{sysCall: sc, n: n, args: &n.args, tid: s.number(n.pid)}
	if s.real {
		return s.judgeDevice(c)
	}
	switch sc.op {
	case opChown:
		return s.chown(c)
	case opStat, opStatx:
		return s.stat(c)
	case opMknod:
		return s.mknod(c)
	case opOpen, opOpenat2:
		return s.open(c)
	case opMkdir:
		return s.mkdir(c)
	case opSymlink:
		return s.symlink(c)
	case opLink:
		return s.link(c)
	case opRename:
		return s.rename(c)
	case opExec:
		return s.exec(c)
	case opListxattr:
		return s.listxattr(c)
	case opNamedXattr:
		return s.namedXattr(c)
	case opPrctl:
		return s.prctl(c)
	case opCapset:
		return s.capset(c)
	}
	return s.ids(c)
}

// onServer has serve do something and waits for it.
func (s *supervisor) onServer(do func()) {
	done := make(chan struct{})
	s.work <- func() { do(); close(done) }
	one := [8]byte{1}
	_, _ = unix.Write(s.wake, one[:])
	select {
	case <-done:
	case <-s.done:
	}
}

// alive says whether the task still waits for its answer.
func (s *supervisor) alive(c *call) bool {
	if c.traced {
		return true // it is stopped
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.fd), unix.SECCOMP_IOCTL_NOTIF_ID_VALID, uintptr(unsafe.Pointer(&c.n.id))) //nolint:gosec // no wrapper
	return errno == 0
}

// maxRefused bounds what is remembered of a step; the first tells the story.
const maxRefused = 8

func (s *supervisor) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.refused) < maxRefused {
		s.refused = append(s.refused, what)
	}
}

// inRootfs reports whether the file is in the step's overlay. Neither its device nor its mount tell: those differ
// between layers of several file systems and between mount namespaces.
func (s *supervisor) inRootfs(fd int) bool {
	var fs unix.Statfs_t
	return unix.Fstatfs(fd, &fs) == nil && fs.Type == s.rootfs.Type && fs.Fsid == s.rootfs.Fsid
}

// chown records an owner.
func (s *supervisor) chown(c *call) answer {
	uid, gid := c.idArg(c.arg), c.idArg(c.arg+1)
	f, err := s.file(c)
	if err != nil {
		return proceed
	}
	defer f.close()
	was, _ := s.owners.of(s, f)
	if !s.tasks.of(s, c).mayChown(was.UID, was.GID, uid, gid) {
		return answer{errno: unix.EPERM}
	}
	if !s.alive(c) {
		return proceed
	}
	// The kernel's part: copying up, clearing set-uid bits and capabilities, the time of the change.
	real := func(id uint32) int {
		if id == noID {
			return -1
		}
		return 0
	}
	if err := unix.Fchownat(f.fd, "", real(uid), real(gid), unix.AT_EMPTY_PATH); err != nil {
		return failed(err)
	}
	now := was
	if uid != noID {
		now.UID = uid
	}
	if gid != noID {
		now.GID = gid
	}
	if err := s.owners.set(s, f, now); err != nil {
		s.note(fmt.Sprintf("chown %s to %d:%d (%v)", f.name(), int32(uid), int32(gid), err))
		return answer{errno: unix.EPERM}
	}
	return answer{}
}

// idArg is an id among the arguments.
func (c *call) idArg(i int) uint32 {
	if v := uint32(c.args[i]); !c.short {
		return v
	} else if v&0xffff != 0xffff {
		return v & 0xffff
	}
	return noID
}

// namedXattr keeps a step from writing our records itself.
func (s *supervisor) namedXattr(c *call) answer {
	name, err := s.readString(c, c.args[c.arg], 256)
	if err != nil || name != layer.OwnerXattr {
		return proceed
	}
	return answer{errno: unix.EPERM}
}
