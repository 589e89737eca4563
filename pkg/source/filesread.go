package source

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// opened is a file that is being read.
type opened interface {
	io.ReadCloser
	// stat is what tells that it changed, and whether it is a regular file.
	stat() (st fileStat, regular bool, err error)
}

// open reads a file. One that is no longer what it was when the tree was read is an error. Whoever reads it to its end makes its
// digest known.
func (t *Files) open(e *layer.Entry) (io.ReadCloser, error) {
	was := t.known(e)
	if was.known != nil {
		if r := t.kept.open(t.sums, was.known); r != nil {
			return r, nil
		}
	}
	f, err := t.dir.open(t.root, e.Name)
	if err != nil {
		return nil, err
	}
	st, regular, err := f.stat()
	if err == nil && (!regular || st.Size != e.Size) {
		err = fmt.Errorf("%q: %w", e.Name, layer.ErrChanged)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if t.sums == nil || was.known != nil || st != was.fileStat {
		return f, nil
	}
	return t.sums.reader(f, e.Name, st), nil
}

// known is what is known of a file since the tree was read; of another tree's, nothing.
func (t *Files) known(e *layer.Entry) *knownStat {
	if e.Offset < 0 || e.Offset >= int64(len(t.stats)) {
		return &knownStat{}
	}
	return &t.stats[e.Offset]
}

// osFile is an opened file of the standard library.
type osFile struct{ f *os.File }

func (f osFile) Read(p []byte) (int, error) { return f.f.Read(p) }
func (f osFile) Close() error               { return f.f.Close() }

func (f osFile) stat() (st fileStat, regular bool, err error) {
	info, err := f.f.Stat()
	if err != nil {
		return st, false, err
	}
	st, _, _ = statOf(info)
	return st, info.Mode().IsRegular(), nil
}

// reader makes the digest of a file known to whoever reads it to its end. st is what it is now.
func (s *Sums) reader(f opened, name string, st fileStat) io.ReadCloser {
	if s.get(name, st) != nil {
		return f
	}
	return &summed{opened: f, sums: s, name: name, st: st, h: sha256.New()}
}

// Reader is f, whose digest is remembered by name when it is read to its end.
func (s *Sums) Reader(f *os.File, name string) io.ReadCloser {
	of := osFile{f}
	st, _, err := of.stat()
	if err != nil {
		return f // the first read will say why
	}
	return s.reader(of, name, st)
}

// Sum is the digest of a file's bytes, which are read unless it is remembered.
func (s *Sums) Sum(f *os.File, name string) (out [32]byte, err error) {
	st, _, err := osFile{f}.stat()
	if err != nil {
		return out, err
	}
	if known := s.get(name, st); known != nil {
		return known.sum, nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, struct{ io.Reader }{f}); err != nil {
		return out, err
	}
	h.Sum(out[:0])
	s.put(name, st, out)
	return out, nil
}

// summed is a file whose digest is made while it is read.
type summed struct {
	opened
	sums *Sums
	name string
	st   fileStat
	read int64
	h    hash.Hash // nil when there is nothing to be made
}

// Read implements io.Reader.
func (s *summed) Read(p []byte) (int, error) {
	n, err := s.opened.Read(p)
	if s.h == nil {
		return n, err
	}
	s.h.Write(p[:n])
	s.read += int64(n)
	if errors.Is(err, io.EOF) {
		s.keep()
	}
	return n, err
}

// keep remembers the digest, if the file is still what it was.
func (s *summed) keep() {
	if s.read == s.st.Size {
		if now, _, err := s.stat(); err == nil && now == s.st {
			s.sums.put(s.name, s.st, [32]byte(s.h.Sum(nil)))
		}
	}
	s.h = nil
}

// sum is the digest of a file's bytes, from an earlier time when nothing says that they changed.
func (t *Files) sum(e *layer.Entry) (out [32]byte, ok bool) {
	was := t.known(e)
	if was.known != nil {
		return was.known.sum, true
	}
	if t.sums == nil {
		return out, false
	}
	if known := t.sums.get(e.Name, was.fileStat); known != nil { // since the tree was read
		return known.sum, true
	}
	r, err := t.open(e)
	if err != nil {
		return out, false // whoever reads it will say why
	}
	if s, ok := r.(*summed); ok {
		s.h = nil // here it is made once, and given even if it is not kept
	}
	h := sha256.New()
	_, err = io.Copy(h, struct{ io.Reader }{r})
	if errors.Join(err, r.Close()) != nil {
		return out, false
	}
	h.Sum(out[:0])
	t.sums.put(e.Name, was.fileStat, out)
	return out, true
}

// Dir opens files of a directory. It is safe for concurrent use.
type Dir struct {
	Root *os.Root
	last lastDir
}

// Open opens a file for reading.
func (d *Dir) Open(name string) (*os.File, error) { return d.last.open(d.Root, path.Clean(name)) }

// Close closes the directory.
func (d *Dir) Close() error { return errors.Join(d.last.close(), d.Root.Close()) }

// lastDir keeps the directory open in which a file was opened last: files are read by directory, and to look up every
// directory on the way costs more than to read a small file.
type lastDir struct {
	mu   sync.Mutex // guards what follows
	name string
	root *os.Root
}

// open opens a file below root.
func (d *lastDir) open(root *os.Root, name string) (*os.File, error) {
	dir, base := path.Split(name)
	in := d.enter(root, dir)
	if in == nil {
		return openIn(root, name)
	}
	f, err := openIn(in, base)
	if err != nil { // a link out of its directory, or somebody else went on to another one
		return openIn(root, name)
	}
	return f, nil
}

// enter gives the directory, opening it if it is another than the last; nil when it cannot.
func (d *lastDir) enter(root *os.Root, dir string) *os.Root {
	if dir == "" {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.root != nil && d.name == dir {
		return d.root
	}
	if d.root != nil {
		_ = d.root.Close() // whoever uses it is told
	}
	d.name, d.root = dir, nil
	in, err := root.OpenRoot(dir)
	if err != nil {
		return nil
	}
	d.root = in
	return in
}

func (d *lastDir) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.root == nil {
		return nil
	}
	err := d.root.Close()
	d.root = nil
	return err
}

// dirName is one name of a directory, as the walk of a tree needs it.
type dirName struct {
	name         string
	mode         fs.FileMode
	stat         fileStat
	id           fileID
	links        uint64
	major, minor int64
	target       string // of a symlink; "" when it was not read yet
}

// listing reads a directory with os: names as they come.
func listing(root *os.Root, name string) (out []dirName, err error) {
	d, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	infos, err := d.ReadDir(-1)
	if err := errors.Join(err, d.Close()); err != nil {
		return nil, fmt.Errorf("reading %q: %w", name, err)
	}
	out = make([]dirName, 0, len(infos))
	for _, i := range infos {
		info, err := i.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		l := dirName{name: i.Name(), mode: info.Mode()}
		l.stat, l.id, l.links = statOf(info)
		l.major, l.minor = deviceOf(info)
		out = append(out, l)
	}
	return out, nil
}
