package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// step is one run in the agent.
type step struct {
	*wireStep
	srv   *server
	in    int    // stdin; -1 is empty
	out   [2]int // stdout and stderr; -1 drops
	ctl   int    // the caller's socket; -1: none
	group int    // cgroup.procs of the step's cgroup; -1: none
	upper string
	stage string
	tree  *tree
	first *initProc
	jail  *jail       // without namespaces; else nil
	super *supervisor // single uid: who keeps owners; nil: nobody
	// Real ids: who makes devices; nil: nobody. seen: there are some.
	devices *supervisor
	seen    bool
}

// ended is how a step's thread ended.
type ended struct {
	exit    *ExitError
	err     error
	refused []string
	devices map[string]layer.Owner
}

// run does a whole step: set up, process, clean-up, layer.
func (s *server) run(ctx context.Context, w *wireStep, fds []int) (*ExitError, error) {
	st := &step{wireStep: w, srv: s, in: -1, out: [2]int{-1, -1}, ctl: -1, group: -1, upper: filepath.Join(w.Scratch, "upper")}
	diffFD, err := st.descriptors(fds)
	if err != nil {
		return nil, err
	}
	if err := st.directories(); err != nil {
		return nil, err
	}
	if st.first, err = s.first(); err != nil {
		return nil, err
	}
	if s.mode == ModeSingle && s.supervised == nil {
		a := w.Account
		first := credsAs(uint32(a.UID), uint32(a.GID), groups32(a.Groups))
		if st.super, err = s.newSupervisor(st.Lowers, first); err != nil {
			return nil, err
		}
	}
	if st.super == nil {
		if st.seen, err = hasDevices(st.Lowers); err != nil {
			return nil, err
		}
	}
	done := make(chan ended, 1)
	go st.thread(done)
	end := <-done
	if st.super != nil && end.err == nil {
		end.err = st.super.owners.save(st.upper)
	}
	if end.err == nil {
		end.err = keepDevices(st.upper, end.devices)
	}
	if st.tree != nil {
		if err := st.tree.removeStubs(st.upper); err != nil && end.err == nil && end.exit == nil {
			end.err = err
		}
	}
	if len(end.refused) > 0 {
		end.err = fmt.Errorf("%w: %s: %s", ErrOwnership, strings.Join(end.refused, ", "), mendRanges)
	}
	if end.err == nil && end.exit != nil {
		end.err = st.full()
	}
	if end.exit != nil && w.KeepFailed {
		return end.exit, errors.Join(end.err, st.keep())
	}
	if end.err != nil || end.exit != nil {
		return end.exit, end.err
	}
	if w.Diff {
		if err := diff(ctx, w, st.upper, diffFD); err != nil {
			return nil, err
		}
	}
	return nil, st.keep()
}

// keep moves the upper directory to where the caller wants it.
func (st *step) keep() error {
	if st.Keep == "" {
		return nil
	}
	if err := os.Rename(st.upper, st.Keep); err != nil {
		return fmt.Errorf("keeping the snapshot: %w", err)
	}
	err := os.Rename(layer.OwnersFile(st.upper), layer.OwnersFile(st.Keep))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("keeping the snapshot: %w", err)
	}
	return nil
}

// descriptors takes those that came with a step, and returns the one that its layer goes to.
func (st *step) descriptors(fds []int) (diffFD int, err error) {
	diffFD = -1
	for _, f := range []struct {
		on bool
		to *int
	}{{st.Stdout, &st.out[0]}, {st.Stderr, &st.out[1]}, {st.Diff, &diffFD}, {st.wireStep.Stdin, &st.in}, {st.Control, &st.ctl}, {st.Cgroup, &st.group}} {
		if !f.on {
			continue
		}
		if len(fds) == 0 {
			return -1, errors.New("sandbox: descriptors are missing")
		}
		*f.to, fds = fds[0], fds[1:]
	}
	return diffFD, nil
}

