package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"
)

// UnpackOptions tunes Upper.Unpack. Spool is required for archives that are compressed.
type UnpackOptions struct {
	Owner  *[2]int // uid and gid instead of the members'
	Spool  func() (dir string, err error)
	Limits Limits
}

// Unpack puts the members of a tar (compressed or not) below the directory dest, as docker's ADD does: what is there is
// replaced, but directories are merged; links on the way are followed as if dest were the root; missing parents
// become 0755 0:0. Data is spooled to a file, or read again by offset when open gives an uncompressed file; either
// stays open until Close. A whiteout removes what it names.
func (u *Upper) Unpack(ctx context.Context, dest *Place, open func() (io.ReadCloser, error), o UnpackOptions) (err error) {
	src, err := open()
	if err != nil {
		return err
	}
	keep := false
	defer func() {
		if !keep {
			err = errors.Join(err, src.Close())
		}
	}()
	data, plain, err := archiveData(src)
	if err != nil {
		return err
	}
	r, err := Decompress(ctx, src, o.Limits)
	if err != nil {
		return err
	}
	defer r.Close()
	if plain {
		keep = true
		u.closers = append(u.closers, src)
	} else {
		dir, err := o.Spool()
		if err != nil {
			return err
		}
		f, err := os.CreateTemp(dir, "archive-")
		if err != nil {
			return fmt.Errorf("spooling archive: %w", err)
		}
		u.closers = append(u.closers, &spoolFile{f})
		data = f
	}
	t := &untar{u: u, dest: dest, o: o, data: data, plain: plain}
	s := newScanner(ctx, r, nil, o.Limits)
	s.lenient = true
	for {
		e, err := s.next()
		if err == io.EOF {
			break
		}
		if err == nil {
			if err = t.entry(s, e); err != nil {
				err = &EntryError{Name: e.Name, Offset: s.start, Err: err}
			}
		}
		if err != nil {
			return err
		}
	}
	for _, d := range t.dirs {
		if err := t.setTime(d.name, d.time); err != nil {
			return &EntryError{Name: d.name, Offset: -1, Err: err}
		}
	}
	return nil
}

// Close gives back what Unpack keeps open for WriteTo.
func (u *Upper) Close() error {
	var errs []error
	for _, c := range u.closers {
		errs = append(errs, c.Close())
	}
	u.closers = nil
	return errors.Join(errs...)
}

type untar struct {
	u     *Upper
	dest  *Place
	o     UnpackOptions
	data  io.ReaderAt
	plain bool
	at    int64 // end of what was spooled
	dirs  []dirTime
}

// dirTime is a directory's time, set when nothing comes into it any more.
type dirTime struct {
	name string
	time time.Time
}

func (t *untar) setTime(name string, when time.Time) error {
	p, err := t.dest.Walk(name, false)
	if err != nil {
		return err
	}
	e, ok := p.Entry()
	if !ok {
		return nil
	}
	e.ModTime = when
	return p.Set(e)
}

// place finds where a member goes and makes the directories above it.
func (t *untar) place(name string) (*Place, error) {
	dir, err := t.dest.Walk(path.Dir(name), true)
	if err != nil {
		return nil, err
	}
	if err := t.implied(dir); err != nil {
		return nil, err
	}
	return dir.Kid(path.Base(name)), nil
}

func (t *untar) implied(p *Place) error {
	if _, ok := p.Entry(); ok {
		return nil
	}
	if err := t.implied(p.Parent()); err != nil {
		return err
	}
	if err := p.Mkdir(0o755); err != nil {
		return err
	}
	e, _ := p.Entry()
	e.UID, e.GID = 0, 0
	return p.Set(e)
}

func (t *untar) entry(s *scanner, e *Entry) error {
	if e.Opaque {
		return nil
	}
	if e.Name == "." {
		return nil // dest is there
	}
	p, err := t.place(e.Name)
	if err != nil {
		return err
	}
	if e.Whiteout {
		return p.Remove()
	}
	have, exists := p.Entry()
	if exists && (have.Type != tar.TypeDir || e.Type != tar.TypeDir) {
		if err := p.Remove(); err != nil {
			return err
		}
		exists = false
	}
	switch {
	case e.Type == tar.TypeDir:
		if !exists {
			if err := p.Mkdir(e.Mode); err != nil {
				return err
			}
		}
		t.dirs = append(t.dirs, dirTime{e.Name, e.ModTime})
	case e.Type == tar.TypeLink:
		to, err := t.dest.Walk(e.Link, false)
		if err != nil {
			return err
		}
		if err := p.Link(to); err != nil {
			return err
		}
		if target, _ := to.Entry(); target.Type == tar.TypeSymlink {
			return nil
		}
	default:
		open, err := t.content(s, e)
		if err != nil {
			return err
		}
		if err := p.Put(*e, open); err != nil {
			return err
		}
	}
	m := *e
	if t.o.Owner != nil {
		m.UID, m.GID = t.o.Owner[0], t.o.Owner[1]
	}
	return p.Set(m)
}

// content returns what reads a regular member again.
func (t *untar) content(s *scanner, e *Entry) (func() (io.ReadCloser, error), error) {
	if e.Type != tar.TypeReg || e.Size == 0 {
		return nil, nil
	}
	offset, size, extents := e.Offset, e.Size, e.Sparse
	if t.plain {
		if extents == nil {
			return func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(t.data, offset, size)), nil }, nil
		}
		packed := int64(0)
		for _, x := range extents {
			packed += x.Length
		}
		return func() (io.ReadCloser, error) {
			return io.NopCloser(&sparseReader{r: io.NewSectionReader(t.data, offset, packed), extents: extents, size: size}), nil
		}, nil
	}
	f, ok := t.data.(*os.File)
	if !ok {
		return nil, fs.ErrInvalid
	}
	offset = t.at
	n, err := io.Copy(f, s.data())
	t.at += n
	if err != nil {
		return nil, fmt.Errorf("spooling archive: %w", err)
	}
	return func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(t.data, offset, size)), nil }, nil
}
