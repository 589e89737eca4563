package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
)

// Source is one layer of a chain as a View needs it.
type Source struct {
	TOC *TOC
	// Open gives random access to the uncompressed tar; called at most once per
	// View, only when data is read. The View closes it.
	Open func() (ReaderAtCloser, error)
	// OpenEntry, when it is not nil, reads a regular file of the TOC instead of Open and the offset: a tree that is no tar.
	OpenEntry func(e *Entry) (io.ReadCloser, error)
	// Sum gives the SHA-256 of a regular file's bytes without reading them; ok is false where it is not known. May be nil.
	Sum func(e *Entry) (sum [32]byte, ok bool)
	// Placed is told where in the tar of an Upper's layer the bytes of a file of the TOC went that was put there by PutNode. May be nil.
	Placed func(e *Entry, offset int64)
}

// ReaderAtCloser is random access that is given back.
type ReaderAtCloser interface {
	io.ReaderAt
	io.Closer
}

// View is a chain of layers merged as a runtime would: whiteouts, opaque
// directories and replaced entries resolved, nothing unpacked. It is safe for concurrent use.
type View struct {
	t    *tree
	srcs []*source
	sums sync.Map // *inode -> [32]byte: digests of file contents
}

// source opens a layer's data once.
type source struct {
	open   func() (ReaderAtCloser, error)
	entry  func(*Entry) (io.ReadCloser, error)
	sum    func(*Entry) ([32]byte, bool)
	placed func(*Entry, int64)
	mu     sync.Mutex // guards what follows
	r      ReaderAtCloser
	err    error
}

func (s *source) at() (io.ReaderAt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.r == nil && s.err == nil {
		if s.open == nil {
			s.err = errors.New("layer data is not at hand")
		} else {
			s.r, s.err = s.open()
		}
	}
	if s.err != nil {
		return nil, s.err
	}
	return s.r, nil
}

// NewView merges layers, bottom first. No layers is an empty rootfs.
func NewView(layers []Source) (*View, error) {
	v := &View{t: newTree(), srcs: make([]*source, 0, len(layers))}
	for i, l := range layers {
		if err := v.t.add(i, l.TOC.Entries); err != nil {
			return nil, fmt.Errorf("layer %d (%s): %w", i+1, l.TOC.DiffID, err)
		}
		v.srcs = append(v.srcs, &source{open: l.Open, entry: l.OpenEntry, sum: l.Sum, placed: l.Placed})
	}
	return v, nil
}

// Close closes what was opened. The View cannot read data afterwards.
func (v *View) Close() error {
	var errs []error
	for _, s := range v.srcs {
		s.mu.Lock()
		if s.r != nil {
			errs = append(errs, s.r.Close())
		}
		s.r, s.err = nil, fs.ErrClosed
		s.mu.Unlock()
	}
	return errors.Join(errs...)
}

// Lstat returns the entry at path (absolute or relative, in the image), whose
// parent symlinks are followed inside the image but the last is not. ok is false when there is none. The
// root always exists (0755 0:0 unless a layer says otherwise). Name is the real name; a hard link has
// its file's type, size and owner.
func (v *View) Lstat(path string) (Entry, bool) { return v.stat(path, false) }

// Stat is Lstat that also follows the last symlink.
func (v *View) Stat(path string) (Entry, bool) { return v.stat(path, true) }

func (v *View) stat(path string, follow bool) (Entry, bool) {
	n, missing, err := v.t.walk(strings.TrimRight(path, "/"), follow)
	if err != nil || missing != "" {
		return Entry{}, false
	}
	e := *n.ino.e
	e.Name = n.path()
	return e, true
}

// Resolve returns the real name of path: symlinks in all but the last component
// resolved inside the image; components that do not exist are kept. An error for a loop or a
// parent that is not a directory.
func (v *View) Resolve(path string) (string, error) {
	n, missing, err := v.t.walk(strings.TrimRight(path, "/"), false)
	if err != nil {
		return "", fmt.Errorf("resolving %q: %w", path, err)
	}
	if missing == "" {
		return n.path(), nil
	}
	return clampDots(joinName(n.path(), missing)), nil
}

