package sandbox

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLowers is OVL_MAX_STACK.
const maxLowers = 500

// fsError carries what the kernel wrote to the context's log.
type fsError struct {
	op  string
	err error
	log string
}

func (e *fsError) Error() string {
	s := e.op + ": " + e.err.Error()
	if e.log != "" {
		s += " (" + e.log + ")"
	}
	return s
}

func (e *fsError) Unwrap() error { return e.err }

// opCreate begins the name of the last call that makes a file system.
const opCreate = "mounting "

// newMount makes a mount that is attached nowhere. Options are "key=value" or "flag".
func newMount(fstype string, attrs int, options ...string) (fd int, err error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, &fsError{op: "fsopen(" + fstype + ")", err: err}
	}
	defer unix.Close(fs)
	for _, o := range options {
		if key, value, ok := strings.Cut(o, "="); ok {
			err = unix.FsconfigSetString(fs, key, value)
		} else {
			err = unix.FsconfigSetFlag(fs, o)
		}
		if err != nil {
			return -1, &fsError{op: "fsconfig(" + fstype + ", " + o + ")", err: err, log: fsLog(fs)}
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, &fsError{op: opCreate + fstype, err: err, log: fsLog(fs)}
	}
	fd, err = unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, &fsError{op: "fsmount(" + fstype + ")", err: err, log: fsLog(fs)}
	}
	return fd, nil
}

// fsLog reads the messages of a file system context ("e overlay: ...").
func fsLog(fs int) string {
	var lines []string
	buf := make([]byte, 1024)
	for range 16 {
		n, err := unix.Read(fs, buf)
		if err != nil || n <= 0 {
			break
		}
		line := strings.TrimSpace(string(buf[:n]))
		if len(line) > 2 && line[1] == ' ' {
			line = line[2:]
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

// attach puts a mount on the file or directory that target is.
func attach(mount, target int) error {
	if err := unix.MoveMount(mount, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	return nil
}

// bind clones the mount tree at path below dir, with attributes set (MOUNT_ATTR_*).
func bind(dir int, path string, attrs uint64) (fd int, err error) {
	fd, err = unix.OpenTree(dir, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|emptyPath(path))
	if err != nil {
		return -1, fmt.Errorf("open_tree: %w", err)
	}
	if attrs != 0 {
		attr := unix.MountAttr{Attr_set: attrs}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("mount_setattr: %w", err)
		}
	}
	return fd, nil
}

func emptyPath(path string) uint {
	if path == "" {
		return unix.AT_EMPTY_PATH
	}
	return 0
}

// newOverlay makes an overlay mount; without upper it is read-only and needs two lowers. Paths are of the host.
func newOverlay(lowers []string, upper, work string) (fd int, err error) {
	opts := make([]string, 0, len(lowers)+4)
	for _, l := range lowers {
		opts = append(opts, "lowerdir+="+l)
	}
	if upper != "" {
		opts = append(opts, "upperdir="+upper, "workdir="+work, "volatile")
	}
	// Without userxattr the mount works and breaks later, at the first opaque directory.
	opts = append(opts, "userxattr")
	return newMount("overlay", 0, opts...)
}

// mountOverlay attaches an overlay at dir. Kernels before 6.8 take the layers only through mount(2).
func mountOverlay(lowers []string, upper, work, dir string) (fd int, err error) {
	for _, p := range append([]string{upper, work}, lowers...) {
		if strings.Contains(p, "\\") { // the kernel would take it as an escape
			return -1, fmt.Errorf("%w: %q has a backslash in its name", ErrHost, p)
		}
	}
	fd, err = newOverlay(lowers, upper, work)
	if err == nil {
		target, err := openDir(dir)
		if err != nil {
			unix.Close(fd)
			return -1, err
		}
		err = attach(fd, target)
		unix.Close(target)
		if err != nil {
			unix.Close(fd)
			return -1, err
		}
		return fd, nil
	}
	if !beforeLowers(err) {
		return -1, err
	}
	if err := oldOverlay(lowers, upper, work, dir); err != nil {
		return -1, err
	}
	return openDir(dir)
}

// beforeLowers reports whether a kernel refused lowerdir+ because it does not know it: from 6.5 on it is the option that is
// refused, before that all of them together.
func beforeLowers(err error) bool {
	var fe *fsError
	return errors.As(err, &fe) && errors.Is(err, unix.EINVAL) && (strings.Contains(fe.op, "lowerdir+") || fe.op == opCreate+"overlay")
}

// oldOverlay mounts with mount(2), whose options may be a page long: names are made short by a change of directory.
// The calling thread must have its own.
func oldOverlay(lowers []string, upper, work, dir string) error {
	base := filepath.Dir(lowers[0])
	for _, l := range append([]string{upper, work}, lowers...) {
		if l == "" {
			continue
		}
		for !strings.HasPrefix(l, base+"/") && base != "/" {
			base = filepath.Dir(base)
		}
	}
	short := func(p string) (string, error) {
		rel, err := filepath.Rel(base, p)
		if err == nil && strings.ContainsAny(rel, ":,\\") {
			err = fmt.Errorf("%w: %q has a colon, comma or backslash in its name", ErrHost, p)
		}
		return rel, err
	}
	var names []string
	for _, l := range lowers {
		rel, err := short(l)
		if err != nil {
			return err
		}
		names = append(names, rel)
	}
	opts := "userxattr,lowerdir=" + strings.Join(names, ":")
	if upper != "" {
		u, err := short(upper)
		if err != nil {
			return err
		}
		w, err := short(work)
		if err != nil {
			return err
		}
		opts += ",upperdir=" + u + ",workdir=" + w + ",volatile"
	}
	if len(opts) >= unix.Getpagesize() {
		return fmt.Errorf("%w: %d layers are too many for this kernel: linux 6.8 or later takes %d", ErrHost, len(lowers), maxLowers)
	}
	if err := unix.Chdir(base); err != nil {
		return fmt.Errorf("changing to %s: %w", base, err)
	}
	if err := unix.Mount("overlay", dir, "overlay", 0, opts); err != nil {
		return fmt.Errorf("mounting overlay: %w", err)
	}
	return nil
}

func openDir(path string) (int, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("opening %s: %w", path, err)
	}
	return fd, nil
}
