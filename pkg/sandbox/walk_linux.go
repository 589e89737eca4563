package sandbox

// This file resolves names inside a rootfs. Who is not trusted: the rootfs, whose links may point anywhere, and
// other steps that change a shared cache mount at the same time. Names are therefore walked one component at a time
// by descriptor, links are read and resolved here against the root of the rootfs, and nothing is ever looked up by a
// path of the host.

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symlinks a name may lead through, as in the kernel.
const maxLinks = 40

// stub is something that was made in a rootfs only to mount on it.
type stub struct {
	name   string // clean and relative, without links
	dir    bool
	parent int  // descriptor of the parent directory when that is in another mount; -1 in the rootfs itself
	stays  bool // it is left in the layer; only its parent's time is put back
}

// tree is a rootfs while it is set up.
type tree struct {
	fd    int    // its root, O_PATH
	dev   uint64 // of the overlay's directories
	stubs []stub
	pre   map[string]meta // directories as they were before stubs were made in or below them

	records bool // there is a single uid: other owners are recorded
}

func newTree(fd int) (*tree, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("looking at the rootfs: %w", err)
	}
	return &tree{fd: fd, dev: st.Dev, pre: map[string]meta{}}, nil
}

// want is what is needed at the end of a walk.
type want struct {
	file  bool // a file, else a directory
	stub  bool // what is made is taken away again after the step
	stays bool // or is not, but counts as ours
	uid   int  // owner of the directories that are made
	gid   int
	mode  uint32 // of directories that are made
	exist bool   // make nothing
}

// level is a directory on the way.
type level struct {
	name string
	fd   int
}

// open walks to target and returns a descriptor (O_PATH) of what is there, making what is missing.
func (t *tree) open(target string, w want) (int, error) {
	var stack []level
	top := func() int {
		if len(stack) == 0 {
			return t.fd
		}
		return stack[len(stack)-1].fd
	}
	pop := func() {
		if n := len(stack); n > 0 {
			unix.Close(stack[n-1].fd)
			stack = stack[:n-1]
		}
	}
	here := func() string {
		names := make([]string, 0, len(stack))
		for _, l := range stack {
			names = append(names, l.name)
		}
		return strings.Join(names, "/")
	}
	defer func() {
		for len(stack) > 0 {
			pop()
		}
	}()
	fail := func(err error) (int, error) {
		return -1, fmt.Errorf("%s in the rootfs: %w", target, err)
	}
	rest := strings.Split(target, "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			pop()
			continue
		}
		last := onlyDots(rest)
		child, st, err := t.lookup(top(), name)
		if errors.Is(err, unix.ENOENT) && !w.exist {
			if err := t.make(top(), path.Join(here(), name), name, w.file && last, w); err != nil {
				return fail(err)
			}
			child, st, err = t.lookup(top(), name)
		}
		if err != nil {
			return fail(err)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			text, err := t.readlink(child)
			unix.Close(child)
			if err != nil {
				return fail(err)
			}
			if links++; links > maxLinks {
				return fail(unix.ELOOP)
			}
			if strings.HasPrefix(text, "/") {
				for len(stack) > 0 {
					pop()
				}
			}
			rest = append(strings.Split(text, "/"), rest...)
		case unix.S_IFDIR:
			stack = append(stack, level{name, child})
		default:
			if !last || !w.file {
				unix.Close(child)
				return fail(fmt.Errorf("%w: %w: /%s is not a directory", ErrRootfs, unix.ENOTDIR, path.Join(here(), name)))
			}
			return child, nil
		}
	}
	if w.file {
		return fail(fmt.Errorf("%w: %w", ErrRootfs, unix.EISDIR))
	}
	dup, err := unix.FcntlInt(uintptr(top()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	return dup, nil
}

func onlyDots(rest []string) bool {
	for _, r := range rest {
		if r != "" && r != "." {
			return false
		}
	}
	return true
}

func (t *tree) lookup(dir int, name string) (int, unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, st, err
	}
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}

// readlink reads a link's text. Links of procfs are refused: some lead to what a process holds, not to their text.
func (t *tree) readlink(fd int) (string, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return "", err
	}
	if fs.Type == unix.PROC_SUPER_MAGIC {
		return "", fmt.Errorf("%w: a link of /proc", ErrRootfs)
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// make makes the directory or empty file name in dir; full is its clean name in the rootfs.
func (t *tree) make(dir int, full, name string, file bool, w want) error {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(dir, &fs); err != nil {
		return err
	}
	if fs.Type == unix.PROC_SUPER_MAGIC {
		return fmt.Errorf("%w: nothing can be made in /proc", ErrRootfs)
	}
	s := stub{name: full, dir: !file, parent: -1, stays: w.stays}
	if w.stub {
		if st.Dev != t.dev {
			p, err := unix.FcntlInt(uintptr(dir), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return err
			}
			s.parent = p
		} else if err := t.remember(path.Dir(full)); err != nil {
			return err
		}
	}
	if file {
		fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return fmt.Errorf("making a mount point: %w", err)
		}
		if err := unix.Fchmod(fd, 0o644); err != nil {
			unix.Close(fd)
			return err
		}
		unix.Close(fd)
	} else {
		mode := w.mode
		if mode == 0 {
			mode = 0o755
		}
		if err := unix.Mkdirat(dir, name, mode); err != nil {
			return fmt.Errorf("making a directory: %w", err)
		}
		if w.uid != 0 || w.gid != 0 {
			if err := t.chown(dir, name, w.uid, w.gid); err != nil {
				return fmt.Errorf("making a directory: %w", err)
			}
		}
	}
	if w.stub {
		t.stubs = append(t.stubs, s)
	}
	return nil
}
