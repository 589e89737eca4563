package sandbox

// This file is emulation without binfmt_misc: a filter stops a step's tasks at execve, and where the program is one of
// another machine, the call is changed into one of its emulator. Scripts are resolved here as the kernel would, because
// it would start their interpreter itself. Programs of this machine are executed as they are.
//
// Who is not trusted: the step. Its memory may change while it is read: what is executed is then something else that it
// could have executed anyway. Names are resolved as the supervisor does it (supervise_linux.go). What is written goes to
// memory that the task was made to map for it, so that nothing of it or of a parent that shares its memory is overwritten.

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// emulator is one that a step may need, with what tells its programs.
type emulator struct {
	Arch        string
	Path        string // on the host
	Magic, Mask []byte
	Dir         string // where a step finds it; "" is /dev
}

// inRootfs is where a step finds it.
func (e emulator) inRootfs() string { return cmp.Or(e.Dir, "/dev") + "/" + e.name() }

func (e emulator) name() string { return ".manifestctl-" + e.Arch }

// tracer changes the execve calls of one step. All of it runs on the thread that seized the first task.
type tracer struct {
	files     *supervisor // how names and memory are read; answers no filter
	emulators []emulator
	super     *supervisor // nil: ids are real
	pending   map[int]*rewrite
	unlocked  map[int]bool // tasks whose memory was made readable for the execve that they are at
}

// traceProgram stops execve and execveat of this machine's table for the tracer.
func traceProgram() []unix.SockFilter {
	trace := unix.SockFilter{Code: bpfRet, K: unix.SECCOMP_RET_TRACE}
	allow := unix.SockFilter{Code: bpfRet, K: unix.SECCOMP_RET_ALLOW}
	return []unix.SockFilter{
		{Code: bpfLoad, K: dataArch},
		{Code: bpfJeq, K: hostABIs[0].arch, Jt: 1},
		allow,
		{Code: bpfLoad, K: dataNr},
		{Code: bpfJeq, K: unix.SYS_EXECVE, Jf: 1},
		trace,
		{Code: bpfJeq, K: unix.SYS_EXECVEAT, Jf: 1},
		trace,
		allow,
	}
}

const traceOptions = unix.PTRACE_O_TRACESECCOMP | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACECLONE |
	unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_EXITKILL

func (t *tracer) seize(pid int) error {
	if err := ptrace(unix.PTRACE_SEIZE, pid, 0, traceOptions); err != nil {
		return fmt.Errorf("%w: ptrace: %w", ErrHost, err)
	}
	return nil
}

func ptrace(op int, pid int, addr, data uintptr) error {
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, uintptr(op), uintptr(pid), addr, data, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// reap runs the step until its first process ends, then ends what is left of it.
func (t *tracer) reap(first int, killAll func() error) (unix.WaitStatus, error) {
	var status unix.WaitStatus
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return status, fmt.Errorf("waiting for the step: %w", err)
		}
		if ws.Stopped() {
			t.stopped(pid, ws)
			continue
		}
		t.forget(pid)
		if pid == first {
			status = ws
			break
		}
	}
	// What is killed ends for good only when its tracer has seen it.
	killed := make(chan error, 1)
	go func() { killed <- killAll() }()
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WALL|unix.WNOTHREAD|unix.WNOHANG, nil)
		if err == nil && pid > 0 {
			if ws.Stopped() {
				t.stopped(pid, ws)
			} else {
				t.forget(pid)
			}
			continue
		}
		select {
		case err := <-killed:
			return status, err
		case <-time.After(time.Millisecond):
		}
	}
}

// stopped lets a task go on, with its call changed where that is needed.
func (t *tracer) stopped(pid int, ws unix.WaitStatus) {
	event, sig := int(ws)>>16, int(ws.StopSignal())
	switch {
	case event == unix.PTRACE_EVENT_SECCOMP:
		if t.exec(pid) { // goes on to the end of another call
			_ = ptrace(unix.PTRACE_SYSCALL, pid, 0, 0)
			return
		}
		sig = 0
	case sig == int(unix.SIGTRAP)|0x80: // entry or end of a call that was put in
		if !t.mapped(pid) {
			_ = ptrace(unix.PTRACE_SYSCALL, pid, 0, 0)
			return
		}
		sig = 0
	case event == unix.PTRACE_EVENT_STOP:
		switch unix.Signal(sig) {
		case unix.SIGSTOP, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU:
			_ = ptrace(unix.PTRACE_LISTEN, pid, 0, 0)
			return
		}
		sig = 0
	case event != 0:
		sig = 0
	}
	_ = ptrace(unix.PTRACE_CONT, pid, 0, uintptr(sig)) // ESRCH: killed meanwhile
}

// forget is about a task that ended, in the middle of an execve perhaps: its number may be another's.
func (t *tracer) forget(pid int) {
	delete(t.pending, pid)
	delete(t.unlocked, pid)
}

