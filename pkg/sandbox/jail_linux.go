package sandbox

// This file runs a step where there are no namespaces: the agent makes the step's tree look like a root file system, calls
// chroot, and runs the process confined (confine_linux.go). Who is not trusted: the step, before and after it runs. While it
// does, only descriptors that were opened before lead out of the tree; afterwards names in it are opened beneath it without
// following links. Nothing is mounted, so what a step is shown besides its tree is moved or written into it and taken out
// again, and what lay there meanwhile lies aside.

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

// jail is one step without namespaces.
type jail struct {
	root   int // the tree
	view   int // what the step's processes have as their root: the tree, or what it was moved into
	hold   int // directory for what is covered, on the same file system
	holdAt string
	covers []cover
	times  map[string]times
	moved  int // how many things were put aside

	terminals terminals
	devices   bool                   // there are files that stand for devices
	made      map[string]layer.Owner // those that the step made, by name
}

// cover is a name in the tree that shows something else while the step runs.
type cover struct {
	name  string
	held  string // name in hold; "" when nothing was there
	back  string // host path that the directory shown is moved back to; "" when it is thrown away
	stays bool
}

// times are those of a directory before and after names in it were covered.
type times struct{ before, after unix.Timespec }

// runJail does a whole step. Its layer is the caller's business: the tree is what it is now.
func (s *server) runJail(w *wireStep, fds []int) (_ *ExitError, err error) {
	st := &step{wireStep: w, srv: s, in: -1, out: [2]int{-1, -1}, ctl: -1, group: -1, upper: w.Tree}
	if _, err := st.descriptors(fds); err != nil {
		return nil, err
	}
	root, err := openDir(w.Tree)
	if err != nil {
		return nil, fmt.Errorf("the rootfs: %w", err)
	}
	defer unix.Close(root)
	if st.tree, err = newTree(root); err != nil {
		return nil, err
	}
	j := &jail{
		root: root, view: root, hold: -1, holdAt: filepath.Join(w.Scratch, "hold"), times: map[string]times{},
		terminals: terminals{pts: s.terminals, own: map[string]int{}},
	}
	defer j.terminals.close()
	if j.devices, err = hasDevices([]string{w.Tree}); err != nil {
		return nil, err
	}
	if err := os.Mkdir(j.holdAt, 0o700); err != nil {
		return nil, fmt.Errorf("preparing a step: %w", err)
	}
	if j.hold, err = openDir(j.holdAt); err != nil {
		return nil, err
	}
	defer unix.Close(j.hold)
	st.jail = j
	st.tree.records = s.single
	var exit *ExitError
	if err = st.dress(); err == nil && s.swap != nil {
		exit, err = st.inPlace()
	} else if err == nil {
		done := make(chan ended, 1)
		go st.jailThread(done)
		end := <-done
		exit, err = end.exit, end.err
	}
	if err == nil {
		err = keepDevices(w.Tree, j.made)
	}
	if undressErr := j.undress(st.tree); undressErr != nil && err == nil && exit == nil {
		err = undressErr
	}
	return exit, err
}

// jailThread enters the tree, runs the process, and comes back. The root is one of the whole agent, which has one step at a time.
func (st *step) jailThread(done chan<- ended) {
	runtime.LockOSThread() // never unlocked: it has lost capabilities for good
	var e ended
	e.exit, e.err = st.inJail()
	err := errors.Join(unix.Fchdir(st.srv.outside), unix.Chroot("."))
	if err != nil && e.err == nil {
		e.err = fmt.Errorf("leaving the step's tree: %w", errors.Join(errInit, err))
	}
	unix.Umask(0)
	done <- e
}

func (st *step) inJail() (*ExitError, error) {
	if err := errors.Join(unix.Fchdir(st.tree.fd), unix.Chroot("."), unix.Chdir("/")); err != nil {
		return nil, fmt.Errorf("%w: chroot: %w", ErrHost, err)
	}
	unix.Umask(0o022)
	return st.process()
}

