package layer

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// lowers looks names up in unpacked layers as overlayfs would merge them.
type lowers struct {
	dirs   []string
	fds    []int // top first
	owners []map[string]Owner
}

func openLowers(dirs []string) (*lowers, error) {
	l := &lowers{dirs: dirs, owners: make([]map[string]Owner, len(dirs))}
	for _, d := range dirs {
		fd, err := openat(unix.AT_FDCWD, d, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			l.close()
			return nil, fmt.Errorf("opening lower directory %q: %w", d, err)
		}
		l.fds = append(l.fds, fd)
	}
	return l, nil
}

func (l *lowers) close() {
	for _, fd := range l.fds {
		unix.Close(fd)
	}
}

// lookup opens (O_PATH) what the merged lowers have at the clean name, of which no parent may be a
// symlink; fd is -1 when there is nothing. layer is which lower it is from.
func (l *lowers) lookup(name string) (fd, layer int, st unix.Stat_t, err error) {
	for i, root := range l.fds {
		fd, st, stop, err := l.lookupIn(root, name)
		if err != nil {
			return -1, 0, st, err
		}
		if fd >= 0 || stop {
			return fd, i, st, nil
		}
	}
	return -1, 0, st, nil
}

// lookupIn looks in one lower. stop says that nothing below shows through.
func (l *lowers) lookupIn(root int, name string) (fd int, st unix.Stat_t, stop bool, err error) {
	if name == "." {
		fd, err = openat(root, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Fstat(fd, &st)
		}
		return fd, st, true, err
	}
	dir := root
	defer func() {
		if dir != root {
			unix.Close(dir)
		}
	}()
	for more := true; more; {
		var c string
		c, name, more = strings.Cut(name, "/")
		f, err := openat(dir, c, pathFlags, 0)
		if err == unix.ENOENT {
			return -1, st, stop, nil
		}
		if err != nil {
			return -1, st, false, err
		}
		if err := unix.Fstat(f, &st); err != nil {
			unix.Close(f)
			return -1, st, false, err
		}
		switch {
		case isWhiteout(&st):
			unix.Close(f)
			return -1, st, true, nil
		case !more:
			return f, st, true, nil
		case !isDirMode(st.Mode):
			unix.Close(f)
			return -1, st, true, nil
		}
		if dir != root {
			unix.Close(dir)
		}
		dir = f
		if isOpaque(f) {
			stop = true
		}
	}
	return -1, st, stop, nil
}

// isOpaque reports whether the directory behind an O_PATH descriptor hides the layers below it.
func isOpaque(fd int) bool {
	d, err := openat(fd, ".", dirFlags, 0)
	if err != nil {
		return false
	}
	defer unix.Close(d)
	v, err := getXattr(d, overlayOpaque)
	return err == nil && v == "y"
}

// owner returns what the sidecar of a lower says about name.
func (l *lowers) owner(layer int, name string) (Owner, bool, error) {
	if l.owners[layer] == nil {
		m, err := ReadOwners(l.dirs[layer])
		if err != nil {
			return Owner{}, false, err
		}
		l.owners[layer] = m
	}
	o, ok := l.owners[layer][name]
	return o, ok, nil
}
