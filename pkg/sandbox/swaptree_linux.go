package sandbox

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// This file moves what is in one directory into another, but for what stays, so that a root can be lent (rootswap_linux.go). Every
// directory is opened beneath the one above it without following links.

// kept are the names that stay where they are: those without children with all that is below them, others but for themselves.
type kept map[string]kept

// newKept makes a tree of names, which are absolute.
func newKept(names []string) kept {
	k := kept{swapDir: nil}
	for _, name := range names {
		in, parts := k, strings.Split(strings.Trim(filepath.Clean(name), "/"), "/")
		for i, part := range parts {
			below, ok := in[part]
			if part == "" || ok && below == nil {
				break
			}
			if i == len(parts)-1 {
				in[part] = nil
				break
			}
			if below == nil {
				below = kept{}
				in[part] = below
			}
			in = below
		}
	}
	return k
}

// fits refuses a tree that has something where a name stays, of which a step would then see something else.
func fits(tree int, k kept, at string) error {
	for name, below := range k {
		full := at + "/" + name
		var st unix.Stat_t
		err := unix.Fstatat(tree, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if errors.Is(err, unix.ENOENT) || standIn[full] {
			continue
		}
		if err != nil {
			return fmt.Errorf("looking at %s: %w", full, err)
		}
		dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
		if below != nil {
			if !dir {
				return fmt.Errorf("%w: %s is no directory in the image, and in this container one that %s is mounted in, which has to stay: mount it elsewhere",
					ErrRootfs, full, full+"/"+firstOf(below))
			}
			sub, err := openBeneath(tree, name)
			if err != nil {
				return fmt.Errorf("looking at %s: %w", full, err)
			}
			err = fits(sub, below, full)
			unix.Close(sub)
			if err != nil {
				return err
			}
			continue
		}
		if empty, err := isEmpty(tree, name, &st); err != nil {
			return fmt.Errorf("looking at %s: %w", full, err)
		} else if !empty {
			return fmt.Errorf("%w: the image has something at %s, which in this container is a mount point or the store, and has to stay: mount it elsewhere",
				ErrRootfs, full)
		}
	}
	return nil
}

// standIn are mount points that every step has, here as elsewhere.
var standIn = map[string]bool{
	"/proc": true, "/sys": true, "/dev": true, "/etc/hosts": true, "/etc/resolv.conf": true, "/etc/hostname": true,
}

func firstOf(k kept) string {
	names := make([]string, 0, len(k))
	for name := range k {
		names = append(names, name)
	}
	return slices.Min(names)
}

func isEmpty(dir int, name string, st *unix.Stat_t) (bool, error) {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return st.Size == 0, nil
	case unix.S_IFDIR:
		fd, err := openBeneath(dir, name)
		if err != nil {
			return false, err
		}
		defer unix.Close(fd)
		names, err := namesIn(fd)
		return len(names) == 0, err
	}
	return false, nil
}

// unfinished is a twin that has not got its attributes yet.
const unfinished = ".manifestctl-twin"

// moving is how a tree's entries go from one directory into another; what stays is left where it is.
type moving struct {
	always bool // twins of directories that stay in part are made although nothing would come into them
	back   bool // an unfinished twin is removed; directories that a step moved away are made again
	remove bool // twins go once they are empty
}

// gather moves all that does not stay from one directory into another, and makes of those that stay in part twins there:
// always, or only where there is something to put into them.
func gather(from, to int, k kept, always bool) error {
	return moving{always: always}.entries(from, to, k)
}

// spreadOut moves what is in one directory into another; what lies where a name stays is left behind. The directories that stay in part get
// the attributes of their twins, which go with remove.
func spreadOut(from, to int, k kept, remove bool) error {
	return moving{always: true, back: true, remove: remove}.entries(from, to, k)
}

