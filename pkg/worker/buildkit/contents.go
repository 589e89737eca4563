package buildkit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	cerrdefs "github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/store"
)

// contents is the store as nodes see it: they read the blobs of images that the build ships, and write the layers that
// they made. Nothing else of the store can be read, and nothing in it can be changed.
type contents struct {
	store *store.Store
	bring func(ctx context.Context, desc ocispec.Descriptor) error

	mu      sync.Mutex // guards what follows
	small   map[digest.Digest][]byte
	shipped map[digest.Digest]ocispec.Descriptor
	// known tells whether a blob need not be sent: it waits until that is known. nil: all are wanted.
	known func(ctx context.Context, d digest.Digest) bool
}

var _ content.Store = (*contents)(nil)

func newContents(st *store.Store, bring func(context.Context, ocispec.Descriptor) error) *contents {
	return &contents{store: st, bring: bring, small: map[digest.Digest][]byte{}, shipped: map[digest.Digest]ocispec.Descriptor{}}
}

// ship lets nodes read a blob of the store.
func (c *contents) ship(desc ocispec.Descriptor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shipped[desc.Digest] = desc
}

// shipBytes lets nodes read a document.
func (c *contents) shipBytes(raw []byte) digest.Digest {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := digest.FromBytes(raw)
	c.small[d] = raw
	return d
}

// Info implements content.InfoProvider.
func (c *contents) Info(_ context.Context, d digest.Digest) (content.Info, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if raw, ok := c.small[d]; ok {
		return content.Info{Digest: d, Size: int64(len(raw))}, nil
	}
	if desc, ok := c.shipped[d]; ok {
		return content.Info{Digest: d, Size: desc.Size}, nil
	}
	return content.Info{}, absent(d)
}

func absent(d digest.Digest) error { return fmt.Errorf("blob %s: %w", d, cerrdefs.ErrNotFound) }

// ReaderAt implements content.Provider.
func (c *contents) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	c.mu.Lock()
	raw, small := c.small[desc.Digest]
	known, shipped := c.shipped[desc.Digest]
	c.mu.Unlock()
	switch {
	case small:
		return bytesAt{bytes.NewReader(raw)}, nil
	case !shipped:
		return nil, absent(desc.Digest)
	}
	if _, err := c.store.Stat(desc.Digest); err != nil {
		if err := c.bring(ctx, known); err != nil {
			return nil, err
		}
	}
	return c.store.OpenAt(desc.Digest)
}

// bytesAt is a document as a blob.
type bytesAt struct{ *bytes.Reader }

// Close implements content.ReaderAt.
func (bytesAt) Close() error { return nil }

// Writer implements content.Ingester.
func (c *contents) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if d := o.Desc.Digest; d != "" {
		_, err := c.store.Stat(d)
		c.mu.Lock()
		known := c.known
		c.mu.Unlock()
		if err == nil || known != nil && known(ctx, d) {
			return nil, fmt.Errorf("blob %s: %w", d, cerrdefs.ErrAlreadyExists)
		}
	}
	in, err := c.store.Ingest(ctx)
	if err != nil {
		return nil, err
	}
	return &writer{ref: o.Ref, desc: o.Desc, in: in, began: time.Now()}, nil
}

// writer is a blob on its way from a node.
type writer struct {
	ref   string
	desc  ocispec.Descriptor
	in    *store.Ingest
	size  int64
	got   digest.Digest
	began time.Time
}

var _ content.Writer = (*writer)(nil)

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	n, err := w.in.Write(p)
	w.size += int64(n)
	return n, err
}

// Close implements io.Closer: what was not committed is gone.
func (w *writer) Close() error {
	w.in.Abort()
	return nil
}

// Digest implements content.Writer.
func (w *writer) Digest() digest.Digest { return w.got }

// Commit implements content.Writer.
func (w *writer) Commit(ctx context.Context, size int64, expected digest.Digest, _ ...content.Opt) error {
	if size > 0 && size != w.size {
		return fmt.Errorf("blob %s: %d bytes, not %d: %w", expected, w.size, size, cerrdefs.ErrFailedPrecondition)
	}
	got, err := w.in.Commit(ctx, w.desc.MediaType)
	if err != nil {
		return err
	}
	w.got = got.Digest
	if expected != "" && got.Digest != expected {
		return fmt.Errorf("received %s, not %s: %w", got.Digest, expected, errors.Join(cerrdefs.ErrFailedPrecondition, store.ErrCorrupt))
	}
	return nil
}

// Status implements content.Writer.
func (w *writer) Status() (content.Status, error) {
	return content.Status{Ref: w.ref, Offset: w.size, Total: w.desc.Size, Expected: w.desc.Digest, StartedAt: w.began, UpdatedAt: w.began}, nil
}

// Truncate implements content.Writer: a blob is sent from its begin, in order.
func (w *writer) Truncate(size int64) error {
	if size != w.size {
		return fmt.Errorf("a blob cannot be begun again: %w", cerrdefs.ErrNotImplemented)
	}
	return nil
}

// Status implements content.IngestManager.
func (c *contents) Status(_ context.Context, ref string) (content.Status, error) {
	return content.Status{}, fmt.Errorf("ingest %q: %w", ref, cerrdefs.ErrNotFound)
}

// ListStatuses implements content.IngestManager.
func (c *contents) ListStatuses(context.Context, ...string) ([]content.Status, error) {
	return nil, nil
}

// Abort implements content.IngestManager.
func (c *contents) Abort(context.Context, string) error { return nil }

// Update implements content.Manager.
func (c *contents) Update(_ context.Context, info content.Info, _ ...string) (content.Info, error) {
	return info, nil
}

// Walk implements content.Manager: nodes name what they want.
func (c *contents) Walk(context.Context, content.WalkFunc, ...string) error {
	return cerrdefs.ErrNotImplemented
}

// Delete implements content.Manager.
func (c *contents) Delete(context.Context, digest.Digest) error { return cerrdefs.ErrNotImplemented }