// dress makes the tree look like a root file system.
func (st *step) dress() error {
	j := st.jail
	for _, name := range []string{"proc", "sys", "dev"} {
		fd, err := st.tree.standard(name)
		if err != nil {
			return err
		}
		err = j.cover(st.tree, fd, cover{stays: true})
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("covering /%s: %w", name, err)
		}
		if err := unix.Mkdirat(j.root, name, 0o755); err != nil {
			return fmt.Errorf("making /%s: %w", name, err)
		}
	}
	if st.srv.swap != nil {
		// Those of the container stay.
	} else if err := st.makeDev(); err != nil {
		return err
	}
	conf, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrHost, err)
	}
	ms := append([]Mount{
		{Kind: MountData, Target: "/etc/hosts", Data: st.hosts(), Mode: 0o644},
		{Kind: MountData, Target: "/etc/resolv.conf", Data: conf, Mode: 0o644},
	}, st.Mounts...)
	depth := func(m Mount) int { return strings.Count(path.Clean("/"+m.Target), "/") }
	slices.SortStableFunc(ms, func(a, b Mount) int { return depth(a) - depth(b) })
	for _, m := range ms {
		if err := st.show(m); err != nil {
			return fmt.Errorf("showing %s at %s: %w", m.Kind, m.Target, err)
		}
	}
	st.tree.passing(st.Mounts)
	return j.dressed()
}

// makeDev fills /dev with nodes of its own, which a container's device cgroup lets be used.
func (st *step) makeDev() error {
	dev, err := openBeneath(st.jail.root, "dev")
	if err != nil {
		return fmt.Errorf("opening /dev: %w", err)
	}
	defer unix.Close(dev)
	for _, d := range devices {
		if err := unix.Mknodat(dev, d.name, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor))); err != nil {
			return fmt.Errorf("%w: making /dev/%s: %w: CAP_MKNOD is needed (kubernetes: capabilities.add: [MKNOD])", ErrHost, d.name, err)
		}
	}
	for _, l := range deviceLinks {
		if err := unix.Symlinkat(l[1], dev, l[0]); err != nil {
			return fmt.Errorf("making /dev/%s: %w", l[0], err)
		}
	}
	for name, mode := range map[string]uint32{"shm": 0o1777, "pts": 0o755, "mqueue": 0o1777} {
		if err := errors.Join(unix.Mkdirat(dev, name, mode), unix.Fchmodat(dev, name, mode, 0)); err != nil {
			return fmt.Errorf("making /dev/%s: %w", name, err)
		}
	}
	if !st.srv.tracing {
		return nil
	}
	for _, e := range st.srv.emulators {
		if err := copyInto(dev, e.name(), e.Path); err != nil {
			return fmt.Errorf("%w: emulator %s: %w", ErrHost, e.Path, err)
		}
	}
	return nil
}

// copyInto copies a program of the host, so that nothing a step does to it lasts.
func copyInto(dir int, name, from string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o755)
	if err != nil {
		return err
	}
	dst := os.NewFile(uintptr(fd), name)
	_, err = dst.ReadFrom(src)
	return errors.Join(err, dst.Close())
}

// show puts one mount of a step into the tree.
func (st *step) show(m Mount) error {
	if path.Clean("/"+m.Target) == "/" {
		return fmt.Errorf("%w: the target is the root itself", ErrRootfs)
	}
	file := m.Kind == MountData || m.Kind == MountSocket
	var src unix.Stat_t
	if m.Kind == MountDir {
		if !m.Movable {
			return fmt.Errorf("%w: %s: a directory of the host can be shown in a mount namespace only: %s", ErrHost, m.Source, mendContainer())
		}
		if err := unix.Lstat(m.Source, &src); err != nil {
			return fmt.Errorf("%s: %w", m.Source, err)
		}
		file = src.Mode&unix.S_IFMT != unix.S_IFDIR
	}
	if m.Kind == MountTmpfs {
		if err := st.tmpfsMode(&m); err != nil {
			return err
		}
	}
	fd, err := st.tree.open(m.Target, want{file: file, stub: true})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	c := cover{}
	if m.Kind == MountDir {
		c.back = m.Source
	}
	if err := st.jail.cover(st.tree, fd, c); err != nil {
		return err
	}
	dir, base, err := st.jail.place(st.jail.covers[len(st.jail.covers)-1].name)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	switch m.Kind {
	case MountDir:
		if err := moveIn(m.Source, dir, base); err != nil {
			return fmt.Errorf("moving %s: %w", m.Source, err)
		}
		return nil
	case MountTmpfs:
		return errors.Join(unix.Mkdirat(dir, base, 0o700), unix.Fchownat(dir, base, m.UID, m.GID, unix.AT_SYMLINK_NOFOLLOW), unix.Fchmodat(dir, base, m.Mode, 0))
	case MountSocket:
		err := unix.Linkat(unix.AT_FDCWD, m.Source, dir, base, 0)
		if st.srv.swap != nil && errors.Is(err, unix.EXDEV) { // it is on a mount point, which stays where it is
			err = errors.Join(unix.Symlinkat(m.Source, dir, base), unix.Lchown(m.Source, m.UID, m.GID))
		}
		return errors.Join(err, unix.Fchownat(dir, base, m.UID, m.GID, unix.AT_SYMLINK_NOFOLLOW))
	case MountData:
		return writeData(dir, base, m)
	case MountOverlay:
	}
	return fmt.Errorf("%w: %s needs a mount namespace", ErrHost, m.Kind)
}

