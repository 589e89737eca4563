package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

var errClosed = errors.New("sandbox: the pool is closed")

// Pool is a set of warm agents, one for each concurrent step. It is safe for concurrent use.
type Pool struct {
	o       Options
	plan    plan
	exe     *program
	cgroups cgroups
	slots   chan struct{} // one token for each agent that may be busy

	swap     *rootSwap // steps in place: the root; else nil
	restored bool      // likewise: it was given back first

	how        emulate.How
	emulation  error // of the first agent's binfmt_misc instance
	supervisor error // of the first agent, with a single uid

	ahead sync.WaitGroup // agents that are started before anybody asks for them

	mu     sync.Mutex // guards what follows
	idle   []*agent
	all    map[*agent]struct{}
	coming []chan *agent // one for each that is started ahead and promised to nobody; nil comes of one that could not be
	closed bool
}

// NewPool probes the host and starts the first agent, and Options.Ahead beside it.
func NewPool(ctx context.Context, o Options) (*Pool, error) {
	if o.Agents <= 0 {
		o.Agents = runtime.NumCPU()
	}
	if o.Mode == ModeInPlace {
		o.Agents = 1 // there is one root
	}
	p := &Pool{o: o, slots: make(chan struct{}, o.Agents), all: map[*agent]struct{}{}}
	plans, errs, err := choosePlans(o)
	if err != nil {
		return nil, err
	}
	for _, pl := range plans {
		p.plan = pl
		if p.exe, err = openProgram(pl, p.exe); err != nil {
			return nil, err
		}
		if pl.mode == ModeInPlace {
			if err := p.claimRoot(); err != nil {
				errs[pl.mode] = err
				continue
			}
		}
		p.startAhead(ctx)
		a, err := p.start(ctx)
		if err == nil {
			p.how = a.how
			p.emulation, p.supervisor = a.emulation, a.supervisor
			p.mu.Lock()
			p.idle = append(p.idle, a)
			p.mu.Unlock()
			return p, nil
		}
		p.dropAhead()
		if ctx.Err() != nil {
			p.exe.Close()
			return nil, context.Cause(ctx)
		}
		errs[pl.mode] = err
	}
	if p.swap != nil {
		errs[ModeInPlace] = errors.Join(errs[ModeInPlace], p.swap.end())
	}
	if p.exe != nil {
		p.exe.Close()
	}
	if o.Mode != "" {
		return nil, fmt.Errorf("mode %s: %w", o.Mode, errs[o.Mode])
	}
	return nil, refuse(errs)
}

// startAhead starts agents for steps that are sure to come. What becomes of them is seen by who waits for one.
func (p *Pool) startAhead(ctx context.Context) {
	for range min(p.o.Ahead, p.o.Agents-1) {
		come := make(chan *agent, 1)
		p.coming = append(p.coming, come)
		p.ahead.Go(func() {
			a, err := p.start(ctx)
			if err != nil { // the first one says what is wrong, or who starts the next one
				a = nil
			}
			come <- a
		})
	}
}

// dropAhead ends the agents that were started ahead in a way that does not work here.
func (p *Pool) dropAhead() {
	p.ahead.Wait()
	for _, come := range p.coming {
		if a := <-come; a != nil {
			p.drop(a)
		}
	}
	p.coming = nil
}

// Close ends all agents and what runs in them.
func (p *Pool) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	agents := p.all
	p.all, p.idle = map[*agent]struct{}{}, nil
	p.mu.Unlock()
	for a := range agents {
		a.closed.Store(true)
		a.kill()
	}
	for a := range agents {
		a.wait()
	}
	p.ahead.Wait() // they see that it is over
	p.cgroups.close()
	var err error
	if p.swap != nil {
		err = p.swap.end()
	}
	return errors.Join(err, p.exe.Close())
}

// Mode is the mode in use.
func (p *Pool) Mode() Mode { return p.plan.mode }

// Ownership is how trees made by Unpack and Run keep owners.
func (p *Pool) Ownership() layer.Ownership {
	if p.plan.single() {
		return layer.OwnXattr
	}
	return layer.OwnIDs
}

// SnapshotKey identifies mode and id map: trees made under one key cannot be used under another.
func (p *Pool) SnapshotKey() string { return p.plan.key() }

// Emulation reports why the handlers of Options could not be registered in an instance of our own; nil when they are
// (or there are none). Programs of foreign platforms then run only where the host has handlers.
func (p *Pool) Emulation() error { return p.emulation }

// Emulator says by what means programs of foreign platforms run in steps.
func (p *Pool) Emulator() emulate.How { return p.how }

// Owners reports why files and processes of a step can only be root's; nil when they can be anybody's.
func (p *Pool) Owners() error { return p.supervisor }

// acquire takes an idle agent or starts one; it waits while Options.Agents are busy.
func (p *Pool) acquire(ctx context.Context) (*agent, error) {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			<-p.slots
			return nil, errClosed
		}
		var a *agent
		var come chan *agent
		if n := len(p.idle); n > 0 {
			a, p.idle = p.idle[n-1], p.idle[:n-1]
		} else if n := len(p.coming); n > 0 {
			come, p.coming = p.coming[n-1], p.coming[:n-1]
		}
		p.mu.Unlock()
		if come != nil {
			select {
			case a = <-come:
			case <-ctx.Done():
				p.mu.Lock()
				p.coming = append(p.coming, come)
				p.mu.Unlock()
				<-p.slots
				return nil, context.Cause(ctx)
			}
		}
		if a != nil {
			if a.dead() { // while idle: killed from outside
				p.drop(a)
				continue
			}
			return a, nil
		}
		a, err := p.start(ctx)
		if err != nil {
			<-p.slots
			return nil, err
		}
		return a, nil
	}
}

