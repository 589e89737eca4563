package layer

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// has reports whether the base has the name in this directory.
func (l *level) has(name string) bool {
	if l.base < 0 {
		return false
	}
	_, err := fstatat(l.base, name)
	return err == nil
}

// gone adds the names of the base that a hidden directory no longer has to those it has, sorted, and says which of all
// they are.
func (d *differ) gone(l *level, names []string) (all []string, gone map[int]bool, err error) {
	if d.o.Before != nil {
		if !d.o.Before.dirAt(l.name) {
			return names, nil, nil
		}
		all, gone = merged(names, d.o.Before.names[l.name])
		return all, gone, nil
	}
	if !l.hidden || l.base < 0 {
		return names, nil, nil
	}
	below, err := baseNames(l.base)
	if err != nil {
		return nil, nil, err
	}
	all, gone = merged(names, below)
	return all, gone, nil
}

// baseNames lists what the base has in a directory.
func baseNames(fd int) ([]string, error) {
	dir, err := openat(fd, ".", dirFlags, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	return readNames(dir)
}

// merged is names and below, sorted, without doubles; gone tells those of below that are not in names.
func merged(names, below []string) (all []string, gone map[int]bool) {
	all = slices.Concat(names, below)
	slices.Sort(all)
	all = slices.Compact(all)
	gone = map[int]bool{}
	for i, n := range all {
		if _, have := slices.BinarySearch(names, n); !have {
			gone[i] = true
		}
	}
	return all, gone
}

// unlessSame writes an entry without data, unless the base has the same.
func (d *differ) unlessSame(e *Entry, st *unix.Stat_t, fd int, base string, in *level) error {
	same, err := d.same(e, st, fd, base, in)
	if err != nil {
		return err
	}
	if same {
		return d.unchanged(e, in)
	}
	if _, err := d.write(e, in); err != nil {
		return err
	}
	return d.written(e)
}

// inBase reads what the base has at name in the directory in; ok is false when there is nothing. Times are in st.
func (d *differ) inBase(name, path string, in *level) (e Entry, st unix.Stat_t, ok bool, err error) {
	if d.o.Before != nil {
		e, st, ok = d.stateOf(path)
		return e, st, ok, nil
	}
	if in.base < 0 {
		return e, st, false, nil
	}
	st, err = fstatat(in.base, name)
	if err == unix.ENOENT || err == unix.ENOTDIR {
		return e, st, false, nil
	}
	if err != nil {
		return e, st, false, err
	}
	e = Entry{Name: path, Mode: int64(st.Mode & 0o7777)}
	var rec Owner
	kind := st.Mode & unix.S_IFMT
	switch kind {
	case unix.S_IFREG, unix.S_IFDIR:
		e.Type, e.Size = tar.TypeReg, st.Size
		if kind == unix.S_IFDIR {
			e.Type, e.Size = tar.TypeDir, 0
		}
		if rec, err = d.baseAttributes(in.base, name, &st, &e); err != nil {
			return e, st, false, err
		}
		if rec.Type != 0 {
			e.Size = 0
			d.device(&e, rec.Type, rec.Rdev)
		}
	case unix.S_IFLNK:
		e.Type = tar.TypeSymlink
		if e.Link, err = readlinkat(in.base, name); err != nil {
			return e, st, false, err
		}
	case unix.S_IFIFO:
		e.Type = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		d.device(&e, kind, uint64(st.Rdev))
	}
	e.UID, e.GID = int(rec.UID), int(rec.GID)
	if d.o.BaseOwners != nil {
		if o, found := d.o.BaseOwners(path); found {
			e.UID, e.GID = int(o.UID), int(o.GID)
			rec = o
		}
	}
	if d.o.Ownership == OwnIDs && (st.Uid != 0 || st.Gid != 0 || rec.UID == 0 && rec.GID == 0) {
		e.UID, e.GID = int(st.Uid), int(st.Gid)
	}
	return e, st, true, nil
}

func (d *differ) baseAttributes(dir int, name string, st *unix.Stat_t, e *Entry) (Owner, error) {
	flags := 0
	if isDirMode(st.Mode) {
		flags = unix.O_DIRECTORY
	}
	fd, err := openat(dir, name, flags|unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err == unix.EACCES {
		return Owner{}, nil // a mode that keeps its owner out: what it says cannot be the same
	}
	if err != nil {
		return Owner{}, err
	}
	defer unix.Close(fd)
	rec, _, err := d.attributes(fd, e)
	return rec, err
}

// same reports whether the base has what e is, with the same time and content; fd is e's when it has data.
func (d *differ) same(e *Entry, st *unix.Stat_t, fd int, base string, in *level) (bool, error) {
	b, bst, ok, err := d.inBase(base, e.Name, in)
	if err != nil || !ok {
		return false, err
	}
	if !sameStat(&b, e) || b.Size != e.Size || bst.Mtim.Sec != st.Mtim.Sec || bst.Mtim.Nsec != st.Mtim.Nsec {
		return false, nil
	}
	if e.Type == tar.TypeSymlink {
		return b.Link == e.Link, nil
	}
	if e.Type != tar.TypeReg || e.Size == 0 || st.Mtim.Nsec != 0 {
		return true, nil
	}
	if d.o.Before != nil {
		return d.sameAs(fd, e.Name)
	}
	return sameBytes(fd, in.base, base)
}

// sameStat compares what BuildKit compares (type, mode, owner, device and capability), and the other attributes that
// layers of ours keep.
func sameStat(a, b *Entry) bool {
	return a.Type == b.Type && a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID && a.Major == b.Major && a.Minor == b.Minor &&
		maps.Equal(a.Xattrs, b.Xattrs)
}

// sameDir reports whether the base has the same directory, whatever its time, and opens it for sub.
func (d *differ) sameDir(e *Entry, base string, in, sub *level) (bool, error) {
	b, _, ok, err := d.inBase(base, e.Name, in)
	if err != nil || !ok || b.Type != tar.TypeDir {
		return false, err
	}
	if d.o.Before != nil {
		return sameStat(&b, e), nil
	}
	if sub.base, err = openat(in.base, base, pathFlags|unix.O_DIRECTORY, 0); err != nil {
		sub.base = -1
		return false, err
	}
	return sameStat(&b, e), nil
}

// sameBytes compares an open file with one of the base.
func sameBytes(fd, dir int, name string) (bool, error) {
	other, err := openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("reading %q of the base: %w", name, err)
	}
	theirs := os.NewFile(uintptr(other), name)
	defer theirs.Close()
	return equalBytes(fd, theirs)
}

// equalBytes compares an open file, from its start, with a reader of as many bytes.
func equalBytes(fd int, theirs io.Reader) (bool, error) {
	a, b := bufPool.Get(), bufPool.Get()
	defer bufPool.Put(a)
	defer bufPool.Put(b)
	for at := int64(0); ; {
		n, err := unix.Pread(fd, *a, at)
		if err != nil {
			return false, err
		}
		m, err := io.ReadFull(theirs, (*b)[:n])
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if n == 0 {
			return true, nil
		}
		if !bytes.Equal((*a)[:n], (*b)[:m]) {
			return false, nil
		}
		at += int64(n)
	}
}
