package source

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"sync"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// open reads a file. One that is no longer what it was when the tree was read is an error. Whoever reads it to its end makes its
// digest known.
func (t *Files) open(e *layer.Entry) (io.ReadCloser, error) {
	f, err := t.dirs.open(t.root, e.Name)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() != e.Size) {
		err = fmt.Errorf("%q: %w", e.Name, layer.ErrChanged)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	st, ok := t.stats[e.Name]
	if now, _, _ := statOf(info); t.sums == nil || !ok || now != st {
		return f, nil
	}
	return t.sums.reader(f, e.Name, st), nil
}

// reader makes the digest of a file known to whoever reads it to its end. st is what it is now.
func (s *Sums) reader(f *os.File, name string, st fileStat) io.ReadCloser {
	if _, known := s.get(name, st); known {
		return f
	}
	return &summed{File: f, sums: s, name: name, st: st, h: sha256.New()}
}

// Reader is f, whose digest is remembered by name when it is read to its end.
func (s *Sums) Reader(f *os.File, name string) io.ReadCloser {
	info, err := f.Stat()
	if err != nil {
		return f // the first read will say why
	}
	st, _, _ := statOf(info)
	return s.reader(f, name, st)
}

// Sum is the digest of a file's bytes, which are read unless it is remembered.
func (s *Sums) Sum(f *os.File, name string) (out [32]byte, err error) {
	info, err := f.Stat()
	if err != nil {
		return out, err
	}
	st, _, _ := statOf(info)
	if out, ok := s.get(name, st); ok {
		return out, nil
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
	*os.File
	sums *Sums
	name string
	st   fileStat
	read int64
	h    hash.Hash // nil when there is nothing to be made
}

// Read implements io.Reader.
func (s *summed) Read(p []byte) (int, error) {
	n, err := s.File.Read(p)
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
	info, err := s.Stat()
	if err == nil && s.read == s.st.Size {
		if now, _, _ := statOf(info); now == s.st {
			s.sums.put(s.name, s.st, [32]byte(s.h.Sum(nil)))
		}
	}
	s.h = nil
}

// WriteTo is there because that of the file would pass Read by.
func (s *summed) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{s})
}

// sum is the digest of a file's bytes, from an earlier time when nothing says that they changed.
func (t *Files) sum(e *layer.Entry) (out [32]byte, ok bool) {
	if t.sums == nil {
		return out, false
	}
	st := t.stats[e.Name]
	if out, ok = t.sums.get(e.Name, st); ok {
		return out, true
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
	t.sums.put(e.Name, st, out)
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
