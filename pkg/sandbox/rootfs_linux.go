package sandbox

// This file mounts what every step sees besides its rootfs: /proc, /dev, /sys. In mode root the step's root is the
// host's root id, so files of /proc and /sys that trust that id are read-only or hidden, as container runtimes do it.

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/sandbox/firstproc"
)

const (
	attrProc = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	attrRO   = unix.MOUNT_ATTR_RDONLY
)

// devices are what /dev has, with their numbers (Documentation/admin-guide/devices.txt).
var devices = []struct {
	name         string
	major, minor uint32
	optional     bool
}{
	{"null", 1, 3, false},
	{"zero", 1, 5, false},
	{"full", 1, 7, false},
	{"random", 1, 8, false},
	{"urandom", 1, 9, false},
	{"tty", 5, 0, true}, // absent where the machine has no consoles
}

// deviceLinks are the symlinks in /dev.
var deviceLinks = [][2]string{
	{"fd", "/proc/self/fd"},
	{"stdin", "/proc/self/fd/0"},
	{"stdout", "/proc/self/fd/1"},
	{"stderr", "/proc/self/fd/2"},
	{"ptmx", "pts/ptmx"},
}

// hidden are files and directories of /proc and /sys that a step has no business with; below readOnly nothing can be written.
var (
	hiddenProc = []string{
		"acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats",
	}
	readOnlyProc = []string{"bus", "fs", "irq", "sys", "sysrq-trigger"}
	hiddenSys    = []string{
		"devices/virtual/powercap", "firmware", "fs/bpf", "fs/fuse/connections", "fs/pstore", "kernel/config",
		"kernel/debug", "kernel/security", "kernel/tracing",
	}
)

// system mounts /proc, /dev and /sys. ownProc says that there is a procfs of the step's pid namespace; empty is an empty directory, null a descriptor of the host's /dev/null.
func (t *tree) system(hostNet, ownProc bool, mapped int64, empty, null int) error {
	if err := t.mountProc(ownProc, empty, null); err != nil {
		return err
	}
	if err := t.mountDev(mapped); err != nil {
		return err
	}
	return t.mountSys(hostNet, empty, null)
}

// standard opens one of the directories that every rootfs gets. It must be a directory of the rootfs itself: what an
// image puts in its place (a link, a file) would have everything that follows done somewhere else.
func (t *tree) standard(name string) (int, error) {
	var st unix.Stat_t
	err := unix.Fstatat(t.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return -1, fmt.Errorf("%w: /%s is not a directory", ErrRootfs, name)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return -1, fmt.Errorf("looking at /%s of the rootfs: %w", name, err)
	}
	return t.open(name, want{stub: true, stays: true})
}

func (t *tree) mountProc(own bool, empty, null int) error {
	target, err := t.standard("proc")
	if err != nil {
		return err
	}
	defer unix.Close(target)
	// Where the kernel refused one for the step's pid namespace, because the host's /proc is partly covered (a
	// container's default), it is the host's: /proc/self is right there too, other numbers are not.
	from, attrs := "/proc", uint64(attrProc)
	if own {
		from, attrs = firstproc.HoldDir, 0 // it has them, and is covered (coverOwnProc)
	}
	proc, err := bind(unix.AT_FDCWD, from, attrs)
	if err != nil {
		return fmt.Errorf("%w: /proc: %w", ErrHost, err)
	}
	defer unix.Close(proc)
	if err := attach(proc, target); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	if own {
		return nil
	}
	return coverProc(proc, bindOf(empty), null)
}

// coverOwnProc covers the procfs of the steps' pid namespace once, where the agent holds it: steps get a copy with all that is on it.
func coverOwnProc() error {
	proc, err := openDir(firstproc.HoldDir)
	if err != nil {
		return err
	}
	defer unix.Close(proc)
	null, err := unix.Open("/dev/null", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%w: /dev/null: %w", ErrHost, err)
	}
	defer unix.Close(null)
	return coverProc(proc, func() (int, error) { return newMount("ramfs", attrProc|attrRO) }, null)
}

// coverProc hides and freezes what steps have no business with.
func coverProc(proc int, empty func() (int, error), null int) error {
	if err := hide(proc, hiddenProc, empty, null); err != nil {
		return fmt.Errorf("hiding files of /proc: %w", err)
	}
	for _, name := range readOnlyProc {
		if err := freeze(proc, name); err != nil {
			return fmt.Errorf("making /proc/%s read-only: %w", name, err)
		}
	}
	return nil
}

// bindOf makes read-only mounts of what is open as fd.
func bindOf(fd int) func() (int, error) {
	return func() (int, error) { return bind(fd, "", attrRO) }
}

