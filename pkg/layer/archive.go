package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
)

// Archive adds the members of a tar (compressed or not) under dir, which is made when it is missing. Data
// is spooled to a file in the directory spool, or read again by offset when open
// gives an uncompressed io.ReaderAt (a file): it then stays open until Close. A member for dir itself counts only when dir was missing.
func (b *Builder) Archive(ctx context.Context, dir string, open func() (io.ReadCloser, error), spool string, lim Limits) (err error) {
	src, err := open()
	if err != nil {
		return err
	}
	keep := false
	defer func() {
		if !keep {
			src.Close()
		}
	}()
	data, plain, err := archiveData(src)
	if err != nil {
		return err
	}
	r, err := Decompress(ctx, src, lim)
	if err != nil {
		return err
	}
	defer r.Close()
	if plain {
		keep = true
		b.closers = append(b.closers, src)
	} else {
		f, err := os.CreateTemp(spool, "archive-")
		if err != nil {
			return fmt.Errorf("spooling archive: %w", err)
		}
		b.closers = append(b.closers, &spoolFile{f})
		data = f
	}

	root, err := cleanName(dir, defaultPathLen)
	if err != nil {
		return fmt.Errorf("unpacking to %q: %w", dir, err)
	}
	_, missing, err := b.lookup(root, true)
	if err != nil {
		return fmt.Errorf("unpacking to %q: %w", dir, err)
	}
	u := &unarchiver{b: b, root: root, fresh: missing != "", data: data, plain: plain}
	s := newScanner(ctx, r, nil, lim)
	for {
		e, err := s.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if err := u.entry(s, e); err != nil {
			return &EntryError{Name: e.Name, Offset: s.start, Err: err}
		}
	}
	if err := retryLinks(u.links, u.link); err != nil {
		return err
	}
	_, err = b.dir(root)
	return err
}

// archiveData returns src as random access when it is an uncompressed file, leaving it at its start.
func archiveData(src io.Reader) (r io.ReaderAt, plain bool, err error) {
	f, ok := src.(interface {
		io.ReaderAt
		io.Seeker
	})
	if !ok {
		return nil, false, nil
	}
	if at, err := f.Seek(0, io.SeekCurrent); err != nil || at != 0 {
		return nil, false, nil //nolint:nilerr // a pipe: spooled
	}
	head := make([]byte, blockSize)
	n, err := f.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return nil, false, err
	}
	return f, Sniff(head[:n]) == tarFormat, nil
}

// spoolFile is a temporary file that Close removes.
type spoolFile struct{ *os.File }

func (s *spoolFile) Close() error {
	err := s.File.Close()
	if rm := os.Remove(s.Name()); err == nil {
		err = rm
	}
	return err
}

type unarchiver struct {
	b     *Builder
	root  string
	fresh bool // root was not there before
	data  io.ReaderAt
	plain bool
	at    int64    // end of what was spooled
	links []*Entry // hard links whose target did not come before them
}

func (u *unarchiver) entry(s *scanner, e *Entry) error {
	in := *e
	if e.Name == "." {
		if !u.fresh || e.Opaque {
			return nil
		}
		in.Name = u.root
		return u.b.add(in, nil)
	}
	in.Name = joinName(u.root, e.Name)
	if len(u.links) > 0 && !e.Whiteout && !e.Opaque {
		u.links = slices.DeleteFunc(u.links, func(l *Entry) bool { return l.Name == in.Name })
	}
	switch {
	case e.Whiteout:
		if err := u.b.Remove(in.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	case e.Opaque:
		a, missing, err := u.b.lookup(in.Name, true)
		if err != nil || missing != "" {
			return err
		}
		a.hideBase()
		u.b.lastDir = nil
		return nil
	case e.Type == tar.TypeLink:
		in.Link = joinName(u.root, e.Link)
		done, err := u.link(&in)
		if err == nil && !done {
			u.links = append(u.links, &in)
		}
		return err
	case e.Type != tar.TypeReg || e.Size == 0:
		return u.b.add(in, nil)
	}
	offset, size := e.Offset, e.Size
	switch {
	case u.plain && e.Sparse == nil:
	case u.plain:
		extents, packed := e.Sparse, int64(0)
		for _, x := range extents {
			packed += x.Length
		}
		return u.b.add(in, func() (io.ReadCloser, error) {
			return io.NopCloser(&sparseReader{r: io.NewSectionReader(u.data, offset, packed), extents: extents, size: size}), nil
		})
	default:
		f, ok := u.data.(*os.File)
		if !ok {
			return fs.ErrInvalid
		}
		offset = u.at
		n, err := io.Copy(f, s.data())
		u.at += n
		if err != nil {
			return fmt.Errorf("spooling archive: %w", err)
		}
	}
	return u.b.add(in, func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(u.data, offset, size)), nil
	})
}

// link adds a hard link; done is false when its target is missing and may still come.
func (u *unarchiver) link(e *Entry) (done bool, err error) {
	_, missing, err := u.b.lookup(e.Link, false)
	if err != nil || missing != "" {
		return false, err
	}
	return true, u.b.add(*e, nil)
}

// hideBase hides what the base has below the directory a; what was added stays.
func (a *added) hideBase() {
	if a.base == nil {
		return
	}
	if a.file == nil {
		e := *a.base.ino.e
		a.file = &addedFile{e: e}
	}
	a.hides = true
	a.base = nil
	for c, k := range a.kids {
		if k.dropBase(); !k.live() {
			delete(a.kids, c)
		}
	}
}

// dropBase forgets the base from a on down.
func (a *added) dropBase() {
	if a.file == nil && a.base != nil && a.base.isDir() {
		if a.live() {
			a.file = &addedFile{e: implicitDir}
		}
	}
	a.base, a.gone, a.hides = nil, false, false
	for _, k := range a.kids {
		k.dropBase()
	}
}
