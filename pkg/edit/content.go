package edit

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// content is what an edited image consists of: what it had, what came from elsewhere, and what was made.
type content struct {
	img  source.Image
	docs map[digest.Digest][]byte
	made map[digest.Digest]*made
	from map[digest.Digest]source.Image
}

var _ transfer.Composite = (*content)(nil)

func newContent(img source.Image) *content {
	return &content{
		img: img, docs: map[digest.Digest][]byte{}, made: map[digest.Digest]*made{}, from: map[digest.Digest]source.Image{},
	}
}

// add takes over what an image became.
func (c *content) add(p *product) {
	for _, raw := range append(p.docs, p.manifest) {
		c.docs[digest.FromBytes(raw)] = raw
	}
	for d, m := range p.blobs {
		c.made[d] = m
	}
	for d, img := range p.from {
		c.from[d] = img
	}
}

// Ref implements transfer.Source.
func (c *content) Ref() ref.Ref { return c.img.Ref() }

// Origin implements transfer.Composite.
func (c *content) Origin(d digest.Digest) transfer.Source {
	if img := c.from[d]; img != nil {
		return img
	}
	if c.docs[d] != nil || c.made[d] != nil {
		return here{c}
	}
	return c.img
}

// Manifest implements transfer.Source.
func (c *content) Manifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if raw := c.docs[desc.Digest]; raw != nil {
		return raw, nil
	}
	return c.img.Manifest(ctx, desc)
}

// Blob implements transfer.Source.
func (c *content) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if raw := c.docs[desc.Digest]; raw != nil {
		return io.NopCloser(bytes.NewReader(raw)), nil
	}
	if m := c.made[desc.Digest]; m != nil {
		return m.open(), nil
	}
	if img := c.from[desc.Digest]; img != nil {
		return img.Blob(ctx, desc)
	}
	return c.img.Blob(ctx, desc)
}

// here is what was made: no place has it yet.
type here struct{ *content }

// Ref implements transfer.Source.
func (here) Ref() ref.Ref { return ref.Ref{} }

// Origin implements transfer.Composite.
func (h here) Origin(digest.Digest) transfer.Source { return h }

// Manifest implements transfer.Source.
func (h here) Manifest(_ context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if raw := h.docs[desc.Digest]; raw != nil {
		return raw, nil
	}
	return nil, fmt.Errorf("%w: %s was not made here", source.ErrNotFound, desc.Digest)
}
