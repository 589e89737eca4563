package layer

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// link makes a hard link; done is false when its target is missing and may still come.
func (a *applier) link(e *Entry) (done bool, err error) {
	tparent, tbase := splitName(e.Link)
	tfd, treal, err := a.find(tparent, false)
	if err != nil && !isMissing(err) {
		return false, err
	}
	if tfd >= 0 && tfd != a.root {
		defer unix.Close(tfd)
	}
	var st unix.Stat_t
	if err == nil {
		st, err = fstatat(tfd, tbase)
	}
	if err != nil && err != unix.ENOENT {
		return false, err
	}
	if err != nil || a.o.Overlay && isWhiteout(&st) {
		if err == nil || a.low == nil {
			return false, nil
		}
		copied, err := a.copyUp(e.Link)
		if err != nil || !copied {
			return false, err
		}
		return a.link(e)
	}
	if isDirMode(st.Mode) {
		return false, fmt.Errorf("%w: hard link to the directory %q", ErrInvalid, e.Link)
	}
	parent, base := splitName(e.Name)
	d, err := a.parent(parent)
	if err != nil {
		return false, err
	}
	name, target := joinName(d.real, base), joinName(treal, tbase)
	if name == target {
		return true, nil
	}
	a.dropPending(e.Name)
	own, owned := a.owners[target]
	if old, err := fstatat(d.fd, base); err == nil {
		if isDirMode(old.Mode) && under(target, name) {
			return false, fmt.Errorf("%w: hard link replaces the directory that its target %q is in", ErrInvalid, e.Link)
		}
		if err := a.clear(d, base, name); err != nil {
			return false, err
		}
	}
	if err := unix.Linkat(tfd, tbase, d.fd, base, 0); err != nil {
		return false, fmt.Errorf("hard link to %q: %w", e.Link, err)
	}
	a.mark(name)
	if owned {
		a.owners[name] = own
	}
	return true, nil
}

func isMissing(err error) bool { return err == unix.ENOENT }

// copyUp copies a file that only the lowers have into this layer, as overlayfs does before it links one.
func (a *applier) copyUp(name string) (bool, error) {
	if !a.lowersShow(name) {
		return false, nil
	}
	fd, lower, st, err := a.low.lookup(name)
	if err != nil || fd < 0 {
		return false, err
	}
	defer unix.Close(fd)
	parent, base := splitName(name)
	d, err := a.parent(parent)
	if err != nil {
		return false, err
	}
	name = joinName(d.real, base)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		to, err := readlinkat(fd, "")
		if err != nil {
			return false, err
		}
		if err := unix.Symlinkat(to, d.fd, base); err != nil {
			return false, err
		}
		own, ok, err := a.low.owner(lower, name)
		if err != nil {
			return false, err
		}
		if ok {
			a.owners[name] = own
		}
		if a.o.Ownership == OwnIDs {
			if err := unix.Fchownat(d.fd, base, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return false, err
			}
		}
		return true, lutimes(d.fd, base, st.Mtim)
	case unix.S_IFREG:
		return true, a.copyFile(fd, d, base, name, &st)
	case unix.S_IFDIR:
		return false, fmt.Errorf("%w: hard link to the directory %q", ErrInvalid, name)
	}
	return false, fmt.Errorf("%w: hard link to a special file of a lower layer", ErrType)
}

func (a *applier) copyFile(from int, d dirHandle, base, name string, st *unix.Stat_t) error {
	src, err := unix.Open(procFD(from), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	in := os.NewFile(uintptr(src), name)
	defer in.Close()
	fd, err := a.create(d, base, name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	buf := bufPool.Get()
	defer bufPool.Put(buf)
	if _, err := io.CopyBuffer(struct{ io.Writer }{fdWriter(fd)}, struct{ io.Reader }{in}, *buf); err != nil {
		return underlying(err)
	}
	if a.o.Ownership == OwnIDs {
		if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	if err := copyXattrs(fd, src); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, st.Mode&0o7777); err != nil {
		return err
	}
	return futimens(fd, st.Mtim)
}
