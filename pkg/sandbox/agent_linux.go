package sandbox

// This file is the agent: pid 1 of its pid namespace, root of its user namespace. Who is trusted: the parent on the
// socket. Who is not: the processes of a step, which share its user namespace. They run in a pid namespace below its
// own (init_linux.go), where it cannot be seen; where /proc is the host's it can, so it is not dumpable, handles every
// signal, and gives steps no capability that reaches into it (caps_linux.go).

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

// role is decided before main: the main goroutine of an agent must keep the main thread, because a thread that
// a step used up has to end, and the main thread never does.
var role = whatAmI()

func init() {
	if role == agentName {
		runtime.LockOSThread()
	}
}

// whatAmI returns argv[0] when this process was started by [plan.spawn], else "".
func whatAmI() string {
	if len(os.Args) != 1 || os.Args[0] != agentName {
		return ""
	}
	var st unix.Stat_t
	if unix.Fstat(agentFD, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return ""
	}
	return os.Args[0]
}

// Main runs the agent and never returns when this process was started as one; else it does nothing. It
// must be the first thing main (and TestMain) does.
func Main() {
	var err error
	switch role {
	case agentName:
		ctx := context.Background() //nolint:forbidigo // the agent's main: it ends by being killed
		s := newServer()
		err = s.serve(ctx)
		s.leaveRoot()
	default:
		return
	}
	if !errors.Is(err, errHungUp) {
		fmt.Fprintln(os.Stderr, err) //nolint:forbidigo // the parent's pipe, shown when an agent dies
		os.Exit(1)                   //nolint:forbidigo // a process of its own
	}
	os.Exit(0) //nolint:forbidigo // likewise
}

// server is the state of an agent.
type server struct {
	codec  *codec
	mode   Mode
	single bool                      // files belong to one uid, other owners are recorded
	mapped int64                     // ids from 0 on that exist here
	home   int                       // our mount namespace
	binfmt int                       // our binfmt_misc instance: its handlers live as long as this descriptor; -1 without
	net    int                       // a network namespace with nothing but loopback, which no step has left anything in; -1: to be made
	proc   int                       // a procfs of our pid namespace, nowhere attached; -1 where the kernel refuses it
	stage  string                    // a directory that steps, one at a time, mount over; "": none yet
	first  func() (*initProc, error) // of the pid namespace that steps run in

	emulators  []emulator
	tracing    bool              // emulators are put in by the tracer
	hostProc   int               // where proc is refused: the /proc that we were started with
	profile    []unix.SockFilter // of steps; nil: none can be
	outside    int               // without namespaces: the root that steps are not below of
	terminals  int               // likewise: the container's /dev/pts; -1: it has none
	nofile     *unix.Rlimit      // likewise: what children of this program inherit
	traceErr   error             // likewise: why they are not
	seizes     bool              // likewise: steps are traced, so that they end with this agent
	swap       *rootSwap         // likewise: the root that steps get; nil: they get a chroot
	process    atomic.Int64      // likewise: the first process of the step that runs; 0: none does
	supervised error             // single uid: why owners cannot be kept; nil: they can
}

func newServer() *server {
	return &server{codec: newCodec(), home: -1, binfmt: -1, net: -1, proc: -1, first: sync.OnceValues(startInit)}
}

// serve answers requests until the parent hangs up; there is always an error.
func (s *server) serve(ctx context.Context) error {
	unix.CloseOnExec(agentFD)
	for {
		req, fds, err := s.codec.receive(agentFD)
		if err != nil {
			return err
		}
		r := s.handle(ctx, req, fds)
		for _, fd := range fds {
			unix.Close(fd)
		}
		if r.fatal != nil {
			return r.fatal
		}
		if err := s.codec.answer(agentFD, r); err != nil {
			return err
		}
		if req.Op == opHello && !s.mode.whole() {
			go func() { _, _ = s.first() }() // while the parent thinks
		}
	}
}

func (s *server) handle(ctx context.Context, req request, fds []int) reply {
	var r reply
	var err error
	switch {
	case req.Op == opHello && req.Hello != nil:
		err = s.hello(req.Hello, &r)
	case req.Op == opUnpack && len(fds) == 1:
		err = s.unpack(ctx, req, fds[0])
	case req.Op == opRemove:
		err = remove(req.Dir)
	case req.Op == opProbe:
		if s.mode.whole() {
			r.Rungs = s.selftestJail(req.Dir)
		} else {
			r.Rungs = s.selftest(req.Dir)
		}
	case req.Op == opRun && req.Step != nil && s.mode.whole():
		r.Exit, err = s.runJail(req.Step, fds)
	case req.Op == opRun && req.Step != nil:
		r.Exit, err = s.run(ctx, req.Step, fds)
	default:
		err = fmt.Errorf("sandbox: unknown request %q", req.Op)
	}
	r.Err = toWire(err)
	if errors.Is(err, errInit) {
		r.fatal = err
	}
	return r
}

