package layer

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// whiteout deletes name of the layers below; what this layer itself put there stays.
func (a *applier) whiteout(d dirHandle, base, name string) error {
	st, err := fstatat(d.fd, base)
	if err != nil && err != unix.ENOENT {
		return err
	}
	missing := err == unix.ENOENT
	if !a.o.Overlay {
		a.hold(d.real)
		if missing {
			return nil
		}
		return a.prune(d.fd, base, name, st.Mode)
	}
	switch {
	case missing:
		if err := unix.Mknodat(d.fd, base, unix.S_IFCHR, 0); err != nil {
			return fmt.Errorf("making an overlay whiteout: %w", err)
		}
	case isDirMode(st.Mode):
		// The directory is this layer's: it hides the one that is deleted.
		if err := a.setOpaque(d.fd, base); err != nil {
			return err
		}
	}
	return nil
}

// opaque hides what the layers below have in the directory name.
func (a *applier) opaque(name string) error {
	d, err := a.parent(name)
	if err != nil {
		return err
	}
	if !a.o.Overlay {
		a.hold(d.real)
		return a.pruneDir(d.fd, d.real)
	}
	return a.setOpaque(d.fd, ".")
}

// prune deletes what earlier layers put at base in dir and below.
func (a *applier) prune(dir int, base, name string, mode uint32) error {
	mine, holds := a.made[name]
	if !holds {
		if err := a.clear(dirHandle{fd: dir}, base, name); err != nil {
			return err
		}
		return nil
	}
	if !isDirMode(mode) {
		return nil
	}
	p, err := openat(dir, base, pathFlags|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(p)
	if err := a.touch(p, name); err != nil {
		return err
	}
	if err := a.pruneDir(p, name); err != nil || mine {
		return err
	}
	// Only its contents are this layer's: it is as if nobody had described it.
	return a.undescribed(p, name)
}

// pruneDir is prune for each name in a directory (O_PATH).
func (a *applier) pruneDir(fd int, name string) error {
	names, err := readNames(fd)
	if err != nil {
		return err
	}
	for _, n := range names {
		st, err := fstatat(fd, n)
		if err == unix.ENOENT {
			continue
		}
		if err != nil {
			return err
		}
		if err := a.prune(fd, n, joinName(name, n), st.Mode); err != nil {
			return err
		}
	}
	return nil
}