// directories makes what an overlay needs. The upper directory is the root of the merged tree, so it looks like the one below.
func (st *step) directories() error {
	for _, d := range []string{st.upper, filepath.Join(st.Scratch, "work")} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return fmt.Errorf("preparing a step: %w", err)
		}
	}
	// It is only mounted over: that of an earlier step does, unless its caller has removed it.
	if st.stage = st.srv.stage; !isDir(st.stage) {
		st.stage = filepath.Join(st.Scratch, "stage")
		if err := os.Mkdir(st.stage, 0o755); err != nil {
			return fmt.Errorf("preparing a step: %w", err)
		}
		st.srv.stage = st.stage
	}
	if err := plain(st.upper); err != nil {
		return fmt.Errorf("preparing a step: %w", err)
	}
	if len(st.Lowers) == 0 {
		empty := filepath.Join(st.Scratch, "empty")
		if err := os.Mkdir(empty, 0o755); err != nil {
			return fmt.Errorf("preparing a step: %w", err)
		}
		st.Lowers = []string{empty}
		return nil
	}
	if err := copyMeta(st.Lowers[0], st.upper); err != nil {
		return fmt.Errorf("preparing a step: %w", err)
	}
	return nil
}

func isDir(path string) bool {
	fi, err := os.Lstat(path)
	return err == nil && fi.IsDir()
}

// plain takes off a directory what it inherited from its parent on the host (a group, set-gid, default ACLs), or new
// files of the rootfs would inherit it too.
func plain(dir string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", dir, err)
	}
	defer unix.Close(fd)
	for _, acl := range []string{"system.posix_acl_default", "system.posix_acl_access"} {
		if err := unix.Fremovexattr(fd, acl); err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) {
			return fmt.Errorf("removing the ACL of %s: %w", dir, err)
		}
	}
	if err := unix.Fchown(fd, 0, 0); err != nil {
		return fmt.Errorf("owner of %s: %w", dir, err)
	}
	return unix.Fchmod(fd, 0o755)
}

// copyMeta gives directory to the mode, owner, xattrs and time of directory from.
func copyMeta(from, to string) error {
	src, err := unix.Open(from, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", from, err)
	}
	defer unix.Close(src)
	dst, err := unix.Open(to, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", to, err)
	}
	defer unix.Close(dst)
	m, err := readMeta(src)
	if err != nil {
		return err
	}
	if m.uid != 0 || m.gid != 0 {
		if err := unix.Fchown(dst, int(m.uid), int(m.gid)); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(dst, m.mode&0o7777); err != nil {
		return err
	}
	for name, value := range m.xattrs {
		if !strings.HasPrefix(name, "user.") {
			continue // security labels are the host's business
		}
		if err := unix.Fsetxattr(dst, name, []byte(value), 0); err != nil {
			return err
		}
	}
	return setMtime(dst, m.mtime)
}

// thread is the life of a step's own thread: it enters new namespaces, sets the rootfs up, starts the process, waits
// until nothing of it is left, and goes back so that the mounts end. Then the thread ends too: it has lost
// capabilities for good.
func (st *step) thread(done chan<- ended) {
	runtime.LockOSThread() // never unlocked
	var e ended
	e.exit, e.err = st.inside()
	if st.tree != nil { // what holds the overlay's mount
		unix.Close(st.tree.fd)
	}
	e.devices = st.devices.closeDevices()
	if refused := st.super.close(); len(refused) > 0 && e.err == nil {
		e.refused = refused
	}
	if err := unix.Setns(st.srv.home, unix.CLONE_NEWNS); err != nil && e.err == nil {
		e.err = fmt.Errorf("leaving the step's mount namespace: %w", err)
	}
	if !st.HostNet {
		st.srv.leaveNet()
	}
	done <- e
}

func (st *step) inside() (*ExitError, error) {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC); err != nil {
		return nil, fmt.Errorf("%w: making a step's namespaces: %w", ErrHost, err)
	}
	if !st.HostNet {
		if err := st.srv.enterNet(); err != nil {
			return nil, err
		}
	}
	// Where its children go; the thread itself stays.
	if err := unix.Setns(st.first.pidns, unix.CLONE_NEWPID); err != nil {
		return nil, errors.Join(errInit, err)
	}
	unix.Umask(0)
	host := cmp.Or(st.Hostname, DefaultHostname)
	if err := unix.Sethostname([]byte(host)); err != nil {
		return nil, fmt.Errorf("setting the step's host name %q: %w", host, err)
	}
	if err := st.mounts(); err != nil {
		return nil, err
	}
	if err := pivotTo(st.tree.fd); err != nil {
		return nil, err
	}
	unix.Umask(0o022)
	return st.process()
}

