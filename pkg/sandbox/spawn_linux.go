package sandbox

// This file starts agents. Who is trusted: this program and the set-uid helpers newuidmap and newgidmap. The agent
// runs from a file that nothing in its namespaces can write to ([openProgram]).

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/emulate"
)

// agentName is argv[0] of an agent; agentFD is its socket. Together they tell [Main] what this process is. No
// variable does: it would be inherited by what runs in a step.
const (
	agentName = "manifestctl-sandbox-agent"
	agentFD   = 3
)

// agentEnv keeps the Go runtime from holding cgroup files of the host open.
var agentEnv = []string{"GODEBUG=containermaxprocs=0,updatemaxprocs=0"}

// agent is one process that serves requests, as its parent sees it.
type agent struct {
	conn  *net.UnixConn
	codec *codec
	proc  *os.Process

	mild bool // ends by itself when its socket is closed

	how        emulate.How
	emulation  error
	supervisor error // of a single uid

	exited chan struct{} // closed when the process was reaped
	state  *os.ProcessState
	stderr tail

	closed atomic.Bool // by Close

	mu     sync.Mutex // guards failed
	failed bool       // a request was cut off: not to be used again
}

// start starts an agent and sets it up.
func (p *Pool) start(ctx context.Context) (*agent, error) {
	a, err := p.plan.spawn(ctx, p.exe.File)
	if err != nil {
		return nil, err
	}
	h := &hello{Emulation: p.o.Emulation, Mode: p.plan.mode, Recorded: p.plan.recorded, MapSize: min(reach(p.plan.uids), reach(p.plan.gids))}
	if p.swap != nil {
		h.Keep = p.swap.keep
	}
	for _, handler := range p.o.Handlers {
		if line := handler.Line(); line != "" {
			h.Handlers = append(h.Handlers, line)
			h.Emulators = append(h.Emulators, emulator{Arch: handler.Arch, Path: handler.Path, Magic: handler.Magic, Mask: handler.Mask})
		}
	}
	r, err := a.call(ctx, request{Op: opHello, Hello: h}, nil)
	if err != nil {
		a.kill()
		a.wait()
		return nil, err
	}
	a.how = r.How
	a.emulation, a.supervisor = r.Emulation.err(), r.Supervisor.err()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		a.kill()
		a.wait()
		return nil, errClosed
	}
	p.all[a] = struct{}{}
	return a, nil
}

// spawn clones an agent into its namespaces and maps its ids.
func (pl plan) spawn(ctx context.Context, exe *os.File) (*agent, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("making an agent's socket: %w", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "agent")
	defer theirs.Close()
	ours := os.NewFile(uintptr(pair[0]), "agent")
	c, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		return nil, fmt.Errorf("making an agent's socket: %w", err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return nil, fmt.Errorf("making an agent's socket: %w", os.ErrInvalid)
	}
	a := &agent{conn: conn, codec: newCodec(), exited: make(chan struct{})}

	attr := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
		Setsid:     true,
	}
	// The process that Go forks is mapped by its number here. Where /proc has other numbers (a pid namespace without a
	// /proc of its own) that would be another process: it is mapped afterwards, by the number that /proc has for it.
	apart := !sameProc()
	if pl.mode.whole() {
		attr.Cloneflags, apart = 0, false
		if pl.mode == ModeInPlace {
			attr.Pdeathsig = 0 // it gives the root back first
			a.mild = true
		}
	} else if pl.uidTool == "" && !apart {
		attr.UidMappings, attr.GidMappings = sysMap(pl.uids), sysMap(pl.gids)
		attr.GidMappingsEnableSetgroups = pl.mode == ModeRoot
	} else {
		// It execs before it is mapped, as an unknown user: only ambient capabilities survive that.
		for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
			if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err == nil {
				attr.AmbientCaps = append(attr.AmbientCaps, c)
			}
		}
	}
	pidfd := -1
	if apart {
		attr.PidFD = &pidfd
	}
	started := make(chan error)
	go a.life(exe, theirs, attr, started)
	if err := <-started; err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if err := pl.mapIDs(ctx, a.proc.Pid, apart, pidfd); err != nil {
		a.kill()
		a.wait()
		return nil, err
	}
	return a, nil
}

