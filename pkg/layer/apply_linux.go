package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Apply unpacks the uncompressed tar r into the directory dir, which must exist; nothing outside
// of it is touched whatever r holds (but for the sidecar of [OwnersFile]). Devices become placeholders where mknod is refused. r is
// read to its end. After an error dir holds a part of the layer and is of no use.
//
// A parent that is a symlink is followed inside dir, one that is missing is made 0755 0:0 with time 0. dir must
// be ours, and with Overlay it must be empty.
func Apply(ctx context.Context, dir string, r io.Reader, o ApplyOptions) error {
	a := &applier{
		o: o, dir: filepath.Clean(dir), super: unix.Geteuid() == 0,
		dirs: map[string]*dirState{}, owners: map[string]Owner{}, s: newScanner(ctx, r, nil, o.Limits),
	}
	if !o.Overlay {
		a.made = map[string]bool{}
	}
	defer a.close()
	err := a.open()
	if err == nil {
		err = a.run()
	}
	return a.explain(err)
}

// applier is one Apply.
type applier struct {
	o     ApplyOptions
	dir   string
	root  int // descriptor of dir
	super bool
	s     *scanner

	last dirHandle // of the last entry's parent

	// dirs holds, by real name, what directories get when all is in place.
	dirs map[string]*dirState
	// made is, for a directory that held other layers before, what this layer made (true) and
	// what holds something that it made (false), by real name: its whiteouts spare these.
	made    map[string]bool
	owners  map[string]Owner // of what cannot carry an xattr, by real name
	before  bool             // a sidecar was there
	pending []*Entry         // hard links whose target did not come before them
}

// dirState is what a directory gets at the end: until then it must be writable, and its time changes.
type dirState struct {
	mode    uint32
	setMode bool
	time    unix.Timespec
}

// dirHandle is an open directory (O_PATH).
type dirHandle struct {
	name string // as asked for
	real string
	fd   int
}

func (a *applier) warn(name, format string, args ...any) {
	if a.o.Warn != nil {
		a.o.Warn(name, fmt.Sprintf(format, args...))
	}
}

// explain names what ran out.
func (a *applier) explain(err error) error {
	if !errors.Is(err, unix.ENOSPC) {
		return err
	}
	var st unix.Statfs_t
	if a.root >= 0 && unix.Fstatfs(a.root, &st) == nil && st.Files > 0 && st.Ffree == 0 {
		return fmt.Errorf("%w (no inodes left in %s)", err, a.dir)
	}
	return fmt.Errorf("%w (in %s)", err, a.dir)
}

func (a *applier) open() error {
	a.root, a.last.fd = -1, -1
	switch a.o.Ownership {
	case OwnIDs, OwnXattr:
	default:
		return fmt.Errorf("ownership %q: %w", a.o.Ownership, unix.EINVAL)
	}
	fd, err := openat(unix.AT_FDCWD, a.dir, dirFlags, 0)
	if err != nil {
		return fmt.Errorf("%w %q: %w", ErrTarget, a.dir, err)
	}
	a.root = fd
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%w %q: %w", ErrTarget, a.dir, err)
	}
	names, err := readNames(fd)
	if err != nil {
		return fmt.Errorf("%w %q: %w", ErrTarget, a.dir, err)
	}
	if len(names) > 0 && a.o.Overlay {
		return fmt.Errorf("%w %q: it is not empty", ErrTarget, a.dir)
	}
	// With real ids a layer below may have given the root away.
	if (len(names) == 0 || a.o.Ownership == OwnXattr) && int(st.Uid) != unix.Geteuid() {
		return fmt.Errorf("%w %q: it belongs to uid %d", ErrTarget, a.dir, st.Uid)
	}
	if !a.o.Overlay {
		if a.owners, err = ReadOwners(a.dir); err != nil {
			return err
		}
		a.before = len(a.owners) > 0
	}
	if len(names) > 0 {
		return a.touch(fd, ".")
	}
	a.dirs["."] = &dirState{mode: 0o755, setMode: true}
	return nil
}

func (a *applier) close() {
	a.forgetLast()
	if a.root >= 0 {
		unix.Close(a.root)
	}
}

