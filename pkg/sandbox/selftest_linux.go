package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// selftest does in an agent what a step needs, each thing by itself. dir is on the file system of the store.
func (s *server) selftest(dir string) []Rung {
	rungs := []Rung{
		s.onThread(unix.CLONE_NEWNS, func() Rung { return overlayRung(dir) }),
		s.procRung(),
		s.onThread(unix.CLONE_NEWNS|unix.CLONE_NEWNET, noNetRung),
		hostNetRung(),
		tracerRung(),
	}
	if s.mode == ModeSingle {
		rungs = append(rungs, s.filterRung())
	}
	return rungs
}

// onThread runs f on a thread in new namespaces, which end with it.
func (s *server) onThread(flags int, f func() Rung) Rung {
	done := make(chan Rung, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		if err := unix.Unshare(flags); err != nil {
			r := f()
			r.OK, r.Err = false, errText(fmt.Errorf("making namespaces: %w", err))
			done <- r
			return
		}
		r := f()
		_ = unix.Setns(s.home, unix.CLONE_NEWNS) // so that mounts end before the directories below them are removed
		done <- r
	}()
	return <-done
}

// overlayRung mounts an overlay and looks at what it leaves in the upper directory: a kernel or file system without
// user xattrs mounts happily and breaks at the first replaced directory.
func overlayRung(dir string) Rung {
	r := Rung{Name: rungOverlay, Detail: "RUN steps need another file system for the store", Mend: "choose a directory on ext4, xfs, btrfs or a tmpfs of linux 6.6 with --root"}
	if err := tryOverlay(dir); err != nil {
		r.Err = errText(err)
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENODEV) {
			r.Mend = "linux 5.11 or later with overlayfs (modprobe overlay)"
		}
		return r
	}
	return Rung{Name: rungOverlay, OK: true, Detail: "whiteouts and opaque directories work in " + dir}
}

