package layer

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// maxRemoveDepth is how many directories removeTree keeps open. What is deeper is first moved up.
const maxRemoveDepth = 100

// removeTree deletes name in dir and all below it.
func removeTree(dir int, name string) error {
	if err := unlink(dir, name); err != errIsDir {
		return err
	}
	r := remover{top: -1}
	return r.remove(dir, name, 0)
}

var errIsDir = unix.EISDIR

// unlink deletes what is no directory; errIsDir when it is one. Nothing there is no error.
func unlink(dir int, name string) error {
	err := unix.Unlinkat(dir, name, 0)
	switch err {
	case nil, unix.ENOENT:
		return nil
	case unix.EISDIR:
		return errIsDir
	case unix.EPERM, unix.EACCES: // EPERM is what POSIX says for a directory
		st, serr := fstatat(dir, name)
		if serr == nil && isDirMode(st.Mode) {
			return errIsDir
		}
	}
	return err
}

type remover struct {
	top   int // directory that deep ones are moved to
	moved int
}

func (r *remover) remove(dir int, name string, depth int) error {
	if unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) == nil {
		return nil
	}
	fd, err := openForRemoval(dir, name)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if r.top < 0 {
		r.top = fd
		defer func() { r.top = -1 }()
	}
	// The list may change while it is read: what was moved up, and what others do.
	for range 1 << 20 {
		names, err := readNames(fd)
		if err != nil {
			return err
		}
		for _, n := range names {
			err := unlink(fd, n)
			if err == errIsDir {
				if depth >= maxRemoveDepth {
					r.moved++
					if unix.Unlinkat(fd, n, unix.AT_REMOVEDIR) == nil {
						continue
					}
					err = r.moveUp(fd, n)
				} else {
					err = r.remove(fd, n, depth+1)
				}
			}
			if err != nil {
				return err
			}
		}
		switch err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err {
		case nil, unix.ENOENT:
			return nil
		case unix.ENOTEMPTY, unix.EEXIST:
		default:
			return err
		}
	}
	return unix.ENOTEMPTY
}

// moveUp renames a deep directory to the top of the tree, where it is found again.
func (r *remover) moveUp(dir int, name string) error {
	to := ".manifestctl-rm-" + strconv.Itoa(r.moved)
	err := unix.Renameat(dir, name, r.top, to)
	if err == unix.EACCES { // a directory that moves is written to
		fd, oerr := openForRemoval(dir, name)
		if oerr != nil {
			return oerr
		}
		unix.Close(fd)
		err = unix.Renameat(dir, name, r.top, to)
	}
	return err
}

// openForRemoval opens a directory, giving ourselves the permission to empty it.
func openForRemoval(dir int, name string) (int, error) {
	p, err := openat(dir, name, pathFlags|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(p)
	var st unix.Stat_t
	if err := unix.Fstat(p, &st); err != nil {
		return -1, err
	}
	if st.Mode&0o700 != 0o700 {
		if err := chmodFD(p, 0o700); err != nil && err != unix.EPERM {
			return -1, err
		}
	}
	return openat(p, ".", dirFlags, 0)
}