// hide covers names below dir: directories with an empty one, files with the null device. Absent ones need nothing.
func hide(dir int, names []string, empty func() (int, error), null int) error {
	for _, name := range names {
		target, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		err = unix.Fstat(target, &st)
		if err == nil {
			cover := bindOf(null)
			if st.Mode&unix.S_IFMT == unix.S_IFDIR {
				cover = empty
			}
			var m int
			if m, err = cover(); err == nil {
				err = attach(m, target)
				unix.Close(m)
			}
		}
		unix.Close(target)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// freeze binds a name onto itself, read-only.
func freeze(dir int, name string) error {
	m, err := bind(dir, name, attrProc|attrRO)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(m)
	target, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return attach(m, target)
}

func (t *tree) mountDev(mapped int64) error {
	target, err := t.standard("dev")
	if err != nil {
		return err
	}
	defer unix.Close(target)
	dev, err := newMount("tmpfs", unix.MOUNT_ATTR_NOSUID, "mode=755", "size=64m", "source=tmpfs")
	if err != nil {
		return fmt.Errorf("%w: /dev: %w", ErrHost, err)
	}
	defer unix.Close(dev)
	if err := attach(dev, target); err != nil {
		return fmt.Errorf("mounting /dev: %w", err)
	}
	for _, d := range devices {
		if err := device(dev, d.name, unix.Mkdev(d.major, d.minor)); err != nil {
			if d.optional && errors.Is(err, unix.ENOENT) {
				continue
			}
			return fmt.Errorf("making /dev/%s: %w", d.name, err)
		}
	}
	for _, l := range deviceLinks {
		if err := unix.Symlinkat(l[1], dev, l[0]); err != nil {
			return fmt.Errorf("making /dev/%s: %w", l[0], err)
		}
	}
	pts := []string{"newinstance", "ptmxmode=0666", "mode=0620", "source=devpts"}
	if mapped > 5 {
		pts = append(pts, "gid=5") // tty, in every distribution
	}
	for _, m := range []struct {
		name, fstype string
		attrs        int
		options      []string
	}{
		{"pts", "devpts", unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC, pts},
		{"shm", "tmpfs", attrProc, []string{"mode=1777", "size=64m", "source=shm"}},
		{"mqueue", "mqueue", attrProc, []string{"source=mqueue"}},
	} {
		if err := devMount(dev, m.name, m.fstype, m.attrs, m.options); err != nil {
			if m.name == "mqueue" && errors.Is(err, unix.ENODEV) { // a kernel without POSIX queues
				continue
			}
			return fmt.Errorf("%w: /dev/%s: %w", ErrHost, m.name, err)
		}
	}
	return nil
}

// addEmulators puts the emulators that a tracer executes into /dev.
func (t *tree) addEmulators(emulators []emulator) error {
	dev, err := unix.Openat(t.fd, "dev", unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening /dev: %w", err)
	}
	defer unix.Close(dev)
	for _, e := range emulators {
		m, err := bind(unix.AT_FDCWD, e.Path, attrRO|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
		if err != nil {
			return fmt.Errorf("%w: emulator %s: %w", ErrHost, e.Path, err)
		}
		fd, err := unix.Openat(dev, e.name(), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o755)
		if err == nil {
			err = attach(m, fd)
			unix.Close(fd)
		}
		unix.Close(m)
		if err != nil {
			return fmt.Errorf("%w: emulator %s: %w", ErrHost, e.Path, err)
		}
	}
	return nil
}

func devMount(dev int, name, fstype string, attrs int, options []string) error {
	m, err := newMount(fstype, attrs, options...)
	if err != nil {
		return err
	}
	defer unix.Close(m)
	if err := unix.Mkdirat(dev, name, 0o755); err != nil {
		return err
	}
	target, err := unix.Openat(dev, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	return attach(m, target)
}

// device binds the host's device, once it is sure that it is the right one.
func device(dev int, name string, want uint64) error {
	m, err := bind(unix.AT_FDCWD, "/dev/"+name, 0)
	if err != nil {
		return err
	}
	defer unix.Close(m)
	var st unix.Stat_t
	if err := unix.Fstat(m, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != want {
		return fmt.Errorf("%w: the host's /dev/%s is not the device of that name: mknod -m 666 /dev/%s c %d %d",
			ErrHost, name, name, unix.Major(want), unix.Minor(want))
	}
	fd, err := unix.Openat(dev, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o666)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return attach(m, fd)
}

// mountSys mounts a sysfs of the own network namespace, or shows the host's: of another's network none can be made.
func (t *tree) mountSys(hostNet bool, empty, null int) error {
	target, err := t.standard("sys")
	if err != nil {
		return err
	}
	defer unix.Close(target)
	sys := -1
	if !hostNet {
		sys, err = newMount("sysfs", attrProc|attrRO)
	}
	if sys < 0 {
		sys, err = bind(unix.AT_FDCWD, "/sys", attrProc|attrRO)
	}
	if err != nil {
		return fmt.Errorf("%w: /sys: %w", ErrHost, err)
	}
	defer unix.Close(sys)
	if err := attach(sys, target); err != nil {
		return fmt.Errorf("mounting /sys: %w", err)
	}
	if err := hide(sys, hiddenSys, bindOf(empty), null); err != nil {
		return fmt.Errorf("hiding files of /sys: %w", err)
	}
	return nil
}