// Open reads a regular file (or hard link to one); symlinks are followed.
func (v *View) Open(path string) (io.ReadCloser, error) {
	n, missing, err := v.t.walk(path, true)
	switch {
	case err != nil:
		return nil, fmt.Errorf("opening %q: %w", path, err)
	case missing != "":
		return nil, fmt.Errorf("opening %q: %w", path, fs.ErrNotExist)
	case n.ino.e.Type != tar.TypeReg:
		return nil, fmt.Errorf("opening %q: %w: not a regular file", path, fs.ErrInvalid)
	}
	return v.open(n.ino)
}

func (v *View) open(ino *inode) (io.ReadCloser, error) {
	e := ino.e
	if e.Size == 0 {
		return io.NopCloser(strings.NewReader("")), nil
	}
	if read := v.srcs[ino.src].entry; read != nil {
		return read(e)
	}
	at, err := v.srcs[ino.src].at()
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", e.Name, err)
	}
	packed := e.Size
	if e.Sparse != nil {
		packed = 0
		for _, x := range e.Sparse {
			packed += x.Length
		}
	}
	var r io.Reader = &exactReader{r: io.NewSectionReader(at, e.Offset, packed), left: packed}
	if e.Sparse != nil {
		r = &sparseReader{r: r, extents: e.Sparse, size: e.Size}
	}
	return io.NopCloser(r), nil
}

// exactReader reports io.ErrUnexpectedEOF when r ends before left bytes came.
type exactReader struct {
	r    io.Reader
	left int64
}

func (x *exactReader) Read(p []byte) (int, error) {
	if x.left == 0 {
		return 0, io.EOF
	}
	n, err := x.r.Read(p[:min(int64(len(p)), x.left)])
	x.left -= int64(n)
	if x.left == 0 {
		return n, nil
	}
	return n, noEOF(err)
}

// Walk calls fn for path and everything below it, parents first, by name. Of a hard-linked
// file the first name walked comes as TypeReg with its data, the others as TypeLink
// to that name. open is nil but for regular files. fs.SkipDir from fn leaves a directory's contents out.
func (v *View) Walk(path string, fn func(e Entry, open func() (io.ReadCloser, error)) error) error {
	n, missing, err := v.t.walk(strings.TrimRight(path, "/"), false)
	if err != nil {
		return fmt.Errorf("walking %q: %w", path, err)
	}
	if missing != "" {
		return fmt.Errorf("walking %q: %w", path, fs.ErrNotExist)
	}
	err = v.walk(n, n.path(), map[*inode]string{}, fn)
	if err == fs.SkipDir || err == fs.SkipAll {
		return nil
	}
	return err
}

func (v *View) walk(n *node, name string, first map[*inode]string, fn func(e Entry, open func() (io.ReadCloser, error)) error) error {
	e := *n.ino.e
	e.Name = name
	var open func() (io.ReadCloser, error)
	if n.ino.links > 1 && e.Type != tar.TypeDir {
		if to, ok := first[n.ino]; ok {
			e = Entry{Name: name, Type: tar.TypeLink, Link: to, Mode: e.Mode, UID: e.UID, GID: e.GID, ModTime: e.ModTime}
		} else {
			first[n.ino] = name
		}
	}
	if e.Type == tar.TypeReg {
		open = func() (io.ReadCloser, error) { return v.open(n.ino) }
	}
	if err := fn(e, open); err != nil {
		if err == fs.SkipDir && e.Type == tar.TypeDir {
			return nil
		}
		return err
	}
	for _, kid := range n.sortedKids() {
		err := v.walk(kid, joinName(name, kid.name), first, fn)
		if err == fs.SkipDir { // from something that is no directory: the rest of its directory
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}
