package fileop

import (
	"archive/tar"
	"context"
	"errors"
	"io"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

// unpack puts the members of an archive below the destination; done is false when src is none.
func unpack(ctx context.Context, u *layer.Upper, view *layer.View, src string, a graph.FileCopy, own *ids, o Options) (done bool, err error) {
	n, err := view.Node(src, true)
	if err != nil {
		return false, nil //nolint:nilerr // the copy will say what is missing
	}
	if is, err := isArchive(ctx, n); err != nil || !is {
		return false, err
	}
	dest, err := u.Root().Walk(cleanKeep(a.Dest), true)
	if err != nil {
		return false, err
	}
	if err := mkdirAll(dest, 0o755, own, at(a.Time)); err != nil {
		return false, err
	}
	uo := layer.UnpackOptions{Limits: o.Limits, Spool: o.Spool}
	if own != nil {
		uo.Owner = &[2]int{own.uid, own.gid}
	}
	return true, u.Unpack(ctx, dest, n.Open, uo)
}

// isArchive reports whether a regular file begins with a member of a tar, compressed or not.
func isArchive(ctx context.Context, n layer.Node) (is bool, err error) {
	if n.Entry().Type != tar.TypeReg {
		return false, nil
	}
	f, err := n.Open()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r, err := layer.Decompress(ctx, f, layer.Limits{})
	if err != nil {
		return false, nil //nolint:nilerr // a file like any other
	}
	defer r.Close()
	_, err = tar.NewReader(io.LimitReader(r, 1<<20)).Next()
	return err == nil, nil
}
