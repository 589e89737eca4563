// Package remotecache keeps the records of steps where other machines find them: under a tag of a registry, in a
// directory, or in the images themselves. One tag holds all platforms, and writers of different platforms keep each other's.
//
// Layers are not fetched when a record is found, but when their bytes are needed; often they never are.
//
// # Invariants
//
//   - A record counts only while the place still holds its layers.
//   - Bytes of layers and tables of contents are verified as they arrive; a table must be that of its layer.
//   - An export is complete before its tag names it, and drops no record of another platform.
package remotecache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/manifestctl/manifestctl/pkg/event"
	tar "github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// checks is how many layers are looked for at once.
const checks = 16

// Cache is the store's step cache with what other places know. It is safe for concurrent use.
type Cache struct {
	local  solve.Cache
	opener *source.Opener
	events event.Sink
	slots  *semaphore.Weighted

	records map[digest.Digest]record // what was imported; not changed after Open
	layers  map[digest.Digest]*known // by diffID; likewise
	images  []source.Image
}

// known is an imported layer.
type known struct {
	layer
	from   source.Image
	repo   ref.Ref // of a registry: where the blob is
	inline bool

	once    sync.Once
	present bool
}

var _ solve.Cache = (*Cache)(nil)

// Open reads the records of all specs. A place that does not exist yet, or that cannot be read, is a warning: the build is
// only slower for it. Close the cache after use.
func Open(ctx context.Context, local solve.Cache, opener *source.Opener, specs []Spec, events event.Sink) (*Cache, error) {
	c := &Cache{
		local: local, opener: opener, events: events, slots: semaphore.NewWeighted(checks),
		records: map[digest.Digest]record{}, layers: map[digest.Digest]*known{},
	}
	for _, s := range specs {
		err := c.read(ctx, s)
		switch {
		case context.Cause(ctx) != nil:
			return nil, errors.Join(context.Cause(ctx), c.Close())
		case errors.Is(err, source.ErrNotFound), errors.Is(err, registry.ErrNotFound):
			events.Emit(event.Event{Kind: event.Warning, Text: fmt.Sprintf("%s is not there yet", s)})
		case err != nil:
			events.Emit(event.Event{Kind: event.Warning, Text: fmt.Sprintf("%s is not used: %v", s, err)})
		}
	}
	return c, nil
}

// Close closes the places.
func (c *Cache) Close() error {
	var errs []error
	for _, img := range c.images {
		errs = append(errs, img.Close())
	}
	return errors.Join(errs...)
}

// Get implements solve.Cache: the store's record, else an imported one whose layers are still there.
func (c *Cache) Get(ctx context.Context, key digest.Digest) (solve.Record, bool) {
	if r, ok := c.local.Get(ctx, key); ok {
		return r, true
	}
	r, ok := c.records[key]
	if !ok {
		return solve.Record{}, false
	}
	out := solve.Record{Name: r.Name, Platform: r.Platform}
	if out.Layers, ok = c.resolve(ctx, r.Layers); !ok {
		return solve.Record{}, false
	}
	for i, ids := range r.More {
		layers, ok := c.resolve(ctx, ids)
		if !ok {
			return solve.Record{}, false
		}
		if out.More == nil {
			out.More = map[int][]solve.Layer{}
		}
		out.More[i] = layers
	}
	return out, true
}

// Put implements solve.Cache.
func (c *Cache) Put(ctx context.Context, key digest.Digest, r solve.Record) error {
	return c.local.Put(ctx, key, r)
}

// resolve makes layers of diffIDs, if all of them are still there.
func (c *Cache) resolve(ctx context.Context, ids []digest.Digest) ([]solve.Layer, bool) {
	out := make([]solve.Layer, len(ids))
	var wg sync.WaitGroup
	missing := false
	for i, id := range ids {
		k := c.layers[id]
		if k == nil || k.Blob == nil {
			return nil, false
		}
		out[i] = solve.Layer{DiffID: id, Size: k.Size}
		wg.Go(func() { c.check(ctx, k) })
	}
	wg.Wait()
	for _, id := range ids {
		missing = missing || !c.layers[id].present
	}
	return out, !missing
}

// check looks once whether a layer is there.
func (c *Cache) check(ctx context.Context, k *known) {
	k.once.Do(func() {
		if c.slots.Acquire(ctx, 1) != nil {
			return
		}
		defer c.slots.Release(1)
		if k.repo.Kind == ref.Registry && c.opener.Registry != nil {
			k.present, _ = c.opener.Registry.HasBlob(ctx, k.repo, k.Blob.Digest) // an error is as bad as its absence
			return
		}
		rc, err := k.from.Blob(ctx, *k.Blob)
		if err != nil {
			return
		}
		k.present = rc.Close() == nil
	})
}

// Blob says in what form and where an imported layer lies: its descriptor, its compression, and the repositories of registries
// that hold it.
func (c *Cache) Blob(diffID digest.Digest) (desc ocispec.Descriptor, compression string, places []ref.Ref, ok bool) {
	k := c.layers[diffID]
	if k == nil || k.Blob == nil || !k.present {
		return ocispec.Descriptor{}, "", nil, false
	}
	if k.repo.Kind == ref.Registry {
		places = []ref.Ref{k.repo}
	}
	return *k.Blob, k.Compression, places, true
}

// OpenBlob opens the compressed bytes of an imported layer; whoever reads them to EOF has verified them.
func (c *Cache) OpenBlob(ctx context.Context, diffID digest.Digest) (ocispec.Descriptor, io.ReadCloser, error) {
	k := c.layers[diffID]
	if k == nil || k.Blob == nil {
		return ocispec.Descriptor{}, nil, fmt.Errorf("layer %s: %w in any cache", diffID, store.ErrNotFound)
	}
	rc, err := k.from.Blob(ctx, *k.Blob)
	return *k.Blob, rc, err
}

// TOC returns a layer's table of contents, if a place has it.
func (c *Cache) TOC(ctx context.Context, diffID digest.Digest) (*tar.TOC, bool) {
	k := c.layers[diffID]
	if k == nil || k.TOC == nil {
		return nil, false
	}
	toc, err := readTOC(ctx, k)
	if err != nil { // the layer itself tells
		c.events.Emit(event.Event{Kind: event.Warning, Text: fmt.Sprintf("the table of contents of layer %s: %v", diffID, err)})
		return nil, false
	}
	return toc, true
}

func readTOC(ctx context.Context, k *known) (_ *tar.TOC, err error) {
	rc, err := k.from.Blob(ctx, *k.TOC)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	plain, err := tar.Decompress(ctx, rc, tar.Limits{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, plain.Close()) }()
	data, err := io.ReadAll(io.LimitReader(plain, maxTOC+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxTOC {
		return nil, fmt.Errorf("%w: it has more than %d bytes", ErrInvalid, maxTOC)
	}
	toc := new(tar.TOC)
	if err := toc.UnmarshalBinary(data); err != nil {
		return nil, err
	}
	if toc.DiffID != k.DiffID {
		return nil, fmt.Errorf("%w: it is that of layer %s", ErrInvalid, toc.DiffID)
	}
	return toc, nil
}
