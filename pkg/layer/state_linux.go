package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// State is what a whole tree was like at one moment: everything that a layer would say of it, but for the bytes of
// files, and what tells whether a file was touched since. [Diff] makes the layer of a tree that was changed in place
// with it (DiffOptions.Before).
//
// A file counts as untouched when its number, kind, size, owner, links, time of content and time of change are as they
// were. The last cannot be set by anybody: of what else is looked at, each was seen to miss changes (mtimes that are put
// back, capabilities, attributes).
type State struct {
	read  time.Time
	files map[string]fileState
	names map[string][]string // of directories, sorted
}

// fileState is one file of a State.
type fileState struct {
	entry Entry
	st    unix.Stat_t
}

// coarse is how far two times of change of a kernel with coarse clocks may lie apart and look the same (a tick, 1 to 10 ms): a
// file that changed that shortly before the state was read may change again without showing it.
const coarse = 10 * time.Millisecond

// ReadState reads the state of the tree at dir, which has owners as own says. Nobody may change it meanwhile.
//
// Files of several names become as many files: an overlay, which layers are defined by, has a change through one
// name of a lower file show through that name only.
func ReadState(ctx context.Context, dir string, own Ownership) (*State, error) {
	fd, err := openat(unix.AT_FDCWD, dir, dirFlags, 0)
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", dir, err)
	}
	defer unix.Close(fd)
	owners, err := ReadOwners(dir)
	if err != nil {
		return nil, err
	}
	r := &stateReader{
		d: &differ{
			ctx: ctx, euid: uint32(unix.Geteuid()), names: make([]byte, 4096),
			o: DiffOptions{Ownership: own, BaseOwners: func(name string) (Owner, bool) { o, ok := owners[name]; return o, ok }},
		},
		s: &State{files: map[string]fileState{}, names: map[string][]string{}},
	}
	if err := r.dir(fd, "."); err != nil {
		return nil, err
	}
	// What changes from now on is seen to have changed.
	if r.s.read = stateClock(); !r.newest.Before(r.s.read.Add(-coarse)) {
		time.Sleep(coarse + coarse/2)
		r.s.read = stateClock()
	}
	return r.s, nil
}

// stateClock is the time that files get: the kernel's, coarse.
func stateClock() time.Time {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &ts); err != nil {
		return time.Time{} // everything counts as touched
	}
	return time.Unix(int64(ts.Sec), int64(ts.Nsec))
}

type stateReader struct {
	d      *differ
	s      *State
	newest time.Time // change of all files
}

func (r *stateReader) dir(fd int, name string) error {
	if err := context.Cause(r.d.ctx); err != nil {
		return err
	}
	var before unix.Stat_t
	if err := unix.Fstat(fd, &before); err != nil {
		return r.d.fail(name, err)
	}
	names, err := readNames(fd)
	if err != nil {
		return fmt.Errorf("listing %q: %w", name, err)
	}
	r.s.names[name] = names
	in := &level{name: name, base: fd}
	parted := false
	for _, base := range names {
		path := joinName(name, base)
		st, err := fstatat(fd, base)
		if err != nil {
			return r.d.fail(path, err)
		}
		if st.Nlink > 1 && st.Mode&unix.S_IFMT == unix.S_IFREG {
			if err := part(fd, base, &st); err != nil {
				return r.d.fail(path, fmt.Errorf("giving it an inode of its own: %w", err))
			}
			parted = true
		}
		e, st, ok, err := r.d.inBase(base, path, in)
		if err != nil {
			return r.d.fail(path, err)
		}
		if !ok {
			return r.d.fail(path, ErrChanged)
		}
		r.s.files[path] = fileState{e, st}
		if c := changed(&st); c.After(r.newest) {
			r.newest = c
		}
		if e.Type != tar.TypeDir {
			continue
		}
		sub, err := openat(fd, base, dirFlags, 0)
		if err != nil {
			return r.d.fail(path, err)
		}
		err = r.dir(sub, path)
		unix.Close(sub)
		if err != nil {
			return err
		}
	}
	if parted {
		if err := futimens(fd, before.Mtim); err != nil {
			return r.d.fail(name, err)
		}
	}
	return nil
}

// part gives one of the names of a file a file of its own, with all that the other has.
func part(dir int, base string, st *unix.Stat_t) (err error) {
	from, err := openat(dir, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	tmp := fmt.Sprintf(".manifestctl-%d-%d", unix.Getpid(), st.Ino)
	to, err := openat(dir, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, unix.Close(to))
		if err != nil {
			_ = unix.Unlinkat(dir, tmp, 0)
		}
	}()
	if err := copyBytes(from, to); err != nil {
		return err
	}
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	names, err := listXattrs(from, make([]byte, 4096))
	if err != nil {
		return err
	}
	for _, n := range names { // after the owner, whose change drops capabilities
		if imageXattr(n) == "" && n != OwnerXattr {
			continue
		}
		v, err := getXattr(from, n)
		if err != nil {
			return err
		}
		if err := unix.Fsetxattr(to, n, []byte(v), 0); err != nil {
			return err
		}
	}
	if err := unix.UtimesNanoAt(dir, tmp, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	return unix.Renameat(dir, tmp, dir, base)
}

// copyBytes copies a file, sharing what the file system can share.
func copyBytes(from, to int) error {
	if unix.IoctlFileClone(to, from) == nil {
		return nil
	}
	dup := func(fd int) (*os.File, error) {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(n), "file"), nil
	}
	src, err := dup(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := dup(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src) // copy_file_range, or read and write where that is refused
	return errors.Join(underlying(err), dst.Close())
}

// untouched reports whether nothing happened to a file since the state was read.
func (s *State) untouched(name string, st *unix.Stat_t) bool {
	was, ok := s.files[name]
	if !ok {
		return false
	}
	w := &was.st
	if w.Ino != st.Ino || w.Dev != st.Dev || w.Mode != st.Mode || w.Uid != st.Uid || w.Gid != st.Gid || w.Size != st.Size ||
		w.Rdev != st.Rdev || w.Nlink != st.Nlink || w.Mtim != st.Mtim || w.Ctim != st.Ctim {
		return false
	}
	return changed(st).Before(s.read.Add(-coarse))
}

func changed(st *unix.Stat_t) time.Time { return time.Unix(int64(st.Ctim.Sec), int64(st.Ctim.Nsec)) }

// sameAs compares an open file with what content says it was.
func (d *differ) sameAs(fd int, name string) (bool, error) {
	if d.o.Content == nil {
		return false, nil
	}
	r, err := d.o.Content(name)
	if err != nil {
		return false, fmt.Errorf("reading %q as it was: %w", name, err)
	}
	same, err := equalBytes(fd, r)
	return same, errors.Join(err, r.Close())
}

// stateOf is inBase for a tree that was changed in place.
func (d *differ) stateOf(path string) (e Entry, st unix.Stat_t, ok bool) {
	was, ok := d.o.Before.files[path]
	return was.entry, was.st, ok
}

// dirAt reports whether there was a directory of that name.
func (s *State) dirAt(name string) bool {
	return name == "." || s.files[name].entry.Type == tar.TypeDir
}
