package layer

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// Diff writes the layer that an overlay upper directory is: whiteouts and opaque markers translated,
// hard links kept, sockets left out, capabilities and user xattrs kept, overlay's and ours dropped. Owners
// and devices come back from where Apply and the executor recorded them. The root itself is no part of it.
//
// A file that changes its size while it is read is ErrChanged. Reading does not block on
// fifos or devices, and permissions that keep an owner out are lifted for the moment.
func Diff(ctx context.Context, upper string, w io.Writer, o DiffOptions) error {
	switch o.Ownership {
	case OwnIDs, OwnXattr:
	default:
		return fmt.Errorf("ownership %q: %w", o.Ownership, unix.EINVAL)
	}
	fd, err := openat(unix.AT_FDCWD, upper, dirFlags, 0)
	if err != nil {
		return fmt.Errorf("reading %q: %w", upper, err)
	}
	defer unix.Close(fd)
	owners, err := ReadOwners(upper)
	if err != nil {
		return err
	}
	d := &differ{
		ctx: ctx, o: o, tw: newTarWriter(w), owners: owners, euid: uint32(unix.Geteuid()),
		links: map[inodeKey]*linked{}, names: make([]byte, 4096),
	}
	top := level{name: ".", base: -1, written: true, hidden: o.Before != nil}
	if o.Base != nil {
		top.base = int(o.Base.Fd())
	}
	if err := d.dir(fd, &top); err != nil {
		return err
	}
	return d.tw.close()
}

// inodeKey identifies a file while nobody changes the tree.
type inodeKey struct{ dev, ino uint64 }

type differ struct {
	ctx    context.Context //nolint:containedctx // lives as long as Diff
	o      DiffOptions
	tw     *tarWriter
	owners map[string]Owner
	euid   uint32
	links  map[inodeKey]*linked // files with several names
	names  []byte               // for lists of attributes
	cur    Entry
	key    inodeKey // cur's, where it may have other names; else zero
}

// linked is what is known of a file with several names.
type linked struct {
	first   *Entry   // the name that was written; nil: none yet
	waiting []*Entry // as in the base, in directories that hide it: links to first once there is one
	in      []*level // where those are
}

// level is a directory that is being written.
type level struct {
	name    string
	up      *level
	entry   Entry
	written bool
	base    int  // what the base has there, a directory; -1: nothing
	hidden  bool // the upper does not show what the base has in it
}

// write puts out an entry, after the directories above it that were held back; the next of a file's names as a link to the first. data says
// that content has to follow.
func (d *differ) write(e *Entry, in *level) (data bool, err error) {
	if err := d.parents(in); err != nil {
		return false, err
	}
	l := d.links[d.key]
	if d.key == (inodeKey{}) || l == nil || l.first == nil {
		return e.Type == tar.TypeReg, d.tw.header(e)
	}
	return false, d.tw.header(linkTo(l.first, e))
}

// linkTo makes a link of an entry.
func linkTo(first, e *Entry) *Entry {
	e.Type, e.Link, e.Size, e.UID, e.GID, e.Xattrs = tar.TypeLink, first.Name, 0, first.UID, first.GID, first.Xattrs
	return e
}

// written remembers the first name of a file, and writes those that waited for it.
func (d *differ) written(e *Entry) error {
	if d.key == (inodeKey{}) || e.Type == tar.TypeLink {
		return nil
	}
	l := d.links[d.key]
	if l == nil {
		l = &linked{}
		d.links[d.key] = l
	}
	l.first = &Entry{Name: e.Name, UID: e.UID, GID: e.GID, Xattrs: e.Xattrs}
	for i, other := range l.waiting {
		if err := d.parents(l.in[i]); err != nil {
			return err
		}
		if err := d.tw.header(linkTo(l.first, other)); err != nil {
			return err
		}
	}
	l.waiting, l.in = nil, nil
	return nil
}

// unchanged leaves out what is as in the base. BuildKit compares a directory that hides what is below it in another way than others,
// and there a name stays one of a file that has others in the layer.
func (d *differ) unchanged(e *Entry, in *level) error {
	if d.key == (inodeKey{}) || !in.hidden || d.o.Before != nil {
		return nil
	}
	l := d.links[d.key]
	if l != nil && l.first != nil {
		_, err := d.write(e, in)
		return err
	}
	if l == nil {
		l = &linked{}
		d.links[d.key] = l
	}
	own := *e
	l.waiting, l.in = append(l.waiting, &own), append(l.in, in)
	return nil
}

func (d *differ) parents(in *level) error {
	if in.written {
		return nil
	}
	if err := d.parents(in.up); err != nil {
		return err
	}
	in.written = true
	return d.tw.header(&in.entry)
}

