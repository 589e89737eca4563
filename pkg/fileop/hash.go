package fileop

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
	"path"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

// Hash identifies what a copy takes from view: names below the source, types, modes, owners, links, capabilities and
// data, but no times.
func Hash(ctx context.Context, view *layer.View, a graph.FileCopy) (digest.Digest, error) {
	if view == nil {
		var err error
		if view, err = layer.NewView(nil); err != nil {
			return "", err
		}
	}
	names, err := sources(view, a)
	if err != nil {
		return "", err
	}
	f, err := newFilter(a)
	if err != nil {
		return "", err
	}
	h := hasher{ctx: ctx, h: sha256.New(), filter: f, seen: map[any]string{}}
	for _, name := range names {
		n, err := sourceNode(view, name, a.FollowSymlink || a.Unpack)
		if err != nil {
			return "", notFound(name, err)
		}
		h.text(path.Base(name))
		clear(h.seen)
		if err := h.node(n, "", matched{}); err != nil {
			return "", err
		}
	}
	return digest.NewDigest(digest.SHA256, h.h), nil
}

type hasher struct {
	ctx    context.Context //nolint:containedctx // lives as long as Hash
	h      hash.Hash
	filter filter
	seen   map[any]string // files with several names
}

func (h *hasher) num(n int64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n))
	h.h.Write(b[:])
}

func (h *hasher) text(s string) {
	h.num(int64(len(s)))
	_, _ = io.WriteString(h.h, s)
}

func (h *hasher) node(n layer.Node, rel string, in matched) error {
	if err := context.Cause(h.ctx); err != nil {
		return err
	}
	include, excluded, m, err := h.filter.match(rel, in)
	if err != nil {
		return err
	}
	dir := n.IsDir()
	// A directory that is not included may still be made for something in it.
	if include || dir && !excluded || dir && h.filter.exceptions() {
		if err := h.entry(n, rel, include); err != nil {
			return err
		}
	}
	if !dir || excluded && !h.filter.exceptions() {
		return nil
	}
	for _, kid := range n.Kids() {
		if err := h.node(kid, path.Join(rel, kid.Base()), m); err != nil {
			return err
		}
	}
	return nil
}

func (h *hasher) entry(n layer.Node, rel string, include bool) error {
	e := n.Entry()
	h.text(rel)
	h.num(int64(e.Type))
	if include {
		h.num(1)
	} else {
		h.num(0)
	}
	if id, links := n.File(); links > 1 && e.Type == tar.TypeReg {
		if first, ok := h.seen[id]; ok {
			h.text("link")
			h.text(first)
			return nil
		}
		h.seen[id] = rel
	}
	h.text(e.Link)
	for _, v := range []int64{e.Mode, int64(e.UID), int64(e.GID), e.Major, e.Minor, e.Size} {
		h.num(v)
	}
	h.text(e.Xattrs["security.capability"])
	if e.Type != tar.TypeReg {
		return nil
	}
	sum, err := n.Sum()
	h.h.Write(sum[:])
	return err
}
