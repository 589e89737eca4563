// Package remotecache keeps the records of steps where other machines find them: under a tag of a registry, in a
// directory, or in the images themselves. One tag holds all platforms, and writers of different platforms keep each other's.
//
// Layers are not fetched when a record is found, but when their bytes are needed; often they never are.
//
// # Invariants
//
//   - A record counts only while the place still holds its layers.
//   - Bytes of layers and of notes on them are verified as they arrive.
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
	store  *store.Store // where notes go; may be nil
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
	from source.Image
	repo ref.Ref // of a registry: where the blob is

	look    sync.Once // sets present
	present bool
	learn   sync.Once // sets learned
	learned bool
}

var _ solve.Cache = (*Cache)(nil)

// Open reads the records of all specs. A place that does not exist yet, or that cannot be read, is a warning: the build is
// only slower for it. Close the cache after use.
func Open(ctx context.Context, local solve.Cache, st *store.Store, opener *source.Opener, specs []Spec, events event.Sink) (*Cache, error) {
	c := &Cache{
		local: local, store: st, opener: opener, events: events, slots: semaphore.NewWeighted(checks),
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
	k.look.Do(func() {
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

// Learn brings the notes on a layer into the store, and reports whether there were any. What they say is checked by whoever
// reads them there.
func (c *Cache) Learn(ctx context.Context, diffID digest.Digest) bool {
	k := c.layers[diffID]
	if k == nil || c.store == nil || len(k.Notes) < len(noteKinds) {
		return false
	}
	k.learn.Do(func() {
		for _, kind := range noteKinds {
			data, err := readNote(ctx, k, kind)
			if err == nil {
				err = c.store.PutRecord(kind, diffID.Encoded(), store.Record{Data: data})
			}
			if err != nil { // the layer itself tells
				c.events.Emit(event.Event{Kind: event.Warning, Text: fmt.Sprintf("what a cache says of layer %s is not used: %v", diffID, err)})
				return
			}
		}
		k.learned = true
	})
	return k.learned
}

func readNote(ctx context.Context, k *known, kind string) (_ []byte, err error) {
	desc, ok := k.Notes[kind]
	if !ok {
		return nil, fmt.Errorf("%s: %w", kind, source.ErrNotFound)
	}
	rc, err := k.from.Blob(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	plain, err := tar.Decompress(ctx, rc, tar.Limits{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, plain.Close()) }()
	data, err := io.ReadAll(io.LimitReader(plain, maxNote+1))
	if err == nil && len(data) > maxNote {
		err = fmt.Errorf("%w: %s has more than %d bytes", ErrInvalid, kind, maxNote)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, rc) // to EOF, where it is verified
	}
	return data, err
}
