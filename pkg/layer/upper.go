package layer

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"strings"
	"syscall"
	"time"
)

// Upper is a rootfs that is changed as a file system would be, in memory: creating a name changes its directory's
// time, a set-gid directory passes its group on, a directory is never replaced by accident. Nothing of the base is
// unpacked or read for it.
//
// Its layer ([Upper.WriteTo]) is the one that BuildKit's exporter writes of an overlay upper directory after the same
// changes: what differs from the base, with all directories above it.
type Upper struct {
	base    *View
	now     time.Time
	root    *Place
	closers []io.Closer
	odds    map[*node]struct{} // what Graft cannot take, and what is above that
}

// Place is a name in an Upper, whether or not something is there. Methods that need something, or nothing, say so by
// the errors of the system calls they stand for.
type Place struct {
	u      *Upper
	name   string
	parent *Place
	kids   map[string]*Place // those that were looked at
	orig   *node             // what the base has here, also when it was removed
	file   *upperFile        // what is here; nil: nothing
	graft  Node              // kids are these, for which there are no places yet; the zero Node: they are not
	hidden bool              // what the base has below was removed
	done   bool              // WriteTo: it is in the layer
}

// upperFile is a file; hard links are several places of one.
type upperFile struct {
	e      *Entry // of a table of contents while shared says so: then it is not to be changed
	open   func() (io.ReadCloser, error)
	node   Node   // whose content it has, instead of open
	from   *inode // the base's that it is, unchanged in content
	own    bool   // it is made or changed here
	shared bool
	linked bool // another place has it too
}

// set gives the file other attributes.
func (f *upperFile) set(e *Entry) { f.e, f.shared = e, false }

// NewUpper starts with base (nil: an empty rootfs) and no changes. now is the time of what gets no other; the zero
// Time leaves directories the latest time of what was put into them, and gives 1970 where there is nothing to go by.
func NewUpper(base *View, now time.Time) *Upper {
	if base == nil {
		base = &View{t: newTree()}
	}
	u := &Upper{base: base, now: now, odds: map[*node]struct{}{}}
	u.root = &Place{u: u, orig: base.t.root, file: &upperFile{e: base.t.root.ino.e, from: base.t.root.ino, shared: true}}
	return u
}

// Root is the root directory.
func (u *Upper) Root() *Place { return u.root }

// Base is the rootfs without the changes.
func (u *Upper) Base() *View { return u.base }

// Entry is what is at p; ok is false when there is nothing. Name is not set.
func (p *Place) Entry() (e Entry, ok bool) {
	if p.file == nil {
		return Entry{}, false
	}
	e = *p.file.e
	if p.file.shared {
		e.Name, e.Sparse, e.Offset = "", nil, 0
	}
	return e, true
}

// IsDir reports whether p is a directory.
func (p *Place) IsDir() bool { return p.file != nil && p.file.e.Type == tar.TypeDir }

// Parent is the directory that p is in; the root's is itself.
func (p *Place) Parent() *Place {
	if p.parent == nil {
		return p
	}
	return p.parent
}

// Base is the last component of p's name.
func (p *Place) Base() string { return p.name }

// Path is p's name, clean and relative; "." is the root.
func (p *Place) Path() string {
	if p.parent == nil {
		return "."
	}
	return joinName(p.parent.Path(), p.name)
}

// Kid is the name in the directory p, followed nowhere.
func (p *Place) Kid(name string) *Place {
	p.expand()
	if k := p.kids[name]; k != nil {
		return k
	}
	k := &Place{u: p.u, name: name, parent: p}
	if p.orig != nil {
		k.orig = p.orig.kids[name]
	}
	if k.orig != nil && !p.hidden && p.IsDir() {
		k.file = &upperFile{e: k.orig.ino.e, from: k.orig.ino, shared: true}
	}
	if p.kids == nil {
		p.kids = make(map[string]*Place)
	}
	p.kids[name] = k
	return k
}

// Names are the names in a directory, unsorted.
func (p *Place) Names() []string {
	p.expand()
	var out []string
	if p.orig != nil && !p.hidden {
		for name := range p.orig.kids {
			if p.kids[name] == nil {
				out = append(out, name)
			}
		}
	}
	for name, k := range p.kids {
		if k.file != nil {
			out = append(out, name)
		}
	}
	return out
}

// Walk goes along path below p, which stands for the root: links and ".." do not leave it. With follow the last component
// is followed too. Components that do not exist are places with nothing there.
func (p *Place) Walk(path string, follow bool) (*Place, error) {
	at := p
	rest := path
	for hops := 0; rest != ""; {
		var c string
		c, rest, _ = strings.Cut(rest, "/")
		rest = strings.TrimLeft(rest, "/")
		switch c {
		case "", ".":
			continue
		case "..":
			if at != p {
				at = at.Parent()
			}
			continue
		}
		if len(c) > maxComponent {
			return nil, fmt.Errorf("%.40q...: %w", c, syscall.ENAMETOOLONG)
		}
		if at.file != nil && !at.IsDir() {
			return nil, &fs.PathError{Op: "stat", Path: "/" + at.Path() + "/" + c, Err: syscall.ENOTDIR}
		}
		k := at.Kid(c)
		if k.file == nil || k.file.e.Type != tar.TypeSymlink || rest == "" && !follow {
			at = k
			continue
		}
		if hops++; hops > maxHops {
			return nil, &fs.PathError{Op: "stat", Path: path, Err: syscall.ELOOP}
		}
		if strings.HasPrefix(k.file.e.Link, "/") {
			at = p
		}
		rest = strings.TrimLeft(k.file.e.Link, "/") + "/" + rest
		if len(rest) > 1<<16 {
			return nil, &fs.PathError{Op: "stat", Path: path, Err: syscall.ENAMETOOLONG}
		}
	}
	return at, nil
}

