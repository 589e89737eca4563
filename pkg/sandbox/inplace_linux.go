package sandbox

// This file runs a step in the root file system of this container, where not even chroot is allowed: as steps in a chroot
// (jail_linux.go), but that the tree is moved into the root and out again (rootswap_linux.go). The root is the same for
// the agent, its parent and the step: nothing is read by name in it while the tree is there, but for what stays.
//
// Who is not trusted: the step, and nothing keeps files from it that stay: mounts of the container, the store.

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// inPlace moves the tree in, runs the process, and moves the tree out.
func (st *step) inPlace() (exit *ExitError, err error) {
	w := st.srv.swap
	if st.srv.single {
		a := st.Account
		if st.super, err = st.srv.newJailSupervisor(st.jail, st.Tree, credsAs(uint32(a.UID), uint32(a.GID), groups32(a.Groups))); err != nil {
			return nil, err
		}
	}
	if err := w.enter(st.Tree); err != nil {
		st.super.close()
		return nil, errors.Join(err, w.leave(st.Tree))
	}
	if err = st.namesOfHosts(); err == nil {
		done := make(chan ended, 1)
		go st.inPlaceThread(done)
		end := <-done
		exit, err = end.exit, end.err
	}
	refused := st.super.close()
	moved := w.movedMounts()
	if err := errors.Join(unix.Chdir("/"), w.leave(st.Tree)); err != nil {
		return exit, fmt.Errorf("giving this container its files back, which are in %s: %w", w.path(swapHome), err)
	}
	if st.super != nil && err == nil && exit == nil {
		if err := st.super.owners.save(st.Tree); err != nil {
			return nil, err
		}
	}
	if len(refused) > 0 {
		return exit, fmt.Errorf("%w: %s", ErrOwnership, strings.Join(refused, ", "))
	}
	if moved != "" {
		return exit, fmt.Errorf("%w: the step moved %s away, a mount of this container, which cannot be brought back: start it anew", ErrRootfs, moved)
	}
	return exit, err
}

// movedMounts is a mount point that a step moved with the directory it is in; "" is none.
func (w *rootSwap) movedMounts() string {
	points, err := w.mounts()
	if err != nil {
		return ""
	}
	for _, p := range w.points {
		if !slices.Contains(points, p) {
			return p
		}
	}
	return ""
}

// namesOfHosts shows the step what hosts it was given, where /etc/hosts is a mount of the container.
func (st *step) namesOfHosts() error {
	if len(st.Hosts) == 0 {
		return nil
	}
	if below, ok := newKept(st.srv.swap.keep)["etc"]; !ok {
		return nil
	} else if _, ok := below["hosts"]; !ok {
		return nil
	}
	if err := st.srv.swap.hosts(st.hosts()); err != nil {
		return fmt.Errorf("%w: /etc/hosts is this container's, and cannot be changed for a step that was given hosts: %w", ErrHost, err)
	}
	return nil
}

func (st *step) inPlaceThread(done chan<- ended) {
	runtime.LockOSThread() // never unlocked: it has lost capabilities for good
	var e ended
	e.exit, e.err = st.inRoot()
	unix.Umask(0)
	done <- e
}

func (st *step) inRoot() (*ExitError, error) {
	root, err := openDir("/")
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	covered := st.tree
	defer func() { st.tree, st.jail.view = covered, covered.fd }()
	if st.tree, err = newTree(root); err != nil {
		return nil, err
	}
	st.tree.records = covered.records
	st.jail.view = root
	unix.Umask(0o022)
	return st.process()
}

// helloInPlace sets an agent up that moves trees into the root. It outlives its parent for as long as it takes to give the root back.
func (s *server) helloInPlace(h *hello) error {
	s.swap = &rootSwap{root: "/", keep: h.Keep, mounts: func() ([]string, error) { return mountPoints("/") }}
	var err error
	if s.swap.lock, err = lockFile(s.swap.path("private/agent"), time.Minute); err != nil {
		return fmt.Errorf("%w: %s: an agent of another build has this container's root: %w", ErrHost, s.swap.path(""), err)
	}
	for i := range h.Emulators {
		h.Emulators[i].Dir = s.swap.path(swapEmulators)
	}
	dir, err := openDir(s.swap.path(swapEmulators))
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	for _, e := range h.Emulators {
		if err := copyInto(dir, e.name(), e.Path); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("%w: emulator %s: %w", ErrHost, e.Path, err)
		}
	}
	if s.single {
		if err := tryJailSupervisor(); err != nil {
			return fmt.Errorf("%w: capabilities for owners and users are missing (%s), and they cannot be recorded either", err, strings.Join(missingOf(ownerCaps), ", "))
		}
	}
	go s.orphaned()
	return nil
}