// life starts the process and waits for its end, all on one thread: the kernel kills the agent when the thread that
// started it ends.
func (a *agent) life(exe, socket *os.File, attr *syscall.SysProcAttr, started chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with this function
	errRead, errWrite, err := os.Pipe()
	if err != nil {
		started <- fmt.Errorf("making an agent's pipe: %w", err)
		return
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		started <- fmt.Errorf("starting an agent: %w", err)
		errRead.Close()
		errWrite.Close()
		return
	}
	proc, err := os.StartProcess(fmt.Sprintf("/proc/self/fd/%d", exe.Fd()), []string{agentName}, &os.ProcAttr{
		Dir: "/", Env: agentEnv, Files: []*os.File{null, null, errWrite, socket}, Sys: attr,
	})
	runtime.KeepAlive(exe)
	null.Close()
	errWrite.Close()
	if err != nil {
		errRead.Close()
		started <- cloneError(err)
		return
	}
	a.proc = proc
	started <- nil
	drained := make(chan struct{})
	go func() {
		_, _ = io.Copy(&a.stderr, errRead) // only what an agent says when it dies
		errRead.Close()
		close(drained)
	}()
	a.state, _ = proc.Wait()
	<-drained
	_ = a.conn.Close() // wakes who waits for a reply
	close(a.exited)
}

// cloneError says what a refused clone means.
func cloneError(err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return fmt.Errorf("%w: starting an agent: %w", ErrHost, err)
	}
	return fmt.Errorf("%w: starting a process in an own user namespace: %w: %s", ErrHost, errno, mendUserns(errno))
}

func (a *agent) kill() {
	if a.mild {
		a.hangUp()
		return
	}
	_ = a.proc.Kill() // it may have ended already
}

func (a *agent) wait() { <-a.exited }

func (a *agent) dead() bool {
	select {
	case <-a.exited:
		return true
	default:
		return false
	}
}

func (a *agent) broken() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failed || a.dead()
}

func (a *agent) call(ctx context.Context, req request, fds []int) (reply, error) {
	return a.callThen(ctx, req, fds, func() {})
}

// callThen sends a request, calls sent, and waits for the reply. When ctx ends first, the agent is killed with all
// that runs in it, and is gone when this returns.
func (a *agent) callThen(ctx context.Context, req request, fds []int, sent func()) (reply, error) {
	if ctx.Err() != nil {
		return reply{}, context.Cause(ctx)
	}
	stop := context.AfterFunc(ctx, a.kill)
	r, err := reply{}, a.codec.send(a.conn, req, fds)
	sent()
	if err == nil {
		r, err = a.codec.await(a.conn)
	}
	if !stop() { // the kill is on its way, even if the reply was faster
		a.fail()
		a.wait()
		if err != nil || a.mild {
			return reply{}, context.Cause(ctx)
		}
	}
	if err != nil {
		a.fail()
		a.kill()
		a.wait()
		if a.closed.Load() {
			return reply{}, errClosed
		}
		return reply{}, a.obituary(err)
	}
	return r, r.Err.err()
}

func (a *agent) fail() {
	a.mu.Lock()
	a.failed = true
	a.mu.Unlock()
}

// errAgent is the kind of errors of an agent that died under a request.
var errAgent = errors.New("the sandbox's agent died")

// obituary says how the agent died.
func (a *agent) obituary(err error) error {
	how := "unknown"
	if a.state != nil {
		how = a.state.String()
	}
	if said := strings.TrimSpace(a.stderr.String()); said != "" {
		return fmt.Errorf("%w: %s: %s", errAgent, how, said)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return fmt.Errorf("%w: %s (out of memory?)", errAgent, how)
	}
	return fmt.Errorf("%w: %s: %w", errAgent, how, err)
}

// tail keeps the last bytes that were written to it.
type tail struct {
	mu sync.Mutex // guards b
	b  []byte
}

const tailSize = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - tailSize; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
