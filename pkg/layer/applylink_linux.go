package layer

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// link makes a hard link; done is false when its target is missing and may still come.
func (a *applier) link(e *Entry) (done bool, err error) {
	tparent, tbase := splitName(e.Link)
	tfd, treal, err := a.find(tparent, false)
	if err != nil && err != unix.ENOENT {
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
		return false, nil
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
	if e == &a.s.cur {
		a.dropPending(e.Name)
	}
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
