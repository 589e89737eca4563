package diff

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// File is a file that differs. What says in which respect: "content", "mode", "owner", "type", "link", "xattrs", "device".
// Times are not compared.
type File struct {
	Status Status   `json:"status"`
	Path   string   `json:"path"` // absolute
	What   []string `json:"what,omitempty"`
	SizeA  int64    `json:"sizeA,omitempty"`
	SizeB  int64    `json:"sizeB,omitempty"`
}

// node is a file of a tree.
type node struct {
	layer.Entry
	open func() (io.ReadCloser, error)
}

// files compares the merged trees of two images.
func files(ctx context.Context, a, b *half, o Options) (_ []File, err error) {
	if slices.Equal(a.config.DiffIDs, b.config.DiffIDs) {
		return nil, nil
	}
	var trees [2]map[string]node
	for i, h := range []*half{a, b} {
		tree, err := source.View(ctx, h.img, h.manifest.Layers, h.config.DiffIDs, o.Spool)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, tree.Close()) }()
		trees[i] = map[string]node{}
		err = tree.Walk("/", func(e layer.Entry, open func() (io.ReadCloser, error)) error {
			trees[i][e.Name] = node{e, open}
			return ctx.Err()
		})
		if err != nil {
			return nil, err
		}
	}
	x, y := trees[0], trees[1]
	names := slices.Collect(maps.Keys(x))
	for n := range y {
		if _, both := x[n]; !both {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	var out []File
	for _, n := range names {
		l, inA := x[n]
		r, inB := y[n]
		f := File{Path: "/" + n, SizeA: l.Size, SizeB: r.Size}
		if n == "." {
			f.Path = "/"
		}
		switch {
		case !inA:
			f.Status = Added
		case !inB:
			f.Status = Removed
		default:
			f.Status = Changed
			if f.What, err = what(l, r); err != nil {
				return nil, fmt.Errorf("/%s: %w", n, err)
			}
			if len(f.What) == 0 {
				continue
			}
		}
		out = append(out, f)
	}
	return out, nil
}

// what says in which respects two files differ.
func what(a, b node) ([]string, error) {
	var out []string
	add := func(name string, differs bool) {
		if differs {
			out = append(out, name)
		}
	}
	add("type", a.Type != b.Type)
	add("mode", a.Mode != b.Mode)
	add("owner", a.UID != b.UID || a.GID != b.GID)
	add("link", a.Link != b.Link)
	add("device", a.Major != b.Major || a.Minor != b.Minor)
	add("xattrs", !maps.Equal(a.Xattrs, b.Xattrs))
	if a.Type != tar.TypeReg || b.Type != tar.TypeReg {
		return out, nil
	}
	if a.Size != b.Size {
		return append(out, "content"), nil
	}
	x, err := sum(a)
	if err != nil {
		return nil, err
	}
	y, err := sum(b)
	add("content", x != y)
	return out, err
}

func sum(n node) (_ digest.Digest, err error) {
	if n.open == nil || n.Size == 0 {
		return "", nil
	}
	rc, err := n.open()
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	return digest.Canonical.FromReader(rc)
}