// hello sets the agent up. Until it comes, the ids may not be mapped.
func (s *server) hello(h *hello, r *reply) error {
	s.mode, s.mapped, s.single = h.Mode, h.MapSize, h.Mode == ModeSingle || h.Recorded
	// A signal to all processes of a service or a job is the parent's to act on. Ignoring signals would be inherited by
	// the steps, so they are taken and dropped.
	signal.Notify(make(chan os.Signal, 1))
	unix.Umask(0)
	closeInherited()
	// No core files in layers, with what was in a process's memory.
	var core unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err == nil {
		core.Cur = 0
		_ = unix.Setrlimit(unix.RLIMIT_CORE, &core)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("%w: prctl(PR_SET_DUMPABLE): %w", ErrHost, err)
	}
	if s.mode.whole() {
		return s.helloJail(h, r)
	}
	if s.mode != ModeSingle { // where setgroups is denied, the groups stay (as nobody's)
		if err := unix.Setgroups(nil); err != nil {
			return fmt.Errorf("%w: setgroups in an own user namespace: %w: %s", ErrHost, err, mendMounts())
		}
	}
	// Mounts that the host makes later arrive here, ours never leave.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("%w: mounting in an own mount namespace: %w: %s", ErrHost, err, mendMounts())
	}
	fd, err := unix.Open("/proc/self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%w: /proc/self/ns/mnt: %w", ErrHost, err)
	}
	s.home = fd
	if s.proc, err = newMount("proc", attrProc); err != nil {
		s.proc = -1 // steps see the host's (newProc)
	}
	if s.proc < 0 {
		if s.hostProc, err = openDir("/proc"); err != nil {
			return fmt.Errorf("%w: %w", ErrHost, err)
		}
	}
	if s.mode == ModeSingle {
		s.supervised = s.trySupervisor()
		r.Supervisor = toWire(s.supervised)
	}
	s.profile = profile()
	s.emulators = h.Emulators
	r.How, err = s.emulate(h)
	r.Emulation = toWire(err)
	go s.first() //nolint:errcheck // the first step, which most likely comes next, says what came of it
	return nil
}

// closeInherited closes what our parent's parent left open for all its children; what is ours is close-on-exec.
func closeInherited() {
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		return
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return
	}
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil || fd <= agentFD {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
}

// emulate takes the first rung that works: handlers of our own, the tracer, the host's handlers.
func (s *server) emulate(h *hello) (how emulate.How, err error) {
	want := h.Emulation
	if want == emulate.Off {
		s.binfmt, _ = registerHandlers(nil) // hides the host's
		return emulate.None, nil
	}
	if len(h.Handlers) == 0 || want == emulate.HostOnly {
		return emulate.Host, nil
	}
	if want == emulate.Auto || want == emulate.PrivateOnly {
		if s.binfmt, err = registerHandlers(h.Handlers); err == nil {
			return emulate.Private, nil
		}
		if want == emulate.PrivateOnly {
			return emulate.None, err
		}
	}
	traceErr := tryTracer()
	if traceErr == nil {
		s.tracing = true
		return emulate.Ptrace, nil
	}
	if want == emulate.PtraceOnly {
		return emulate.None, traceErr
	}
	return emulate.Host, errors.Join(err, traceErr)
}

// registerHandlers makes a binfmt_misc instance for this user namespace, nowhere attached, and fills it. The host's
// instance is never touched: this one belongs to our user namespace (linux 6.7).
func registerHandlers(lines []string) (fd int, err error) {
	fd, err = newMount("binfmt_misc", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return -1, fmt.Errorf("%w: an own binfmt_misc instance: %w: linux 6.7 or later has them; else register handlers on the host (update-binfmts, flag F)", ErrHost, err)
	}
	for _, line := range lines {
		if err := register(fd, line); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("%w: registering %q: %w", ErrHost, line, err)
		}
	}
	return fd, nil
}

func register(dir int, line string) error {
	fd, err := unix.Openat(dir, "register", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte(line))
	return errors.Join(err, unix.Close(fd))
}

func (s *server) unpack(ctx context.Context, req request, fd int) error {
	// The descriptor stays the loop's to close.
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("unpacking a layer: %w", err)
	}
	tar := os.NewFile(uintptr(dup), "layer")
	defer tar.Close()
	o := layer.ApplyOptions{Ownership: s.ownership(), Limits: req.Limits, Overlay: true}
	if s.mode.whole() {
		o.Overlay, o.NoDevices = false, true
	}
	return layer.Apply(ctx, req.Dir, tar, o)
}

func (s *server) ownership() layer.Ownership {
	if s.single {
		return layer.OwnXattr
	}
	return layer.OwnIDs
}

// diff writes the layer that the upper directory is.
func diff(ctx context.Context, st *wireStep, upper string, fd int) error {
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("writing a layer: %w", err)
	}
	out := os.NewFile(uintptr(dup), "diff")
	defer out.Close()
	o := layer.DiffOptions{Ownership: st.Ownership, Clamp: st.Clamp}
	changed, err := hasEntries(upper)
	if err != nil {
		return fmt.Errorf("writing a layer: %w", err)
	}
	if changed {
		if o.Base, o.BaseOwners, err = openBase(st); err != nil {
			return err
		}
		defer o.Base.Close()
	}
	return layer.Diff(ctx, upper, out, o)
}
