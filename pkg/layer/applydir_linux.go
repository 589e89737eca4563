package layer

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// noName is no directory's name.
const noName = "\x00"

func (a *applier) forgetLast() {
	if a.last.fd >= 0 && a.last.fd != a.root {
		unix.Close(a.last.fd)
	}
	a.last = dirHandle{name: noName, fd: -1}
}

// parent opens the directory called name, following symlinks inside the root and making what is missing. The
// handle is valid until the next call.
func (a *applier) parent(name string) (dirHandle, error) {
	if name == a.last.name && a.last.fd >= 0 {
		return a.last, nil
	}
	a.forgetLast()
	fd, real, err := a.find(name, true)
	if err != nil {
		return dirHandle{}, err
	}
	a.last = dirHandle{name: name, real: real, fd: fd}
	return a.last, nil
}

// find opens (O_PATH) the directory called name; the caller closes fd unless it is the root's. Without create what is missing is ENOENT.
func (a *applier) find(name string, create bool) (fd int, real string, err error) {
	if name == "." {
		return a.root, ".", a.touch(a.root, ".")
	}
	fd, err = openBeneath(a.root, name, unix.O_PATH|unix.O_DIRECTORY)
	if err == nil {
		if err := a.touch(fd, name); err != nil {
			unix.Close(fd)
			return -1, "", err
		}
		return fd, name, nil
	}
	return a.walk(name, create)
}

// walk is find by single steps: it follows symlinks as chroot would and makes what is missing.
func (a *applier) walk(name string, create bool) (fd int, real string, err error) {
	fd, real = a.root, "."
	done := func() {
		if fd != a.root {
			unix.Close(fd)
		}
		fd = a.root
	}
	defer func() {
		if err != nil {
			done()
			fd = -1
		}
	}()
	rest := name
	for hops := 0; rest != ""; {
		var c string
		c, rest, _ = strings.Cut(rest, "/")
		rest = strings.TrimLeft(rest, "/")
		switch c {
		case "", ".":
			continue
		case "..":
			up, _ := splitName(real)
			if real == "." {
				continue
			}
			done()
			real = up
			if up != "." {
				f, err := openBeneath(a.root, up, unix.O_PATH|unix.O_DIRECTORY)
				if err != nil {
					return fd, real, err
				}
				fd = f
			}
			continue
		}
		if len(real)+len(c)+1 >= a.s.lim.PathLen {
			return fd, real, fmt.Errorf("%w: following %q: %w", ErrLimit, name, unix.ENAMETOOLONG)
		}
		if err := a.touch(fd, real); err != nil {
			return fd, real, err
		}
		kid, link, err := a.step(fd, c, joinName(real, c), create)
		if err != nil {
			return fd, real, err
		}
		if kid >= 0 {
			done()
			fd, real = kid, joinName(real, c)
			continue
		}
		if hops++; hops > maxHops || len(link)+len(rest) > 1<<16 {
			return fd, real, fmt.Errorf("%w: following %q: %w", ErrInvalid, name, unix.ELOOP)
		}
		if strings.HasPrefix(link, "/") {
			done()
			real = "."
		}
		rest = strings.TrimLeft(link, "/") + "/" + rest
	}
	return fd, real, a.touch(fd, real)
}

// step goes from dir to its entry c: to a directory (kid) or a symlink (link).
func (a *applier) step(dir int, c, name string, create bool) (kid int, link string, err error) {
	for range 8 {
		kid, err = openat(dir, c, pathFlags, 0)
		if err == nil {
			var st unix.Stat_t
			if err := unix.Fstat(kid, &st); err != nil {
				unix.Close(kid)
				return -1, "", err
			}
			switch {
			case isDirMode(st.Mode):
				return kid, "", nil
			case st.Mode&unix.S_IFMT == unix.S_IFLNK:
				link, err := readlinkat(kid, "")
				unix.Close(kid)
				return -1, link, err
			case a.o.Overlay && isWhiteout(&st):
				unix.Close(kid)
				if !create {
					return -1, "", unix.ENOENT
				}
				if err := unlink(dir, c); err != nil {
					return -1, "", err
				}
				if err := a.mkdir(dir, c, name, true); err != nil && err != unix.EEXIST {
					return -1, "", err
				}
				continue
			}
			unix.Close(kid)
			return -1, "", notDir(name)
		}
		if err != unix.ENOENT {
			return -1, "", err
		}
		if !create {
			return -1, "", err
		}
		if err := a.mkdir(dir, c, name, false); err != nil && err != unix.EEXIST {
			return -1, "", err
		}
	}
	return -1, "", unix.EAGAIN
}

// undescribed gives a directory (O_PATH) what one has that no entry describes.
func (a *applier) undescribed(p int, name string) error {
	fd, err := openat(p, ".", dirFlags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := dropXattrs(fd); err != nil {
		return err
	}
	if a.o.Ownership == OwnIDs {
		if err := unix.Fchown(fd, a.rootUID(), a.rootGID()); err != nil {
			return err
		}
	}
	a.dirs[name] = &dirState{mode: 0o755, setMode: true}
	a.mark(name)
	return nil
}

// mkdir makes a directory that no entry describes. hides: it stands where this layer deletes something.
func (a *applier) mkdir(dir int, c, name string, hides bool) error {
	if err := unix.Mkdirat(dir, c, 0o700); err != nil {
		return err
	}
	if a.o.Ownership == OwnIDs {
		if err := unix.Fchownat(dir, c, a.rootUID(), a.rootGID(), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	a.dirs[name] = &dirState{mode: 0o755, setMode: true}
	a.mark(name)
	if hides {
		return a.setOpaque(dir, c)
	}
	return nil
}

// rootUID is the owner of what nobody owns: 0, or who we are when we could not give it away.
func (a *applier) rootUID() int {
	if a.super {
		return 0
	}
	return unix.Geteuid()
}

func (a *applier) rootGID() int {
	if a.super {
		return 0
	}
	return unix.Getegid()
}

// setOpaque marks a directory of this layer as hiding what is below it.
func (a *applier) setOpaque(dir int, c string) error {
	if !a.o.Overlay {
		return nil
	}
	fd, err := openat(dir, c, dirFlags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fsetxattr(fd, overlayOpaque, []byte("y"), 0); err != nil {
		return fmt.Errorf("marking a directory opaque: %w", err)
	}
	return nil
}

// touch remembers a directory before it changes: its time, and its mode when that keeps us out.
func (a *applier) touch(fd int, name string) error {
	if a.dirs[name] != nil {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	d := &dirState{mode: st.Mode & 0o7777, time: st.Mtim}
	if !a.super && st.Mode&0o700 != 0o700 {
		p, err := openat(fd, ".", pathFlags|unix.O_DIRECTORY, 0)
		if err == unix.EACCES { // no permission to search itself
			p, err = fd, chmodFD(fd, 0o700)
		}
		if err == nil {
			err = chmodFD(p, 0o700)
		}
		if p != fd && p >= 0 {
			unix.Close(p)
		}
		if err != nil {
			return err
		}
		d.setMode = true
	}
	a.dirs[name] = d
	return nil
}
