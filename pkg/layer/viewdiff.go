package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
)

// WriteDiff writes the layer that makes from look like to: what to has that is not the same in from, with the
// directories above it, and whiteouts of what it does not have.
func WriteDiff(ctx context.Context, w io.Writer, from, to *View) error {
	d := viewDiffer{ctx: ctx, tw: newTarWriter(w), from: from, to: to, names: map[*inode]string{}, done: map[*node]bool{}}
	if err := d.dir(from.t.root, to.t.root); err != nil {
		return err
	}
	return d.tw.close()
}

type viewDiffer struct {
	ctx      context.Context //nolint:containedctx // lives as long as WriteDiff
	tw       *tarWriter
	from, to *View
	names    map[*inode]string
	done     map[*node]bool
}

// dir compares two directories; a is nil when from has none there.
func (d *viewDiffer) dir(a, b *node) error {
	if err := context.Cause(d.ctx); err != nil {
		return err
	}
	var names []string
	for name := range b.kids {
		names = append(names, name)
	}
	if a != nil {
		for name := range a.kids {
			if b.kids[name] == nil {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	for _, name := range names {
		var was *node
		if a != nil {
			was = a.kids[name]
		}
		now := b.kids[name]
		if now == nil {
			if err := d.parents(b); err != nil {
				return err
			}
			if err := d.tw.whiteout(joinName(b.path(), name)); err != nil {
				return err
			}
			continue
		}
		if err := d.node(was, now); err != nil {
			return err
		}
	}
	return nil
}

func (d *viewDiffer) node(a, b *node) error {
	same := false
	if a != nil {
		var err error
		if same, err = d.same(a, b); err != nil {
			return err
		}
	}
	if !same {
		if err := d.parents(b.parent); err != nil {
			return err
		}
		if err := d.write(b); err != nil {
			return err
		}
	}
	if !b.isDir() {
		return nil
	}
	if a != nil && !a.isDir() {
		a = nil
	}
	return d.dir(a, b)
}

func (d *viewDiffer) parents(n *node) error {
	if n.parent == nil || d.done[n] {
		return nil
	}
	if err := d.parents(n.parent); err != nil {
		return err
	}
	return d.write(n)
}

func (d *viewDiffer) write(n *node) (err error) {
	d.done[n] = true
	e := *n.ino.e
	e.Name = n.path()
	e.Sparse, e.Offset = nil, 0
	if e.Type != tar.TypeDir {
		if to, ok := d.names[n.ino]; ok {
			e.Type, e.Link, e.Size = tar.TypeLink, to, 0
			return d.tw.header(&e)
		}
		d.names[n.ino] = e.Name
	}
	if e.Type != tar.TypeReg || e.Size == 0 {
		return d.tw.header(&e)
	}
	r, err := d.to.open(n.ino)
	if err != nil {
		return fmt.Errorf("reading %q: %w", e.Name, err)
	}
	return errors.Join(d.tw.file(&e, &ctxReader{d.ctx, r}), r.Close())
}

func (d *viewDiffer) same(a, b *node) (bool, error) {
	x, y := a.ino.e, b.ino.e
	if x.Type != y.Type || x.Mode != y.Mode || x.UID != y.UID || x.GID != y.GID || x.Major != y.Major || x.Minor != y.Minor || x.Link != y.Link ||
		x.Xattrs[xattrCapability] != y.Xattrs[xattrCapability] {
		return false, nil
	}
	if x.Type == tar.TypeDir {
		return true, nil
	}
	if x.Size != y.Size || x.ModTime.Unix() != y.ModTime.Unix() {
		return false, nil
	}
	if x.Type != tar.TypeReg || x.Size == 0 {
		return true, nil
	}
	sx, err := d.from.sumOf(a.ino, func() (io.ReadCloser, error) { return d.from.open(a.ino) })
	if err != nil {
		return false, err
	}
	sy, err := d.to.sumOf(b.ino, func() (io.ReadCloser, error) { return d.to.open(b.ino) })
	return sx == sy, err
}
