package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"
	"time"
)

// Builder collects the entries of one layer over a base and writes them sorted,
// each name once (the last one given wins), with the parents that the base lacks.
//
// Parents that the base has are written, with the base's metadata, only when
// an unpacker that does not know the base would get them wrong, that is, when
// they are not 0755 0:0 without extended attributes: /tmp is, /usr is not, and so
// layers can be shared between platforms.
type Builder struct {
	base    *View
	parent  Entry // what missing parents become
	root    *added
	closers []io.Closer

	lastName string // directory that lastDir is
	lastDir  *added
}

// added is a name of the layer: something added, something removed from the
// base, or only the way to such names.
type added struct {
	name   string
	parent *added
	kids   map[string]*added
	file   *addedFile // nil: nothing was added here
	base   *node      // what the base has here; nil when it has nothing or it is hidden
	gone   bool       // the base had something here and it is removed
	hides  bool       // the base had a directory here whose contents are hidden
}

// addedFile is what a name holds; hard links share one.
type addedFile struct {
	e    Entry
	open func() (io.ReadCloser, error)
}

// NewBuilder starts a layer over base (nil: an empty rootfs). Parents that must be made get 0755 0:0 and time mtime.
func NewBuilder(base *View, mtime time.Time) *Builder {
	b := &Builder{base: base, parent: Entry{Type: tar.TypeDir, Mode: 0o755, ModTime: mtime}}
	if base == nil {
		b.base = &View{t: newTree()}
	}
	b.root = &added{base: b.base.t.root}
	return b
}

// Close gives back what Archive keeps open for WriteTo.
func (b *Builder) Close() error {
	var errs []error
	for _, c := range b.closers {
		errs = append(errs, c.Close())
	}
	b.closers = nil
	return errors.Join(errs...)
}

// kid returns the name c of a, which may be nothing but what the base has there; nil when there is nothing.
func (a *added) kid(c string) *added {
	if k := a.kids[c]; k != nil {
		return k
	}
	if a.base == nil {
		return nil
	}
	if n := a.base.kids[c]; n != nil {
		return a.put(c, n)
	}
	return nil
}

// put makes the name c of a over the base's n. It means nothing until a file is set or something is put below it.
func (a *added) put(c string, n *node) *added {
	if a.kids == nil {
		a.kids = make(map[string]*added)
	}
	k := &added{name: c, parent: a, base: n}
	a.kids[c] = k
	return k
}

// entry is what is at a; nil when there is nothing.
func (a *added) entry() *Entry {
	switch {
	case a.file != nil:
		return &a.file.e
	case a.base != nil:
		return a.base.ino.e
	case a.parent == nil, a.live():
		return &implicitDir
	}
	return nil
}

// live reports whether something was added at a or below it.
func (a *added) live() bool {
	if a.file != nil {
		return true
	}
	for _, k := range a.kids {
		if k.live() {
			return true
		}
	}
	return false
}

func (a *added) isDir() bool {
	e := a.entry()
	return e != nil && e.Type == tar.TypeDir
}

func (a *added) path() string {
	if a.parent == nil {
		return "."
	}
	return joinName(a.parent.path(), a.name)
}

// lookup goes along path as tree.walk does, in the base and in what was added.
func (b *Builder) lookup(path string, follow bool) (a *added, missing string, err error) {
	a = b.root
	rest := path
	for hops := 0; rest != ""; {
		var c string
		c, rest, _ = strings.Cut(rest, "/")
		rest = strings.TrimLeft(rest, "/")
		switch c {
		case "", ".":
			continue
		case "..":
			if a.parent != nil {
				a = a.parent
			}
			continue
		}
		if !a.isDir() {
			return nil, "", notDir(a.path())
		}
		k := a.kid(c)
		var e *Entry
		if k != nil {
			e = k.entry()
		}
		switch {
		case e == nil:
			return a, joinName(c, rest), nil
		case e.Type == tar.TypeSymlink && (rest != "" || follow):
			if hops++; hops > maxHops {
				return nil, "", fmt.Errorf("%w: following %q: %w", ErrInvalid, path, syscall.ELOOP)
			}
			if strings.HasPrefix(e.Link, "/") {
				a = b.root
			}
			rest = strings.TrimLeft(e.Link, "/") + "/" + rest
			if len(rest) > 1<<16 {
				return nil, "", fmt.Errorf("%w: following %q: %w", ErrInvalid, path, syscall.ENAMETOOLONG)
			}
		default:
			a = k
		}
	}
	return a, "", nil
}

// dir returns the directory called name, symlinks followed, and makes what is missing.
func (b *Builder) dir(name string) (*added, error) {
	if b.lastDir != nil && b.lastName == name {
		return b.lastDir, nil
	}
	a, missing, err := b.lookup(name, true)
	if err != nil {
		return nil, err
	}
	if !a.isDir() {
		return nil, notDir(a.path())
	}
	for c := range strings.SplitSeq(missing, "/") {
		switch c {
		case "", ".":
		case "..":
			if a.parent != nil {
				a = a.parent
			}
		default:
			k := a.kid(c)
			if k == nil {
				k = a.put(c, nil)
			}
			if k.entry() == nil {
				e := b.parent
				k.file = &addedFile{e: e}
			} else if !k.isDir() {
				return nil, notDir(k.path())
			}
			a = k
		}
	}
	b.lastName, b.lastDir = name, a
	return a, nil
}