func (p *Place) fail(op string, err error) error {
	return &fs.PathError{Op: op, Path: "/" + strings.TrimPrefix(p.Path(), "."), Err: err}
}

// vacant checks that something can be made at p.
func (p *Place) vacant(op string) error {
	switch {
	case p.file != nil:
		return p.fail(op, syscall.EEXIST)
	case p.parent.file == nil:
		return p.fail(op, syscall.ENOENT)
	case !p.parent.IsDir():
		return p.fail(op, syscall.ENOTDIR)
	}
	if err := checkNotWhiteout(p.name); err != nil {
		return p.fail(op, err)
	}
	return nil
}

// touch is what happens to a directory's time when a name in it is made or removed; t is that of what was made.
func (p *Place) touch(t time.Time) {
	f := p.change()
	switch {
	case !p.u.now.IsZero():
		t = p.u.now
	case !t.After(f.e.ModTime):
		return
	}
	if f.shared {
		e := *f.e
		f.set(&e)
	}
	f.e.ModTime = t
}

// change copies p up: what is here may be changed now.
func (p *Place) change() *upperFile {
	p.file.own = true
	return p.file
}

// Now is the time of what changes now: the Upper's, or what p has when it has none.
func (p *Place) Now() time.Time {
	if p.u.now.IsZero() && p.file != nil {
		return p.file.e.ModTime
	}
	return p.u.made()
}

// made is the time of what is made without one.
func (u *Upper) made() time.Time {
	if u.now.IsZero() {
		return time.Unix(0, 0)
	}
	return u.now
}

const setGID = 0o2000

// Mkdir makes a directory of root's, or of the group of a set-gid directory that it is in.
func (p *Place) Mkdir(mode int64) error {
	if err := p.vacant("mkdir"); err != nil {
		return err
	}
	e := Entry{Type: tar.TypeDir, Mode: mode & 0o7777, ModTime: p.u.made()}
	if in := p.parent.file.e; in.Mode&setGID != 0 {
		e.GID = in.GID
		e.Mode |= setGID
	}
	p.file, p.hidden = &upperFile{e: &e, own: true}, true
	p.parent.touch(e.ModTime)
	return nil
}

// Put makes anything but a directory or a hard link of e; open gives a regular file's e.Size bytes each time it is
// called. e.Name counts for nothing. A group of 0 becomes that of a set-gid directory it is in.
func (p *Place) Put(e Entry, open func() (io.ReadCloser, error)) error {
	return p.put(&e, open, Node{})
}

// PutNode is Put of what n is, which is no directory. Nothing of it is copied until the layer is written.
func (p *Place) PutNode(n Node) error { return p.put(n.n.ino.e, nil, n) }

func (p *Place) put(e *Entry, open func() (io.ReadCloser, error), n Node) error {
	if err := p.vacant("create"); err != nil {
		return err
	}
	if e.Type == tar.TypeDir || e.Type == tar.TypeLink {
		return p.fail("create", fs.ErrInvalid)
	}
	if err := checkEntry(e); err != nil {
		return p.fail("create", err)
	}
	if e.Size > 0 && open == nil && n.n == nil {
		return p.fail("create", fmt.Errorf("%w: %d bytes of nothing", ErrInvalid, e.Size))
	}
	in := p.parent.file.e
	inherits := in.Mode&setGID != 0 && e.GID == 0 && in.GID != 0
	shared := n.n != nil && !inherits && !e.ModTime.IsZero() && !e.Whiteout && !e.Opaque
	if !shared {
		own := *e
		e = &own
		if inherits {
			e.GID = in.GID
		}
		e.Name, e.Sparse, e.Offset, e.Whiteout, e.Opaque = "", nil, 0, false, false
		if e.ModTime.IsZero() {
			e.ModTime = p.u.made()
		}
	}
	p.file = &upperFile{e: e, open: open, node: n, own: true, shared: shared}
	p.parent.touch(e.ModTime)
	return nil
}

// Link makes p another name of the file at to.
func (p *Place) Link(to *Place) error {
	switch {
	case to.file == nil:
		return p.fail("link", syscall.ENOENT)
	case to.IsDir():
		return p.fail("link", syscall.EPERM)
	}
	if err := p.vacant("link"); err != nil {
		return err
	}
	p.file = to.change()
	p.file.linked = true
	p.parent.touch(p.file.e.ModTime)
	return nil
}

// Remove removes what is at p and below it, if anything is.
func (p *Place) Remove() error {
	if p.parent == nil {
		return p.fail("unlink", syscall.EBUSY)
	}
	if p.file == nil {
		return nil
	}
	p.clear()
	p.parent.touch(time.Time{})
	return nil
}

func (p *Place) clear() {
	for _, k := range p.kids {
		k.clear()
	}
	p.file, p.graft, p.hidden = nil, Node{}, true
}

// Set changes owner, mode, time and extended attributes of what is at p to e's.
func (p *Place) Set(e Entry) error {
	if p.file == nil {
		return p.fail("chmod", syscall.ENOENT)
	}
	f := p.change()
	if f.e.UID == e.UID && f.e.GID == e.GID && f.e.Mode == e.Mode&0o7777 && f.e.ModTime.Equal(e.ModTime) && maps.Equal(f.e.Xattrs, e.Xattrs) {
		return nil
	}
	n := *f.e
	if f.shared {
		n.Name, n.Sparse, n.Offset = "", nil, 0
	}
	n.UID, n.GID, n.Mode, n.ModTime, n.Xattrs = e.UID, e.GID, e.Mode&0o7777, e.ModTime, e.Xattrs
	if err := checkEntry(&n); err != nil {
		return p.fail("chown", err)
	}
	f.set(&n)
	return nil
}