// orphaned waits until the parent is gone or wants an end, and then ends the step that runs, whose end is seen as any other.
func (s *server) orphaned() {
	fds := []unix.PollFd{{Fd: agentFD, Events: unix.POLLRDHUP}}
	for {
		if _, err := unix.Poll(fds, -1); err == nil && fds[0].Revents != 0 {
			break
		}
	}
	for {
		if pid := s.process.Load(); pid > 0 {
			_ = unix.Kill(int(pid), unix.SIGKILL)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// leaveRoot ends an agent's share in the root: where its parent is gone, nobody else would.
func (s *server) leaveRoot() {
	if s.swap == nil {
		return
	}
	if lock, err := lockFile(s.swap.path("private/lock"), 0); err == nil {
		_ = s.swap.end()
		unix.Close(lock)
	}
}

// claimRoot makes the root this pool's.
func (p *Pool) claimRoot() error {
	w, err := newSwap(p.o)
	if err != nil {
		return err
	}
	if p.restored, err = w.claim(); err != nil {
		return err
	}
	w.keepProgram()
	// Read once by Go, and never while an image's certificates are in their place.
	_, _ = x509.SystemCertPool()
	p.swap = w
	return nil
}

// returnRoot finishes what an agent that died was about to do with the root.
func (p *Pool) returnRoot() error {
	if p.swap == nil {
		return nil
	}
	if _, err := p.swap.restore(); err != nil {
		return fmt.Errorf("giving this container its files back, which are in %s: %w", p.swap.path(swapHome), err)
	}
	return nil
}

// TreesDir is where trees have to be so that steps can have them ([Step.Tree]); "" is anywhere.
func (p *Pool) TreesDir() string {
	if p.swap == nil {
		return ""
	}
	return p.swap.path(swapTrees)
}

// runInPlace has the agent do a step while nobody else needs what is in the root.
func (p *Pool) runInPlace(ctx context.Context, s Step, ws *wireStep) error {
	if p.o.Away != nil {
		p.o.Away.Lock()
		defer p.o.Away.Unlock()
	}
	err := p.run(ctx, s, ws)
	return errors.Join(err, p.returnRoot())
}

// inPlaceNotice says what steps in place mean.
func (p *Pool) inPlaceNotice() string {
	var stay []string
	for _, name := range p.swap.keep {
		switch top, _, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/"); {
		case top == "proc" || top == "sys" || top == "dev" || standIn[name]:
		default:
			stay = append(stay, name)
		}
	}
	text := "--executor inplace: steps run in this container's own root file system, one at a time: while one runs, all that is in / is aside, in " +
		filepath.Join("/", swapDir) + ", and back afterwards; nothing keeps a step from what stays in place"
	if len(stay) > 0 {
		text += " (" + strings.Join(stay, ", ") + "), and what it writes there is in no layer"
	}
	text += ". Network, host name and process numbers are this container's, and set-uid programs do not gain privileges"
	if p.Ownership() == layer.OwnXattr {
		text += ". Capabilities for owners are missing (" + strings.Join(missingOf(ownerCaps), ", ") + "): owners and users are recorded, not real"
	}
	if p.restored {
		text += ". A build that was killed had left a step's files here: this container has its own back"
	}
	return text
}

// hangUp asks an agent to end; one that has the root gives it back first.
func (a *agent) hangUp() {
	_ = a.conn.CloseWrite()
	time.AfterFunc(hangUpPatience, func() { _ = a.proc.Kill() })
}

// hangUpPatience is for moving files of a root, which copies those of an image once.
const hangUpPatience = 2 * time.Minute