// release gives an agent back; one that is dead or must not be used again is dropped.
func (p *Pool) release(a *agent) {
	defer func() { <-p.slots }()
	if a.broken() {
		p.drop(a)
		return
	}
	p.mu.Lock()
	if !p.closed {
		p.idle = append(p.idle, a)
	}
	p.mu.Unlock()
}

func (p *Pool) drop(a *agent) {
	a.kill()
	a.wait()
	p.mu.Lock()
	delete(p.all, a)
	p.mu.Unlock()
}

// do sends one request to an agent of the pool.
func (p *Pool) do(ctx context.Context, req request, fds []int) (reply, error) {
	a, err := p.acquire(ctx)
	if err != nil {
		return reply{}, err
	}
	defer p.release(a)
	return a.call(ctx, req, fds)
}

// Unpack applies an uncompressed layer to dir (made by the caller, empty), as an overlay lower.
func (p *Pool) Unpack(ctx context.Context, dir string, tar *os.File, lim layer.Limits) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("unpacking a layer: %w", err)
	}
	fd, err := dupFD(tar)
	if err != nil {
		return fmt.Errorf("unpacking a layer: %w", err)
	}
	defer unix.Close(fd)
	_, err = p.do(ctx, request{Op: opUnpack, Dir: dir, Limits: lim}, []int{fd})
	runtime.KeepAlive(tar)
	return err
}

// dupFD duplicates f's descriptor without making f blocking, as f.Fd would.
func dupFD(f *os.File) (int, error) {
	c, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	var dupErr error
	if err := c.Control(func(raw uintptr) {
		fd, dupErr = unix.FcntlInt(raw, unix.F_DUPFD_CLOEXEC, 3)
	}); err != nil {
		return -1, err
	}
	return fd, dupErr
}

// Remove deletes a tree that agents made, whatever its owners and modes.
func (p *Pool) Remove(ctx context.Context, dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("removing a tree: %w", err)
	}
	if dir == "/" {
		return fmt.Errorf("removing a tree: %w: refusing to remove /", os.ErrInvalid)
	}
	_, err = p.do(ctx, request{Op: opRemove, Dir: dir}, nil)
	return err
}

// Run runs one step. An *ExitError says how the process ended; any other error is ours or the host's.
func (p *Pool) Run(ctx context.Context, s Step) error {
	if err := s.check(); err != nil {
		return err
	}
	if err := p.plan.account(s.Account, p.supervisor); err != nil {
		return err
	}
	ws, err := s.wire()
	if err != nil {
		return err
	}
	ws.Ownership = p.Ownership()
	if p.Whole() {
		return p.runWhole(ctx, s, ws)
	}
	return p.run(ctx, s, ws)
}

// run has an agent do a step. Its layer goes to s.Diff, unless ws says that there is none.
func (p *Pool) run(ctx context.Context, s Step, ws *wireStep) error {
	streams := make([]*stream, 0, 3)
	var fds []int
	feeding := func() {}
	defer func() {
		for _, st := range streams {
			st.close()
		}
	}()
	con, err := newConsole(&s)
	if err != nil {
		return err
	}
	defer con.close()
	for i, w := range []io.Writer{s.Stdout, s.Stderr, s.Diff} {
		if w == nil || s.Terminal && i < 2 || i == 2 && !ws.Diff {
			continue
		}
		st, err := newStream(w, i == 2)
		if err != nil {
			return err
		}
		streams = append(streams, st)
		fds = append(fds, st.remote)
	}
	if s.Terminal {
		ws.Stdout, ws.Stderr, ws.Stdin = false, false, false
	} else {
		stdin, feed, err := newFeed(s.Stdin)
		if err != nil {
			return err
		}
		defer feed.close()
		feeding = feed.handOver
		if s.Stdin != nil {
			fds = append(fds, stdin)
		}
	}
	if con != nil {
		fds, ws.Control = append(fds, con.remote), true
	}
	a, err := p.acquire(ctx)
	if err != nil {
		return err
	}
	defer p.release(a)
	group, err := p.cgroups.make(&ws.Resources)
	if err != nil {
		return err
	}
	if group != nil {
		defer group.remove()
		fds, ws.Cgroup = append(fds, int(group.procs.Fd())), true
	}
	for _, st := range streams {
		st.start()
	}
	sent := func() {
		feeding()
		con.start()
		for _, st := range streams {
			st.handOver()
		}
	}
	r, err := a.callThen(ctx, request{Op: opRun, Step: ws}, fds, sent)
	con.finish()
	if r.Exit != nil && r.Exit.Limit == "" && group != nil {
		r.Exit.Limit = group.exceeded(r.Exit)
	}
	var copyErrs []error
	for _, st := range streams {
		copyErrs = append(copyErrs, st.finish())
	}
	if err != nil && r.Exit == nil && !errors.Is(err, syscall.EPIPE) {
		return err
	}
	if copyErr := errors.Join(copyErrs...); copyErr != nil {
		return copyErr // a writer of the caller refused; the broken pipe in the agent only followed from it
	}
	switch {
	case r.Exit != nil && err != nil: // it failed, and this is likely why
		return fmt.Errorf("%w: %w", r.Exit, err)
	case r.Exit != nil:
		return r.Exit
	}
	return err
}