func writeData(dir int, base string, m Mount) error {
	fd, err := unix.Openat(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	_, err = f.Write(m.Data)
	if err == nil {
		err = errors.Join(unix.Fchown(fd, m.UID, m.GID), unix.Fchmod(fd, m.Mode&0o777))
	}
	return errors.Join(err, f.Close())
}

// place opens the directory that a clean name of the tree is in.
func (j *jail) place(name string) (dir int, base string, err error) {
	dir, err = openBeneath(j.root, path.Dir(name))
	return dir, path.Base(name), err
}

// nameOf is the name of an open file in the tree.
func (j *jail) nameOf(fd int) (string, error) {
	root, err := readlinkAt(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(j.root))
	if err != nil {
		return "", err
	}
	full, err := readlinkAt(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd))
	if err != nil {
		return "", err
	}
	name, ok := strings.CutPrefix(full, strings.TrimSuffix(root, "/")+"/")
	if !ok {
		return "", fmt.Errorf("%w: %s is not in the tree", ErrRootfs, full)
	}
	return name, nil
}

// cover puts what is open as fd aside. Its name is free then.
func (j *jail) cover(t *tree, fd int, c cover) error {
	name, err := j.nameOf(fd)
	if err != nil {
		return err
	}
	c.name, c.held = name, strconv.Itoa(j.moved)
	j.moved++
	dir, base, err := j.place(name)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	parent := path.Dir(name)
	if _, ok := j.times[parent]; !ok {
		var st unix.Stat_t
		if err := unix.Fstat(dir, &st); err != nil {
			return err
		}
		if m, ok := t.pre[parent]; ok {
			st.Mtim = m.mtime
		}
		j.times[parent] = times{before: st.Mtim}
	}
	if err := unix.Renameat(dir, base, j.hold, c.held); err != nil {
		return err
	}
	j.covers = append(j.covers, c)
	return nil
}

// dressed notes the times that covering left.
func (j *jail) dressed() error {
	for name, t := range j.times {
		var st unix.Stat_t
		if err := unix.Fstatat(j.root, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("looking at /%s: %w", name, err)
		}
		t.after = st.Mtim
		j.times[name] = t
	}
	return nil
}

// undress takes out what the step was shown and puts back what lay there.
func (j *jail) undress(t *tree) error {
	var errs []error
	now := map[string]unix.Timespec{}
	for name := range j.times {
		var st unix.Stat_t
		if unix.Fstatat(j.root, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			now[name] = st.Mtim
		}
	}
	for _, c := range slices.Backward(j.covers) {
		if err := j.uncover(c); err != nil {
			errs = append(errs, fmt.Errorf("putting /%s back: %w", c.name, err))
		}
	}
	made := map[string]bool{} // directories that stubs were made in
	for _, s := range slices.Backward(t.stubs) {
		if s.parent >= 0 {
			unix.Close(s.parent)
			continue
		}
		made[path.Dir(s.name)] = true
		if s.stays {
			continue
		}
		if dir, err := openBeneath(j.root, path.Dir(s.name)); err == nil {
			removeEmpty(dir, path.Base(s.name), s.dir)
			unix.Close(dir)
		}
	}
	for name, ts := range j.times {
		was, ok := now[name]
		if !ok {
			continue // the step removed it
		}
		if was == ts.after && (!made[name] || name == ".") { // nothing but covering changed what is in it
			was = ts.before
		}
		fd, err := openBeneath(j.root, name)
		if err != nil {
			continue
		}
		if err := setMtime(fd, was); err != nil {
			errs = append(errs, fmt.Errorf("time of /%s: %w", name, err))
		}
		unix.Close(fd)
	}
	return errors.Join(errs...)
}

