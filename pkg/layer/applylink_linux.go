package layer

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// link makes a hard link. done is false when its target may still come: one to something that is not this
// layer's waits until all of the layer is there (last).
func (a *applier) link(e *Entry, last bool) (done bool, err error) {
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
	if err != nil || a.o.Overlay && isWhiteout(&st) || !last && a.made != nil && !a.made[joinName(treal, tbase)] {
		return false, nil
	}
	if isDirMode(st.Mode) {
		if !last {
			return false, nil
		}
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
	if !last {
		a.dropPending(e.Name)
	}
	own, owned := a.owners[target]
	err = unix.Linkat(tfd, tbase, d.fd, base, 0)
	if err == unix.EEXIST {
		// What is there may be a directory with the target in it: the link is made aside first.
		const aside = ".manifestctl-link"
		if err = unix.Linkat(tfd, tbase, d.fd, aside, 0); err == nil {
			if err = a.clear(d, base, name); err == nil {
				err = unix.Renameat(d.fd, aside, d.fd, base)
			}
		}
	}
	if err != nil {
		return false, fmt.Errorf("hard link to %q: %w", e.Link, err)
	}
	a.mark(name)
	if owned {
		a.owners[name] = own
	}
	return true, nil
}
