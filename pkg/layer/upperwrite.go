package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
)

// WriteTo writes the layer that the changes are: what differs from the base (times of directories alone do not
// count), each with the directories above it as they are now, and whiteouts of what is gone, sorted. Of the extended
// attributes only security.capability is kept, as by BuildKit.
func (u *Upper) WriteTo(ctx context.Context, w io.Writer) error {
	uw := upperWriter{ctx: ctx, tw: newTarWriter(w), names: map[*upperFile]string{}}
	if err := uw.dir(u.root, "."); err != nil {
		return err
	}
	return uw.tw.close()
}

type upperWriter struct {
	ctx   context.Context //nolint:containedctx // lives as long as WriteTo
	tw    *tarWriter
	names map[*upperFile]string // where a file that may have several names was written
}

// touched reports whether something was changed at p or below it.
func (p *Place) touched() bool {
	if p.file == nil && p.orig != nil || p.file != nil && p.file.own {
		return true
	}
	for _, k := range p.kids {
		if k.touched() {
			return true
		}
	}
	return false
}

func (w *upperWriter) dir(p *Place, name string) error {
	if err := context.Cause(w.ctx); err != nil {
		return err
	}
	if p.graft.n != nil {
		return w.graft(p, name)
	}
	names := make([]string, 0, len(p.kids))
	for n, k := range p.kids {
		if k.touched() {
			names = append(names, n)
		}
	}
	if p.hidden && p.orig != nil {
		for n := range p.orig.kids {
			if p.kids[n] == nil {
				names = append(names, n)
			}
		}
	}
	slices.Sort(names)
	for _, n := range names {
		if err := w.place(p.Kid(n), joinName(name, n)); err != nil {
			return err
		}
	}
	return nil
}

func (w *upperWriter) place(p *Place, name string) error {
	if p.file == nil {
		if p.orig == nil {
			return nil
		}
		if err := w.parents(p); err != nil {
			return err
		}
		return w.tw.whiteout(name)
	}
	same, err := p.asInBase()
	if err != nil {
		return err
	}
	if !same {
		if err := w.parents(p); err != nil {
			return err
		}
		if err := w.write(p, name); err != nil {
			return err
		}
	}
	if p.IsDir() {
		return w.dir(p, name)
	}
	return nil
}

// parents writes the directories above p that are not written yet.
func (w *upperWriter) parents(p *Place) error {
	d := p.parent
	if d.parent == nil || d.done {
		return nil
	}
	if err := w.parents(d); err != nil {
		return err
	}
	return w.write(d, d.Path())
}

func (w *upperWriter) write(p *Place, name string) error {
	p.done = true
	f := p.file
	e := *f.e
	e.Name, e.Xattrs = name, capabilityOf(&e)
	if e.Type == tar.TypeDir {
		return w.tw.header(&e)
	}
	if to, ok := w.names[f]; ok {
		e.Type, e.Link, e.Size = tar.TypeLink, to, 0
		return w.tw.header(&e)
	}
	if f.linked {
		w.names[f] = name
	}
	if e.Type != tar.TypeReg || e.Size == 0 {
		return w.tw.header(&e)
	}
	r, err := p.openFile()
	if err != nil {
		return fmt.Errorf("reading %q: %w", name, err)
	}
	err = w.tw.file(&e, &ctxReader{w.ctx, r})
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	if n := f.node; n.n != nil && n.n.ino.src >= 0 {
		if placed := n.v.srcs[n.n.ino.src].placed; placed != nil {
			placed(n.n.ino.e, w.tw.dataAt)
		}
	}
	return nil
}

func capabilityOf(e *Entry) map[string]string {
	if c, ok := e.Xattrs[xattrCapability]; ok {
		return map[string]string{xattrCapability: c}
	}
	return nil
}

func (p *Place) openFile() (io.ReadCloser, error) {
	switch f := p.file; {
	case f.open != nil:
		return f.open()
	case f.node.n != nil:
		return f.node.Open()
	}
	return p.u.base.open(p.file.from)
}

// asInBase reports whether p is what the base has there: a directory whatever its time, anything else with its time in
// seconds and its content.
func (p *Place) asInBase() (bool, error) {
	if p.orig == nil {
		return false, nil
	}
	a, b := p.orig.ino.e, p.file.e
	mode := int64(0o7777)
	if b.Type == tar.TypeSymlink {
		mode = 0
	}
	if p.file.from != p.orig.ino && a.Type == tar.TypeReg && p.file.e.Type == tar.TypeReg && a.Size != b.Size {
		return false, nil
	}
	if a.Type != b.Type || a.Mode&mode != b.Mode&mode || a.UID != b.UID || a.GID != b.GID || a.Major != b.Major || a.Minor != b.Minor ||
		a.Xattrs[xattrCapability] != b.Xattrs[xattrCapability] {
		return false, nil
	}
	if b.Type == tar.TypeDir {
		return true, nil
	}
	if a.ModTime.Unix() != b.ModTime.Unix() || a.Link != b.Link {
		return false, nil
	}
	if p.file.from == p.orig.ino || b.Type != tar.TypeReg || b.Size == 0 {
		return true, nil
	}
	return p.sameContent()
}

func (p *Place) sameContent() (bool, error) {
	theirs, err := p.u.base.sumOf(p.orig.ino, func() (io.ReadCloser, error) { return p.u.base.open(p.orig.ino) })
	if err != nil {
		return false, err
	}
	r, err := p.openFile()
	if err != nil {
		return false, err
	}
	ours, err := sumReader(r)
	return ours == theirs, errors.Join(err, r.Close())
}
