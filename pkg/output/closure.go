package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// maxDepth is how deep indexes may hold indexes (ROBUSTNESS.md b07).
const maxDepth = 8

// document is a manifest or index: what is pushed as such.
type document struct {
	desc ocispec.Descriptor
	raw  []byte
}

// closure is all that a product consists of, each digest once.
type closure struct {
	docs    []document           // children before what names them; the root is the last
	blobs   []ocispec.Descriptor // configs and layers, in the order of the images
	raw     map[digest.Digest][]byte
	content Content
}

// closureOf lists what p.Root reaches. A child that is missing, or is not what its descriptor says, is an error:
// nothing has been written by then.
func closureOf(ctx context.Context, p Product) (*closure, error) {
	c := &closure{raw: map[digest.Digest][]byte{}, content: p.Content}
	for _, img := range p.Images {
		c.raw[img.Desc.Digest] = img.Manifest
		c.raw[img.CfgDesc.Digest] = img.Config
	}
	c.raw[p.Root.Digest] = p.Raw
	seen := map[digest.Digest]bool{}
	if err := c.add(ctx, p.Root, seen, 0); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *closure) add(ctx context.Context, desc ocispec.Descriptor, seen map[digest.Digest]bool, depth int) error {
	if seen[desc.Digest] {
		return nil
	}
	seen[desc.Digest] = true
	if depth > maxDepth {
		return fmt.Errorf("%s: indexes in indexes deeper than %d", desc.Digest, maxDepth)
	}
	raw, err := c.read(ctx, desc)
	if err != nil {
		return fmt.Errorf("manifest %s: %w", desc.Digest, err)
	}
	switch {
	case index.IsIndex(desc.MediaType):
		idx, err := index.Parse(raw)
		if err != nil {
			return fmt.Errorf("index %s: %w", desc.Digest, err)
		}
		for _, child := range idx.Manifests {
			if err := c.add(ctx, child, seen, depth+1); err != nil {
				return err
			}
		}
	case index.IsManifest(desc.MediaType):
		m, err := index.ParseManifest(raw)
		if err != nil {
			return fmt.Errorf("manifest %s: %w", desc.Digest, err)
		}
		for _, b := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
			if !seen[b.Digest] {
				seen[b.Digest] = true
				c.blobs = append(c.blobs, b)
			}
		}
	}
	c.docs = append(c.docs, document{desc, raw})
	return nil
}

// read returns a document, verified.
func (c *closure) read(ctx context.Context, desc ocispec.Descriptor) (_ []byte, err error) {
	raw, ok := c.raw[desc.Digest]
	if !ok {
		if desc.Size > index.MaxSize {
			return nil, fmt.Errorf("its %d bytes are more than the limit of %d", desc.Size, index.MaxSize)
		}
		r, err := c.content.Open(ctx, desc)
		if err != nil {
			return nil, err
		}
		raw, err = io.ReadAll(io.LimitReader(r, index.MaxSize+1))
		if err = errors.Join(err, r.Close()); err != nil {
			return nil, err
		}
	}
	if int64(len(raw)) != desc.Size {
		return nil, fmt.Errorf("it has %d bytes, its descriptor says %d", len(raw), desc.Size)
	}
	if !desc.Digest.Algorithm().Available() {
		return nil, fmt.Errorf("%q is an unsupported digest algorithm", desc.Digest.Algorithm())
	}
	if got := desc.Digest.Algorithm().FromBytes(raw); got != desc.Digest {
		return nil, fmt.Errorf("its digest is %s", got)
	}
	return raw, nil
}

// open gives the bytes of a document, a config or a layer.
func (c *closure) open(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if raw, ok := c.raw[desc.Digest]; ok {
		return io.NopCloser(bytes.NewReader(raw)), nil
	}
	return c.content.Open(ctx, desc)
}

// fresh opens the file of a blob that was verified a moment ago.
func (c *closure) fresh(desc ocispec.Descriptor) (*os.File, bool) {
	if _, ok := c.raw[desc.Digest]; ok {
		return nil, false
	}
	f, ok := c.content.(Fresh)
	if !ok {
		return nil, false
	}
	return f.Fresh(desc)
}

// opener opens a blob again and again.
func (c *closure) opener(desc ocispec.Descriptor) registry.Open {
	return func(ctx context.Context) (io.ReadCloser, error) { return c.open(ctx, desc) }
}

// copy writes a blob to w, all of it or an error.
func (c *closure) copy(ctx context.Context, w io.Writer, desc ocispec.Descriptor) (err error) {
	r, err := c.open(ctx, desc)
	if err != nil {
		return fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	n, err := io.Copy(w, contextReader{ctx, r})
	if err == nil && n != desc.Size {
		err = fmt.Errorf("it has %d bytes, its descriptor says %d", n, desc.Size)
	}
	if err != nil {
		return fmt.Errorf("blob %s: %w", desc.Digest, err)
	}
	return nil
}

// all lists every blob with the documents, in an order fit for writing.
func (c *closure) all() []ocispec.Descriptor {
	out := append([]ocispec.Descriptor(nil), c.blobs...)
	for _, d := range c.docs {
		out = append(out, d.desc)
	}
	return out
}

// size is the sum of all blobs.
func (c *closure) size() (n int64) {
	for _, d := range c.all() {
		n += d.Size
	}
	return n
}

// contextReader stops with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