// mounts builds the whole tree at STAGE/root.
func (st *step) mounts() error {
	null, err := unix.Open("/dev/null", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%w: /dev/null: %w", ErrHost, err)
	}
	defer unix.Close(null)
	stage, err := st.openStage()
	if err != nil {
		return err
	}
	defer unix.Close(stage)
	root, err := mountOverlay(st.Lowers, st.upper, filepath.Join(st.Scratch, "work"), filepath.Join(st.stage, "root"))
	if err != nil {
		return fmt.Errorf("%w: the rootfs: %w%s", ErrHost, err, mendOverlay(err))
	}
	if st.tree, err = newTree(root); err != nil {
		unix.Close(root)
		return err
	}
	st.tree.records = st.srv.mode == ModeSingle
	empty, err := unix.Openat(stage, "empty", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("preparing a step: %w", err)
	}
	defer unix.Close(empty)
	if err := st.tree.system(st.HostNet, st.first.proc, st.srv.mapped, empty, null); err != nil {
		return err
	}
	if st.srv.tracing {
		if err := st.tree.addEmulators(st.srv.emulators); err != nil {
			return err
		}
	}
	if err := st.ownMounts(stage); err != nil {
		return err
	}
	st.tree.passing(st.Mounts)
	if err := st.tree.stubsMade(); err != nil {
		return err
	}
	if st.ReadOnly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		if err := unix.MountSetattr(root, "", unix.AT_EMPTY_PATH, &attr); err != nil {
			return fmt.Errorf("%w: making the rootfs read-only: %w", ErrHost, err)
		}
	}
	return nil
}

// openStage mounts a file system in memory over the stage directory, in this step's namespace only: what is bound
// into the rootfs from there (secrets too) is never on disk. It is a ramfs where there is one, which is not swapped.
func (st *step) openStage() (int, error) {
	m, err := newMount("ramfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, "mode=0755")
	if err != nil {
		m, err = newMount("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, "mode=0755")
	}
	if err != nil {
		return -1, fmt.Errorf("%w: %w", ErrHost, err)
	}
	target, err := openDir(st.stage)
	if err != nil {
		unix.Close(m)
		return -1, err
	}
	err = attach(m, target)
	unix.Close(target)
	for _, d := range []string{"root", "empty"} {
		if err == nil {
			err = unix.Mkdirat(m, d, 0o755)
		}
	}
	if err != nil {
		unix.Close(m)
		return -1, fmt.Errorf("preparing a step: %w", err)
	}
	return m, nil
}

// pivotTo makes the mount root the root of this mount namespace; nothing of the host stays reachable.
func pivotTo(root int) error {
	if err := unix.Fchdir(root); err != nil {
		return fmt.Errorf("entering the rootfs: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("%w: pivot_root: %w", ErrHost, err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("%w: leaving the host's root: %w", ErrHost, err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("entering the rootfs: %w", err)
	}
	return nil
}

// ownMounts adds /etc/resolv.conf, /etc/hosts and the mounts of the step, shallow targets first.
func (st *step) ownMounts(stage int) error {
	ms := []Mount{{Kind: MountData, Target: "/etc/hosts", Data: st.hosts(), Mode: 0o644, ReadOnly: true}}
	conf, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrHost, err)
	}
	if !st.HostNet {
		conf = withoutLoopback(conf)
	}
	ms = append(ms, Mount{Kind: MountData, Target: "/etc/resolv.conf", Data: conf, Mode: 0o644, ReadOnly: true})
	ms = append(ms, st.Mounts...)
	depth := func(m Mount) int { return strings.Count(path.Clean("/"+m.Target), "/") }
	slices.SortStableFunc(ms, func(a, b Mount) int { return depth(a) - depth(b) })
	for i, m := range ms {
		if err := st.mount(m, stage, i); err != nil {
			return fmt.Errorf("mounting %s at %s: %w", m.Kind, m.Target, err)
		}
	}
	return nil
}

func (st *step) hosts() []byte {
	host := cmp.Or(st.Hostname, DefaultHostname)
	var b strings.Builder
	fmt.Fprintf(&b, "127.0.0.1\tlocalhost %s\n::1\tlocalhost ip6-localhost ip6-loopback\n", host)
	for _, h := range st.Hosts {
		fmt.Fprintf(&b, "%s\t%s\n", h.IP, h.Name)
	}
	return []byte(b.String())
}