func (a *applier) run() error {
	for {
		e, err := a.s.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := a.entry(e); err != nil {
			return &EntryError{Name: e.Name, Offset: a.s.start, Err: noEOF(err)}
		}
	}
	if err := retryLinks(a.pending, func(e *Entry) (bool, error) { return a.link(e, true) }); err != nil {
		return err
	}
	return a.finish()
}

// finish gives directories their modes and times, deepest first, and writes the sidecar.
func (a *applier) finish() error {
	a.forgetLast()
	names := slices.Sorted(maps.Keys(a.dirs))
	slices.Reverse(names)
	for _, name := range names {
		if err := a.finishDir(name, a.dirs[name]); err != nil {
			return &EntryError{Name: name, Offset: -1, Err: err}
		}
	}
	if len(a.owners) > 0 || a.before {
		return WriteOwners(a.dir, a.owners)
	}
	return nil
}

func (a *applier) finishDir(name string, d *dirState) error {
	fd := a.root
	if name != "." {
		var err error
		if fd, err = openBeneath(a.root, name, unix.O_RDONLY|unix.O_DIRECTORY); err != nil {
			return err
		}
		defer unix.Close(fd)
	}
	if d.setMode {
		if err := unix.Fchmod(fd, d.mode); err != nil {
			return err
		}
	}
	return futimens(fd, d.time)
}

func (a *applier) entry(e *Entry) error {
	if e.Opaque {
		return a.opaque(e.Name)
	}
	if e.Name == "." {
		return a.dirEntry(dirHandle{fd: -1}, "", ".", e)
	}
	if e.Type == tar.TypeLink {
		done, err := a.link(e, false)
		if err == nil && !done {
			later := *e
			a.dropPending(e.Name)
			a.pending = append(a.pending, &later)
		}
		return err
	}
	parent, base := splitName(e.Name)
	d, err := a.parent(parent)
	if err != nil {
		return err
	}
	name := joinName(d.real, base)
	if e.Whiteout {
		return a.whiteout(d, base, name)
	}
	a.dropPending(e.Name)
	switch e.Type {
	case tar.TypeDir:
		err = a.dirEntry(d, base, name, e)
	case tar.TypeReg:
		err = a.file(d, base, name, e)
	case tar.TypeSymlink:
		err = a.symlink(d, base, name, e)
	case tar.TypeFifo:
		err = a.special(d, base, name, e, unix.S_IFIFO, 0)
	case tar.TypeChar, tar.TypeBlock:
		err = a.device(d, base, name, e)
	}
	return err
}

// dropPending forgets a hard link that was to be made where now something else is.
func (a *applier) dropPending(name string) {
	if len(a.pending) > 0 {
		a.pending = slices.DeleteFunc(a.pending, func(p *Entry) bool { return p.Name == name })
	}
}

// mark remembers that this layer made name.
func (a *applier) mark(name string) {
	if a.made == nil {
		return
	}
	a.made[name] = true
	if name != "." {
		dir, _ := splitName(name)
		a.hold(dir)
	}
}

// hold remembers that the directory name holds something of this layer, a whiteout too.
func (a *applier) hold(name string) {
	for a.made != nil {
		if _, ok := a.made[name]; ok {
			return
		}
		a.made[name] = false
		if name == "." {
			return
		}
		name, _ = splitName(name)
	}
}

// clear makes room at base for something new and forgets what was known about it and what was below.
func (a *applier) clear(d dirHandle, base, name string) error {
	err := unlink(d.fd, base)
	isDir := err == errIsDir
	if isDir {
		err = removeTree(d.fd, base)
	}
	if err != nil {
		return err
	}
	a.forget(name, isDir)
	return nil
}

// forget drops what is known about name and, for a directory, about what was below.
func (a *applier) forget(name string, isDir bool) {
	a.last.name = noName // it may lead through what is gone; the descriptor is still in use
	delete(a.owners, name)
	delete(a.made, name)
	if !isDir {
		return
	}
	gone := func(n string) bool { return under(n, name) }
	maps.DeleteFunc(a.dirs, func(n string, _ *dirState) bool { return gone(n) })
	maps.DeleteFunc(a.owners, func(n string, _ Owner) bool { return gone(n) })
	maps.DeleteFunc(a.made, func(n string, _ bool) bool { return gone(n) })
}
