package local

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/solve"
)

func openBytes(b []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

// hasGlob reports whether p is a pattern rather than a name.
func hasGlob(p string) bool { return strings.ContainsAny(p, "*?[") }

// matches returns the names in view that pattern means. A literal name that is not there is an error.
func matches(view *layer.View, pattern string) ([]string, error) {
	if hasGlob(pattern) {
		return view.Glob(pattern)
	}
	if _, ok := view.Lstat(pattern); !ok {
		return nil, fmt.Errorf("no %s in the rootfs", pattern)
	}
	return []string{pattern}, nil
}

// copyKey is the base's content and that of exactly the copied paths.
func (w *Worker) copyKey(ctx context.Context, op graph.Copy, inputs []solve.Result) (_ digest.Digest, err error) {
	from, err := w.View(ctx, inputs[1].Layers)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	names, err := matches(from, op.Source)
	if err != nil {
		return "", err
	}
	parts := []digest.Digest{inputs[0].Identity()}
	for _, name := range names {
		d, err := from.Digest(name)
		if err != nil {
			return "", err
		}
		parts = append(parts, digest.FromString(name), d)
	}
	return digestOf(parts...), nil
}

// copy makes the layer of a copy straight from the source's layers.
func (w *Worker) copy(ctx context.Context, op graph.Copy, inputs []solve.Result) (_ solve.Result, err error) {
	from, err := w.View(ctx, inputs[1].Layers)
	if err != nil {
		return solve.Result{}, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	names, err := matches(from, op.Source)
	if err != nil {
		return solve.Result{}, err
	}
	if len(names) == 0 {
		return solve.Result{}, fmt.Errorf("nothing matches %s in the source", op.Source)
	}
	return w.change(ctx, inputs[0], time.Unix(op.Time, 0), func(b *layer.Builder, view *layer.View) error {
		c := copier{b: b, from: from, mode: op.Mode}
		if op.Owner != "" {
			uid, gid, err := view.LookupOwner(op.Owner)
			if err != nil {
				return err
			}
			c.owner = &[2]int{uid, gid}
		}
		for _, name := range names {
			dst := op.Path
			if hasGlob(op.Source) {
				dst = path.Join(op.Path, path.Base(name))
			}
			if err := c.tree(ctx, name, dst); err != nil {
				return err
			}
		}
		return nil
	})
}

// copier adds trees of one view to a builder.
type copier struct {
	b     *layer.Builder
	from  *layer.View
	mode  *uint32
	owner *[2]int
}

// tree adds src, a file or a directory with all below it, under the name dst.
func (c copier) tree(ctx context.Context, src, dst string) error {
	// A symlink that is named itself is followed, as cp does with its arguments; those below are kept.
	top, ok := c.from.Stat(src)
	if !ok {
		return fmt.Errorf("%s leads nowhere", src)
	}
	base := top.Name
	return c.from.Walk(base, func(e layer.Entry, open func() (io.ReadCloser, error)) error {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		name, _ := under(base, e.Name)
		out := e
		out.Name = path.Join(dst, name)
		if e.Type == tar.TypeLink {
			if rel, ok := under(base, e.Link); ok {
				out.Link = strings.TrimPrefix(path.Join("/", dst, rel), "/")
				open = nil
			} else { // a link to a file outside of what is copied: its data comes along
				out.Type, out.Link = tar.TypeReg, ""
				target, ok := c.from.Stat(e.Name)
				if !ok {
					return fmt.Errorf("%s leads nowhere", e.Name)
				}
				out.Size = target.Size
				open = func() (io.ReadCloser, error) { return c.from.Open(e.Name) }
			}
		}
		if c.mode != nil && out.Type != tar.TypeSymlink {
			out.Mode = int64(*c.mode)
		}
		if c.owner != nil {
			out.UID, out.GID = c.owner[0], c.owner[1]
		}
		return c.b.Add(out, open)
	})
}

// under returns name relative to base, "" for base itself; false when it is not below.
func under(base, name string) (string, bool) {
	switch {
	case base == "." || base == "":
		return name, true
	case name == base:
		return "", true
	}
	return strings.CutPrefix(name, base+"/")
}

// remove makes the whiteouts of a remove.
func (w *Worker) remove(ctx context.Context, op graph.Remove, below solve.Result) (solve.Result, error) {
	return w.change(ctx, below, time.Unix(0, 0), func(b *layer.Builder, view *layer.View) error {
		for _, p := range op.Paths {
			names, err := matches(view, p)
			if err != nil {
				return err
			}
			for _, name := range names {
				if err := b.Remove(name); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