func (v moving) entries(from, to int, k kept) error {
	m, err := readMeta(from)
	if err != nil {
		return err
	}
	names, err := namesIn(from)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		below, stays := k[name]
		switch {
		case v.back && name == unfinished:
			err = unix.Unlinkat(from, name, unix.AT_REMOVEDIR)
		case !stays:
			err = moveEntry(from, name, to)
		case below != nil:
			err = v.below(from, to, name, below)
		}
		if err != nil {
			return named2(name, err)
		}
	}
	return setMeta(to, m)
}

func (v moving) below(from, to int, name string, k kept) error {
	sub, err := openBeneath(from, name)
	if err != nil {
		return err
	}
	defer unix.Close(sub)
	other, err := openBeneath(to, name)
	if errors.Is(err, unix.ENOENT) { // it has no twin yet, or a step moved it, with the mounts in it
		if !v.always {
			if some, err := hasOthers(sub, k); err != nil || !some {
				return err
			}
		}
		if err := twin(sub, to, name); err != nil {
			return err
		}
		other, err = openBeneath(to, name)
	}
	if err != nil {
		return err
	}
	defer unix.Close(other)
	if err := v.entries(sub, other, k); err != nil || !v.remove {
		return err
	}
	betweenMoves()
	return unix.Unlinkat(from, name, unix.AT_REMOVEDIR)
}

// hasOthers reports whether there is anything in a directory that does not stay.
func hasOthers(dir int, k kept) (bool, error) {
	names, err := namesIn(dir)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		below, stays := k[name]
		if !stays {
			return true, nil
		}
		if below == nil {
			continue
		}
		sub, err := openBeneath(dir, name)
		if err != nil {
			return false, err
		}
		some, err := hasOthers(sub, below)
		unix.Close(sub)
		if some || err != nil {
			return some, err
		}
	}
	return false, nil
}

// twin makes the directory name in to, with all that dir has but what is in it. It is there whole or not at all.
func twin(dir, to int, name string) error {
	betweenMoves()
	if err := unix.Mkdirat(to, unfinished, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	fd, err := openBeneath(to, unfinished)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	m, err := readMeta(dir)
	if err != nil {
		return err
	}
	if err := setMeta(fd, m); err != nil {
		return err
	}
	betweenMoves()
	err = unix.Renameat2(to, unfinished, to, name, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EEXIST) {
		return unix.Unlinkat(to, unfinished, unix.AT_REMOVEDIR)
	}
	return err
}

// named2 puts a name before an error, below those that are there already.
func named2(name string, err error) error {
	var at *entryError
	if errors.As(err, &at) {
		return &entryError{name + "/" + at.name, at.err}
	}
	return &entryError{name, err}
}

type entryError struct {
	name string
	err  error
}

func (e *entryError) Error() string { return "/" + e.name + ": " + e.err.Error() }
func (e *entryError) Unwrap() error { return e.err }

// setMeta gives a directory its attributes. Owners that this process may not give stay as they are.
func setMeta(fd int, m meta) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Uid != m.uid || st.Gid != m.gid {
		if err := unix.Fchown(fd, int(m.uid), int(m.gid)); err != nil && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	if err := unix.Fchmod(fd, m.mode&0o7777); err != nil {
		return err
	}
	have, err := readXattrs(fd)
	if err != nil {
		return err
	}
	for name := range have {
		if _, ok := m.xattrs[name]; !ok && strings.HasPrefix(name, "user.") {
			if err := unix.Fremovexattr(fd, name); err != nil {
				return err
			}
		}
	}
	for name, value := range m.xattrs {
		if have[name] == value || !strings.HasPrefix(name, "user.") {
			continue
		}
		if err := unix.Fsetxattr(fd, name, []byte(value), 0); err != nil {
			return err
		}
	}
	return setMtime(fd, m.mtime)
}

// readDir opens a directory by its name.
func readDir(name string) (int, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("opening %s: %w", name, err)
	}
	return fd, nil
}