// dir writes what is in the directory fd, sorted.
func (d *differ) dir(fd int, in *level) error {
	if err := context.Cause(d.ctx); err != nil {
		return err
	}
	name := in.name
	names, err := readNames(fd)
	if err != nil {
		return fmt.Errorf("listing %q: %w", name, err)
	}
	names, gone, err := d.gone(in, names)
	if err != nil {
		return fmt.Errorf("listing what is below %q: %w", name, err)
	}
	for i, base := range names {
		if gone[i] {
			if err := d.parents(in); err != nil {
				return err
			}
			if err := d.tw.whiteout(joinName(name, base)); err != nil {
				return err
			}
			continue
		}
		path := joinName(name, base)
		if d.o.Skip[path] {
			continue
		}
		if len(path) >= defaultPathLen {
			return &EntryError{Name: path, Offset: -1, Err: fmt.Errorf("name of %d bytes: %w: %w", len(path), ErrLimit, unix.ENAMETOOLONG)}
		}
		if err := d.entry(fd, base, path, in); err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) fail(name string, err error) error {
	return &EntryError{Name: name, Offset: -1, Err: err}
}

func (d *differ) entry(dir int, base, name string, in *level) error {
	st, err := fstatat(dir, base)
	if err != nil {
		return d.fail(name, err)
	}
	if d.o.Before != nil {
		if st.Mode&unix.S_IFMT != unix.S_IFDIR && d.o.Before.untouched(name, &st) {
			return nil
		}
	} else if isWhiteout(&st) { // they share one inode, so this comes before hard links
		if d.o.Base != nil && !in.has(base) {
			return nil
		}
		if err := d.parents(in); err != nil {
			return err
		}
		return d.tw.whiteout(name)
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFSOCK {
		return nil
	}
	if err := checkNotWhiteout(base); err != nil {
		return d.fail(name, err)
	}
	d.cur = Entry{Name: name, Mode: int64(st.Mode & 0o7777), ModTime: d.time(name, &st)}
	d.key = inodeKey{}
	if st.Nlink > 1 && kind != unix.S_IFDIR {
		d.key = inodeKey{uint64(st.Dev), uint64(st.Ino)}
		if l := d.links[d.key]; l != nil && l.first != nil && d.o.Before == nil && in.base < 0 { // nothing to compare with
			_, err := d.write(&d.cur, in)
			return err
		}
	}
	return d.inode(dir, base, &st, in)
}

// inode writes what is there, unless the base has the same.
func (d *differ) inode(dir int, base string, st *unix.Stat_t, in *level) (err error) {
	e := &d.cur
	name, kind := e.Name, st.Mode&unix.S_IFMT
	switch kind {
	case unix.S_IFREG:
		return d.file(dir, base, st, in)
	case unix.S_IFDIR:
		return d.subdir(dir, base, st, in)
	case unix.S_IFLNK:
		e.Type = tar.TypeSymlink
		if e.Link, err = readlinkat(dir, base); err != nil {
			return d.fail(name, err)
		}
	case unix.S_IFIFO:
		e.Type = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		d.device(e, kind, uint64(st.Rdev))
	default:
		return d.fail(name, fmt.Errorf("%w: mode %o", ErrType, st.Mode))
	}
	d.ids(e, st, Owner{}, name)
	return d.unlessSame(e, st, -1, base, in)
}

// time is the mtime to write, in whole seconds.
func (d *differ) time(name string, st *unix.Stat_t) time.Time {
	t := time.Unix(int64(st.Mtim.Sec), 0)
	if given, ok := d.o.Times[name]; ok {
		t = given
	}
	if d.o.Clamp != nil && t.After(*d.o.Clamp) {
		t = *d.o.Clamp
	}
	return t
}

// ids sets e's owner from the file and from what was recorded about it.
func (d *differ) ids(e *Entry, st *unix.Stat_t, rec Owner, name string) {
	if o, ok := d.owners[name]; ok {
		rec = o
	}
	e.UID, e.GID = int(rec.UID), int(rec.GID)
	// With real ids a record counts only for a file that was left with root because its ids are not mapped.
	if d.o.Ownership == OwnIDs && (st.Uid != 0 || st.Gid != 0 || rec.UID == 0 && rec.GID == 0) {
		e.UID, e.GID = int(st.Uid), int(st.Gid)
	}
}

// open opens a regular file or directory for reading. restore gives back the mode that kept its owner out.
func (d *differ) open(dir int, base string, st *unix.Stat_t, flags int) (fd int, restore func(), err error) {
	flags |= unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	need := uint32(0o400)
	if isDirMode(st.Mode) {
		need = 0o500
	}
	fd, err = openat(dir, base, flags, 0)
	if (err == nil && (d.euid == 0 || st.Mode&need == need)) || err != nil && err != unix.EACCES || st.Uid != d.euid {
		return fd, func() {}, err
	}
	if err == nil {
		unix.Close(fd)
	}
	p, err := openat(dir, base, pathFlags, 0)
	if err != nil {
		return -1, nil, err
	}
	mode := st.Mode & 0o7777
	restore = func() {
		chmodFD(p, mode) //nolint:errcheck // it worked a moment ago
		unix.Close(p)
	}
	if err = chmodFD(p, mode|need); err == nil {
		fd, err = openat(dir, base, flags, 0)
	}
	if err != nil {
		restore()
		return -1, nil, err
	}
	return fd, restore, nil
}

func (d *differ) subdir(dir int, base string, st *unix.Stat_t, in *level) error {
	name := d.cur.Name
	fd, restore, err := d.open(dir, base, st, unix.O_DIRECTORY)
	if err != nil {
		return d.fail(name, err)
	}
	defer restore()
	defer unix.Close(fd)
	e := &d.cur
	e.Type = tar.TypeDir
	rec, opaque, err := d.attributes(fd, e)
	if err != nil {
		return d.fail(name, err)
	}
	d.ids(e, st, rec, name)
	sub := &level{name: name, up: in, entry: *e, base: -1, hidden: in.hidden || opaque}
	if d.o.Base == nil && d.o.Before == nil {
		sub.hidden = false
		if err := d.parents(sub); err != nil {
			return err
		}
		if opaque {
			if err := d.tw.opaque(name); err != nil {
				return err
			}
		}
		return d.dir(fd, sub)
	}
	same, err := d.sameDir(e, base, in, sub)
	if err != nil {
		return d.fail(name, err)
	}
	if sub.base >= 0 {
		defer unix.Close(sub.base)
	}
	if !same {
		if err := d.parents(sub); err != nil {
			return err
		}
	}
	return d.dir(fd, sub)
}