func tryOverlay(parent string) (err error) {
	dir, err := os.MkdirTemp(parent, ".manifestctl-probe-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"lower", "lower/whole", "upper", "work", "merged"} {
		if err := os.Mkdir(in(d), 0o755); err != nil {
			return err
		}
	}
	for _, f := range []string{"lower/gone", "lower/whole/x", "lower/kept"} {
		if err := os.WriteFile(in(f), []byte("x"), 0o644); err != nil {
			return err
		}
	}
	fd, err := mountOverlay([]string{in("lower")}, in("upper"), in("work"), in("merged"))
	if err != nil {
		return err
	}
	unix.Close(fd)
	defer func() { err = errors.Join(err, unix.Unmount(in("merged"), unix.MNT_DETACH)) }()
	err = errors.Join(
		os.Remove(in("merged/gone")), os.RemoveAll(in("merged/whole")), os.Mkdir(in("merged/whole"), 0o755),
		unix.Setxattr(in("merged/kept"), "user.manifestctl.probe", []byte("x"), 0),
	)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(in("upper/gone"), &st); err != nil {
		return fmt.Errorf("no whiteout: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		return fmt.Errorf("%w: a removed file left no whiteout", unix.ENOTSUP)
	}
	mark := make([]byte, 1)
	if n, err := unix.Getxattr(in("upper/whole"), "user.overlay.opaque", mark); err != nil || n != 1 || mark[0] != 'y' {
		return fmt.Errorf("%w: a replaced directory was not marked opaque", errors.Join(err, unix.ENOTSUP))
	}
	return nil
}

func (s *server) procRung() Rung {
	first, err := s.first()
	if err != nil {
		return Rung{Name: rungProc, Detail: "steps cannot run", Err: errText(err), Mend: "mount /proc"}
	}
	if !first.proc {
		return Rung{
			Name: rungProc, Err: "EPERM: mounting proc: something covers a part of the host's /proc, as in a container",
			Detail: "steps see the host's /proc: /proc/self is right, process numbers are not",
			Mend:   "docker: --security-opt systempaths=unconfined; kubernetes: procMount: Unmasked",
		}
	}
	return Rung{Name: rungProc, OK: true, Detail: "steps see their own processes only"}
}

func noNetRung() Rung {
	r := Rung{Name: rungNoNet, Detail: "steps run with the host's network only", Mend: "network namespaces (CONFIG_NET_NS), user.max_net_namespaces above 0"}
	if err := loopbackUp(); err != nil {
		r.Err = errText(err)
		return r
	}
	fd, err := newMount("sysfs", attrProc|attrRO)
	if err == nil {
		unix.Close(fd)
		return Rung{Name: rungNoNet, OK: true, Detail: "loopback only"}
	}
	return Rung{Name: rungNoNet, OK: true, Detail: "loopback only; /sys is the host's, read-only"}
}

func hostNetRung() Rung {
	if _, err := os.Stat("/etc/resolv.conf"); err != nil {
		return Rung{Name: rungHostNet, OK: true, Detail: "no /etc/resolv.conf here: steps resolve no names"}
	}
	return Rung{Name: rungHostNet, OK: true, Detail: "what this machine reaches, its loopback too"}
}

func tracerRung() Rung {
	if err := tryTracer(); err != nil {
		return Rung{
			Name: rungPtrace, Detail: "foreign platforms need binfmt_misc", Err: errText(err),
			Mend: "kernel.yama.ptrace_scope below 2, and no seccomp profile without ptrace",
		}
	}
	return Rung{Name: rungPtrace, OK: true, Detail: "foreign programs run without any handler, set-uid ones as who starts them"}
}

func (s *server) filterRung() Rung {
	if err := s.supervised; err != nil {
		return Rung{
			Name: rungFilter, Detail: "files and processes of a step can only be root's: a chown to anybody else is an error",
			Err: errText(err), Mend: "not below another supervisor (EBUSY), linux 5.19 or later; or " + mendRanges,
		}
	}
	return Rung{Name: rungFilter, OK: true, Detail: "chown, mknod, setuid and USER work with one id; owners are kept in xattrs"}
}

// selftestJail does what a step without namespaces needs.
func (s *server) selftestJail(dir string) []Rung {
	proc := procJailRung()
	if s.swap != nil {
		proc = Rung{Name: rungProc, Detail: "steps see this container's", Mend: "none needed"}
	}
	return []Rung{s.treesRung(dir), s.landlockRung(), proc, noNetJailRung(), hostNetRung(), s.jailTracerRung()}
}

// treesRung makes in the store's file system what a tree needs.
func (s *server) treesRung(dir string) Rung {
	r := Rung{Name: rungTrees, Detail: "RUN steps need another file system for the store", Mend: "a volume that is not mounted nodev or noexec, with --root"}
	if err := tryTree(dir, s.swap == nil); err != nil {
		r.Err = errText(err)
		return r
	}
	return Rung{Name: rungTrees, OK: true, Detail: "owners, devices and attributes work in " + dir + "; a step changes a tree in place and has all of it looked at"}
}

func tryTree(parent string, devices bool) (err error) {
	dir, err := os.MkdirTemp(parent, ".manifestctl-probe-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	f := filepath.Join(dir, "f")
	if err := os.WriteFile(f, []byte("x"), 0o755); err != nil {
		return err
	}
	if err := os.Chown(f, 1, 1); err != nil {
		return err
	}
	if err := unix.Setxattr(f, "user.manifestctl.probe", []byte("x"), 0); err != nil {
		return fmt.Errorf("user xattrs: %w", err)
	}
	if devices {
		null := filepath.Join(dir, "null")
		if err := unix.Mknod(null, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
			return fmt.Errorf("mknod: %w", err)
		}
		if err := os.WriteFile(null, []byte("x"), 0); err != nil {
			return fmt.Errorf("a device in the store's file system: %w", err)
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err == nil && fs.Flags&unix.ST_NOEXEC != 0 {
		return fmt.Errorf("%w: mounted noexec", unix.EACCES)
	}
	return nil
}

func (s *server) landlockRung() Rung {
	files, kept := "files, signals", "; files outside of the tree are kept from them by the chroot only"
	if s.swap != nil {
		files, kept = "processes, signals", ", and read their memory where they have no capability that steps lack; nothing keeps mounts and the store from them"
	}
	switch abi := landlockABI(); {
	case abi < landlockRefer:
		return Rung{
			Name: rungLandlock, Err: "ENOSYS: landlock_create_ruleset", Mend: "linux 5.19 or later with Landlock",
			Detail: "steps can signal other processes of this container" + kept,
		}
	case abi < landlockScope:
		return Rung{Name: rungLandlock, OK: true, Detail: "files; steps can signal other processes of this container (linux 6.12 keeps them from that)"}
	}
	return Rung{Name: rungLandlock, OK: true, Detail: files + " and abstract sockets"}
}

func procJailRung() Rung {
	if len(procCalls) == 0 {
		return Rung{Name: rungProc, Err: "ENOSYS: no table of system calls", Detail: "steps have no /proc", Mend: "a user namespace"}
	}
	return Rung{Name: rungProc, OK: true, Detail: "served by a filter: a step's own processes and what says how the machine is; no directory of it can be gone to"}
}

func noNetJailRung() Rung {
	return Rung{Name: rungNoNet, OK: true, Detail: "sockets other than unix ones are refused to the step, the loopback's too"}
}

func (s *server) jailTracerRung() Rung {
	err := s.traceErr
	switch {
	case err != nil:
		return Rung{
			Name: rungPtrace, Detail: "foreign platforms do not run, and what a step leaves outlives this program when it is killed",
			Err: errText(err), Mend: "kernel.yama.ptrace_scope below 2, and no seccomp profile without ptrace",
		}
	case !canTrace:
		return Rung{Name: rungPtrace, Detail: "not there for this machine: foreign platforms do not run", Mend: "a user namespace"}
	}
	return Rung{Name: rungPtrace, OK: true, Detail: "foreign programs run; what a step leaves ends with this program, however it ends"}
}

// rangeFixes give an ordinary user ids.
func rangeFixes() []Fix {
	const ranges = "--add-subuids 100000-165535 --add-subgids 100000-165535"
	return []Fix{{
		Where: "debian, ubuntu", Do: "install uidmap; usermod " + ranges + " USER",
		Script: "sudo apt-get install -y uidmap && sudo usermod " + ranges + ` "$(id -un)"`,
	}}
}