// Add adds an entry at e.Name (parent symlinks are resolved in base and in what was added). open gives a
// regular file's e.Size bytes, each time it is called, and may be nil when Size is 0. A hard link's target must be
// there; one that only the base has is copied into the layer.
func (b *Builder) Add(e Entry, open func() (io.ReadCloser, error)) error {
	if err := b.add(e, open); err != nil {
		return &EntryError{Name: e.Name, Offset: -1, Err: err}
	}
	return nil
}

func (b *Builder) add(e Entry, open func() (io.ReadCloser, error)) error {
	name, err := cleanName(e.Name, defaultPathLen)
	if err != nil {
		return err
	}
	if err := checkNotWhiteout(name); err != nil {
		return err
	}
	if err := checkEntry(&e); err != nil {
		return err
	}
	if e.Size > 0 && open == nil {
		return fmt.Errorf("%w: %d bytes of nothing", ErrInvalid, e.Size)
	}
	e.Sparse, e.Offset, e.Whiteout, e.Opaque = nil, 0, false, false
	if name == "." {
		if e.Type != tar.TypeDir {
			return fmt.Errorf("%w: it would replace the root directory", ErrUnsafe)
		}
		b.root.file = &addedFile{e: e}
		return nil
	}
	var f *addedFile
	if e.Type == tar.TypeLink {
		if f, err = b.linkTarget(e.Link); err != nil {
			return err
		}
	} else {
		f = &addedFile{e: e, open: open}
	}
	parent, base := splitName(name)
	dir, err := b.dir(parent)
	if err != nil {
		return err
	}
	k := dir.kid(base)
	if k == nil {
		k = dir.put(base, nil)
	}
	if old := k.entry(); old != nil && (old.Type != tar.TypeDir || e.Type != tar.TypeDir) {
		k.replace()
		b.lastDir = nil
	}
	k.file = f
	return nil
}

// replace hides what the base has at a and forgets what was added below it.
func (a *added) replace() {
	if a.base != nil {
		a.gone, a.hides = true, a.hides || a.base.isDir()
		a.base = nil
	}
	a.kids, a.file = nil, nil
}

// linkTarget returns the file at path, copying it up from the base.
func (b *Builder) linkTarget(path string) (*addedFile, error) {
	link, err := cleanLink(path, defaultPathLen)
	if err != nil {
		return nil, fmt.Errorf("hard link: %w", err)
	}
	a, missing, err := b.lookup(link, false)
	switch {
	case err != nil:
		return nil, err
	case missing != "":
		return nil, fmt.Errorf("hard link to %q: %w", path, fs.ErrNotExist)
	case a.isDir():
		return nil, fmt.Errorf("%w: hard link to the directory %q", ErrInvalid, path)
	}
	if a.file == nil {
		ino := a.base.ino
		e := *ino.e
		e.Sparse, e.Offset = nil, 0
		a.file = &addedFile{e: e, open: func() (io.ReadCloser, error) { return b.base.open(ino) }}
	}
	return a.file, nil
}

// checkEntry refuses what ReadTOC would refuse.
func checkEntry(e *Entry) error {
	switch e.Type {
	case tar.TypeReg, tar.TypeLink, tar.TypeDir, tar.TypeFifo:
	case tar.TypeChar, tar.TypeBlock:
		if e.Major < 0 || e.Minor < 0 || e.Major > maxDevice || e.Minor > maxDevice {
			return fmt.Errorf("%w: device %d:%d", ErrInvalid, e.Major, e.Minor)
		}
	case tar.TypeSymlink:
		if e.Link == "" || len(e.Link) >= defaultPathLen || strings.IndexByte(e.Link, 0) >= 0 {
			return fmt.Errorf("%w: symlink to %.40q of %d bytes", ErrInvalid, e.Link, len(e.Link))
		}
	default:
		return fmt.Errorf("%w %q", ErrType, e.Type)
	}
	if e.UID < 0 || e.UID > maxID || e.GID < 0 || e.GID > maxID {
		return fmt.Errorf("%w: owner %d:%d", ErrInvalid, e.UID, e.GID)
	}
	if e.Size < 0 || e.Size > 0 && e.Type != tar.TypeReg && e.Type != tar.TypeLink {
		return fmt.Errorf("%w: size %d", ErrInvalid, e.Size)
	}
	return nil
}

// Remove adds a whiteout for path, dropping anything added below it. Missing in the base and in what
// was added is fs.ErrNotExist.
func (b *Builder) Remove(path string) error {
	a, missing, err := b.lookup(strings.TrimRight(path, "/"), false)
	switch {
	case err != nil:
		return fmt.Errorf("removing %q: %w", path, err)
	case missing != "":
		return fmt.Errorf("removing %q: %w", path, fs.ErrNotExist)
	case a.parent == nil:
		return fmt.Errorf("removing %q: %w: it is the root directory", path, ErrUnsafe)
	}
	a.replace()
	b.lastDir = nil
	return nil
}