// exec looks at an execve. It says whether the task now makes another call first.
func (t *tracer) exec(pid int) bool {
	var r regs
	if r.get(pid) != nil {
		return false
	}
	if w := t.pending[pid]; w != nil {
		delete(t.pending, pid)
		// The second time, with everything in place: unless a signal came between, whose handler had the call made anew
		// (qemu's does).
		if w.given || w.at == r.args()[0] || w.at == r.args()[1] {
			return false
		}
	}
	n := &notif{pid: uint32(pid), nr: int32(r.nr()), arch: hostABIs[0].arch, args: r.args()}
	sc, ok := callOf(n)
	if !ok || sc.op != opExec {
		return false
	}
	c := &call{sysCall: sc, n: n, args: &n.args, tid: t.files.number(n.pid), traced: true}
	if t.super != nil {
		t.super.onServer(func() { t.super.exec(c) })
	}
	var w *rewrite
	if t.locked(c) {
		w = &rewrite{unlock: true, regs: r}
		r.callUnlock()
	} else {
		var err error
		if w, err = t.plan(c); err != nil || w == nil {
			return false // the kernel says what is wrong with it
		}
		w.regs = r
		r.callMmap(w.size())
	}
	if r.set(pid) != nil {
		return false
	}
	t.pending[pid] = w
	return true
}

// locked reports whether the memory of a task cannot be read, because it changed its ids and has executed nothing since: that
// hides it from a tracer without CAP_SYS_PTRACE. Its next program is not hidden, so there is nothing that the task gives away.
func (t *tracer) locked(c *call) bool {
	if t.files.jail == nil {
		return false
	}
	pid := int(c.n.pid)
	if t.unlocked[pid] {
		delete(t.unlocked, pid)
		return false
	}
	var b [1]byte
	return errors.Is(t.files.readMemory(c, c.args[c.path], b[:]), unix.EIO)
}

// mapped handles the stops of the call that was put in; it says whether the task can go on by itself.
func (t *tracer) mapped(pid int) bool {
	w := t.pending[pid]
	var r regs
	if w == nil || r.get(pid) != nil {
		return true
	}
	if r.atEntry() {
		return false
	}
	addr, next := r.result(), w.regs
	next.again()
	if w.unlock {
		delete(t.pending, pid)
		t.unlocked[pid] = true
		_ = next.set(pid)
		return true
	}
	if addr > ^uint64(4095) { // the call failed: so does the execve, as it was
		w.given = true
		_ = next.set(pid)
		return true
	}
	path, argv, err := w.write(t.files.memory(), pid, addr)
	if err == nil {
		next.setExec(path, argv)
		w.at = path
	} else {
		w.given = true
	}
	_ = next.set(pid)
	return true
}

// maxArgs bounds the pointers that are copied.
const maxArgs = 1 << 17

// newTracer makes one for a step.
func (s *server) newTracer(super *supervisor) (*tracer, error) {
	files := &supervisor{fd: -1, proc: s.proc, number: decimal}
	if files.proc < 0 {
		files.proc, files.number = s.hostProc, translated
	}
	var err error
	if files.home, err = openDir("/"); err != nil {
		return nil, err
	}
	return &tracer{files: files, emulators: s.emulators, super: super, pending: map[int]*rewrite{}}, nil
}

func (t *tracer) close() { unix.Close(t.files.home) }

// tryTracer does once what a step will need.
func tryTracer() error {
	if err := errNoTracer(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- traceChild(nil, traceProgram()) }()
	return <-done
}

// errNoTracer is an error where registers are not known.
func errNoTracer() error {
	if canTrace {
		return nil
	}
	return fmt.Errorf("%w: ptrace emulation is not there for this machine", ErrHost)
}

// traceChild seizes a child and lets it execute something that is not there.
func traceChild(confine *confinement, filter []unix.SockFilter) error {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%w: /dev/null: %w", ErrHost, err)
	}
	defer unix.Close(null)
	fd := uintptr(null)
	runtime.LockOSThread() // never unlocked: it is the tracer of the child
	_, err = forkExec("/nonexistent/manifestctl", []string{"probe"}, nil, forkAttr{
		files: [3]uintptr{fd, fd, fd}, filter: filter, confine: confine,
		ready: func(pid, _ int, _ syscall.Errno) error {
			t := &tracer{}
			if err := t.seize(pid); err != nil {
				return err
			}
			return errProbed
		},
	})
	if errors.Is(err, errProbed) {
		return nil
	}
	return err
}

var errProbed = errors.New("the probe went well")

// tryJailTracer does once what seizing a confined step will need.
func tryJailTracer() error {
	done := make(chan error, 1)
	go func() {
		done <- traceChild(&confinement{header: &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, caps: &[2]unix.CapUserData{}}, nil)
	}()
	return <-done
}