// uncover undoes one cover. What the step did to the name meanwhile is lost, as it is with a mount.
func (j *jail) uncover(c cover) error {
	dir, base, err := j.place(c.name)
	if err != nil { // the step removed or replaced what it is in
		if c.back != "" {
			return fmt.Errorf("%w: %s is lost", err, c.back)
		}
		return nil
	}
	defer unix.Close(dir)
	if c.back != "" {
		if err := moveOut(dir, base, c.back); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	if err := remove("/proc/self/fd/" + strconv.Itoa(dir) + "/" + base); err != nil {
		return err
	}
	return unix.Renameat(j.hold, c.held, dir, base)
}

// confined starts the step's process in the tree and waits until nothing of it is left.
func (st *step) confined(file string, files [3]uintptr) (*ExitError, error) {
	limits, err := newConfinement(st.tree.fd)
	if err != nil {
		return nil, err
	}
	defer limits.close()
	tr := st.srv.newJailTracer(st.jail)
	tr.super = st.super
	attr := forkAttr{files: files, nofile: st.srv.nofile, cred: st.credential(), confine: limits, tty: st.Terminal}
	attr.filter = confineProgram(confinedTables, st.srv.seizes && canTrace, st.HostNet)
	attr.executed = make(chan error, 1)
	attr.profile = st.srv.profile
	var g *guard
	if len(procCalls) > 0 && st.srv.swap == nil { // else there is a real one
		attr.flags, attr.listen = superviseFlags, procProgram()
	} else if len(hostABIs) > 0 && st.super == nil {
		attr.flags, attr.listen = superviseFlags, notifyProgram(deviceABIs(st.jail.devices), false)
	}
	if st.super != nil {
		if err := unix.Fstatfs(st.tree.fd, &st.super.rootfs); err != nil {
			return nil, fmt.Errorf("looking at the rootfs: %w", err)
		}
		attr.cred, attr.flags, attr.listen = nil, superviseFlags, notifyProgram(hostABIs, st.srv.seizes && canTrace)
	}
	var procs *procServer
	attr.ready = func(pid, listener int, errno syscall.Errno) error {
		st.srv.process.Store(int64(pid))
		if st.super != nil {
			if errno != 0 {
				return fmt.Errorf("%w: the supervisor's filter: %w", ErrHost, errno)
			}
			if err := setLimitOf(pid, 0); err != nil {
				return fmt.Errorf("%w: prlimit: %w", ErrHost, err)
			}
			st.super.start(listener)
		} else if listener >= 0 && errno == 0 && st.srv.swap != nil {
			if err := st.devicesInPlace(listener); err != nil {
				return err
			}
		} else if listener >= 0 && errno == 0 { // else the step has no /proc
			var err error
			if procs, err = st.srv.newProcServer(st.jail, listener); err != nil {
				return err
			}
		}
		if err := st.setLimits(pid); err != nil {
			return err
		}
		var err error
		if g, err = st.watch(pid); err != nil {
			return err
		}
		if st.srv.seizes {
			return tr.seize(pid)
		}
		return nil
	}
	pid, err := forkExec(file, st.Args, st.Env, attr)
	defer func() {
		procs.close()
		if st.jail.made = st.devices.closeDevices(); procs != nil {
			st.jail.made = procs.files.made
		}
	}()
	defer st.srv.process.Store(0)
	if err != nil {
		g.stop()
		return st.execError(file, err)
	}
	status, err := tr.reapFamily(pid, st.srv.seizes)
	limit := g.stop()
	if err != nil {
		return nil, err
	}
	if err := <-attr.executed; err != nil {
		return st.execError(file, err)
	}
	return st.outcomeWithin(status, limit), nil
}

// helloJail sets an agent up that has no namespaces.
func (s *server) helloJail(h *hello, r *reply) (err error) {
	if len(confinedTables) == 0 {
		return fmt.Errorf("%w: no table of system calls for %s", ErrHost, runtime.GOARCH)
	}
	if s.outside, err = openDir("/"); err != nil {
		return fmt.Errorf("%w: %w", ErrHost, err)
	}
	if s.hostProc, err = openDir("/proc"); err != nil {
		return fmt.Errorf("%w: %w", ErrHost, err)
	}
	s.terminals = findTerminals()
	if s.mode == ModeInPlace {
		if err := s.helloInPlace(h); err != nil {
			return err
		}
	} else if err := s.helloChroot(); err != nil {
		return err
	}
	// What a step leaves becomes ours when its parent dies.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("%w: prctl(PR_SET_CHILD_SUBREAPER): %w", ErrHost, err)
	}
	if s.nofile, err = childLimit(); err != nil {
		return err
	}
	s.profile = profile()
	s.traceErr = tryJailTracer()
	s.seizes = s.traceErr == nil
	s.emulators = h.Emulators
	switch {
	case len(h.Handlers) == 0 || h.Emulation == emulate.HostOnly:
		r.How = emulate.Host
	case h.Emulation == emulate.Off:
		r.How = emulate.None
	case h.Emulation == emulate.PrivateOnly:
		r.How, r.Emulation = emulate.None, toWire(fmt.Errorf("%w: an own binfmt_misc instance needs a user namespace: --emulation ptrace", ErrHost))
	case s.seizes && canTrace:
		s.tracing, r.How = true, emulate.Ptrace
	default:
		r.How, r.Emulation = emulate.Host, toWire(errors.Join(s.traceErr, errNoTracer()))
	}
	return nil
}

