package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// WriteTo writes the layer's tar: PAX only where needed, sorted, no atime, ctime, uname or gname.
func (b *Builder) WriteTo(ctx context.Context, w io.Writer) error {
	bw := builderWriter{b: b, ctx: ctx, tw: newTarWriter(w), written: map[*addedFile]string{}}
	if err := bw.write(b.root, "."); err != nil {
		return err
	}
	return bw.tw.close()
}

type builderWriter struct {
	b       *Builder
	ctx     context.Context //nolint:containedctx // lives as long as WriteTo
	tw      *tarWriter
	written map[*addedFile]string // name of the first of several hard links
}

// means reports whether a or something below it is part of the layer.
func (a *added) means() bool {
	if a.file != nil || a.gone {
		return true
	}
	for _, k := range a.kids {
		if k.means() {
			return true
		}
	}
	return false
}

func (w *builderWriter) write(a *added, name string) error {
	if err := context.Cause(w.ctx); err != nil {
		return err
	}
	live := a.live()
	switch {
	case a.file != nil:
		if err := w.file(a.file, name); err != nil {
			return err
		}
	case a.gone && !live:
		return w.tw.whiteout(name)
	case a.gone:
		e := w.b.parent
		if err := w.entry(e, name); err != nil {
			return err
		}
	case a.parent != nil && a.base != nil && needsMetadata(a.base.ino.e):
		if err := w.entry(*a.base.ino.e, name); err != nil {
			return err
		}
	}
	if a.isDir() && a.hides {
		if err := w.tw.opaque(name); err != nil {
			return err
		}
	}
	for _, c := range slices.Sorted(maps.Keys(a.kids)) {
		if k := a.kids[c]; k.means() {
			if err := w.write(k, joinName(name, c)); err != nil {
				return err
			}
		}
	}
	return nil
}

// needsMetadata reports whether an unpacker that makes a missing parent by itself would get it wrong.
func needsMetadata(e *Entry) bool {
	return e.Mode != 0o755 || e.UID != 0 || e.GID != 0 || len(e.Xattrs) > 0
}

func (w *builderWriter) entry(e Entry, name string) error {
	e.Name = name
	return w.tw.header(&e)
}

func (w *builderWriter) file(f *addedFile, name string) error {
	e := f.e
	e.Name = name
	if e.Type == tar.TypeDir {
		return w.tw.header(&e)
	}
	if to, ok := w.written[f]; ok {
		e.Type, e.Link, e.Size = tar.TypeLink, to, 0
		return w.tw.header(&e)
	}
	w.written[f] = name
	if e.Type != tar.TypeReg || e.Size == 0 {
		return w.tw.header(&e)
	}
	r, err := f.open()
	if err != nil {
		return fmt.Errorf("reading %q: %w", name, err)
	}
	err = w.tw.file(&e, &ctxReader{w.ctx, r})
	return errors.Join(err, r.Close())
}