// jailCaps are the capabilities without which a step in a chroot is not what it is elsewhere.
var jailCaps = []capability{
	{"CHOWN", unix.CAP_CHOWN},
	{"DAC_OVERRIDE", unix.CAP_DAC_OVERRIDE},
	{"FOWNER", unix.CAP_FOWNER},
	{"SETUID", unix.CAP_SETUID},
	{"SETGID", unix.CAP_SETGID},
	{"SETPCAP", unix.CAP_SETPCAP},
	{"SYS_CHROOT", unix.CAP_SYS_CHROOT},
	{"MKNOD", unix.CAP_MKNOD},
}

// helloChroot tries what steps in a chroot need beside others.
func (s *server) helloChroot() error {
	if missing := missingCaps(); len(missing) > 0 {
		return fmt.Errorf("%w: steps in a chroot need capabilities that are missing here: %s",
			ErrHost, strings.Join(missing, ", "))
	}
	if err := errors.Join(unix.Fchdir(s.outside), unix.Chroot(".")); err != nil {
		return fmt.Errorf("%w: chroot: %w", ErrHost, err)
	}
	return nil
}

// ownerCaps are those without which owners and users of steps are not real.
var ownerCaps = jailCaps[:5]

func missingCaps() []string { return missingOf(jailCaps) }

// capability is one by its name.
type capability struct {
	name string
	bit  uint
}

func missingOf(caps []capability) []string {
	var own [2]unix.CapUserData
	if err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &own[0]); err != nil {
		return nil
	}
	var out []string
	for _, c := range caps {
		if own[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
			out = append(out, c.name)
		}
	}
	return out
}

// childLimit is the limit of open files that children of this program get: the Go runtime raises its own, and only it
// knows what it was.
func childLimit() (*unix.Rlimit, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{agentName}, &syscall.ProcAttr{Dir: "/", Sys: &syscall.SysProcAttr{Ptrace: true}})
	if err != nil {
		return nil, nil // they get ours
	}
	defer func() {
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = unix.Wait4(pid, nil, 0, nil)
	}()
	var ws unix.WaitStatus
	if _, err := unix.Wait4(pid, &ws, 0, nil); err != nil || !ws.Stopped() {
		return nil, fmt.Errorf("%w: starting this program again: %w", ErrHost, errors.Join(err, unix.ECHILD))
	}
	lim := &unix.Rlimit{}
	if unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, lim) != nil {
		return nil, nil
	}
	return lim, nil
}
