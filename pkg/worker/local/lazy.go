package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// Remote knows layers that other machines made: what is in them, and where their bytes are.
type Remote interface {
	// Learn brings the table of contents and the facts of a layer into the store, and reports whether it had them.
	Learn(ctx context.Context, diffID digest.Digest) bool
	// Blob describes a layer's compressed form, and names repositories of registries that hold it.
	Blob(diffID digest.Digest) (desc ocispec.Descriptor, compression string, places []ref.Ref, ok bool)
	// OpenBlob opens it; whoever reads it to EOF has verified it.
	OpenBlob(ctx context.Context, diffID digest.Digest) (ocispec.Descriptor, io.ReadCloser, error)
}

// elsewhere are compressed layers whose bytes are fetched when somebody needs them.
type elsewhere struct {
	mu      sync.Mutex // guards origins
	origins map[digest.Digest]origin
	flights singleflight.Group // by blob
}

// origin is where a compressed layer is.
type origin struct {
	desc   ocispec.Descriptor
	diffID digest.Digest
	open   func(ctx context.Context) (io.ReadCloser, error)
}

func (e *elsewhere) add(o origin) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.origins == nil {
		e.origins = map[digest.Digest]origin{}
	}
	e.origins[o.desc.Digest] = o
}

func (e *elsewhere) find(blob digest.Digest) (origin, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	o, ok := e.origins[blob]
	return o, ok
}

// Elsewhere describes the compressed form of a layer that another machine made, and where it is, without fetching it.
func (w *Worker) Elsewhere(diffID digest.Digest) (desc ocispec.Descriptor, compression string, places []ref.Ref, ok bool) {
	if w.o.Remote == nil {
		return ocispec.Descriptor{}, "", nil, false
	}
	desc, compression, places, ok = w.o.Remote.Blob(diffID)
	if ok {
		w.lazy.add(origin{desc, diffID, func(ctx context.Context) (io.ReadCloser, error) {
			_, rc, err := w.o.Remote.OpenBlob(ctx, diffID)
			return rc, err
		}})
	}
	return desc, compression, places, ok
}

// Open opens a blob of a result, fetching it first when it is a layer that is elsewhere.
func (w *Worker) Open(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := w.o.Store.Open(ctx, desc)
	if !errors.Is(err, store.ErrNotFound) {
		return rc, err
	}
	if err := w.bring(ctx, desc.Digest); err != nil {
		return nil, err
	}
	return w.o.Store.Open(ctx, desc)
}

// Fresh opens the file of a blob that this process made ([output.Fresh]).
func (w *Worker) Fresh(desc ocispec.Descriptor) (*os.File, bool) { return w.o.Store.OpenFresh(desc) }

// Bring makes sure that blobs of results are in the store.
func (w *Worker) Bring(ctx context.Context, blobs []ocispec.Descriptor) error {
	var g errgroup.Group
	g.SetLimit(pulls)
	for _, desc := range blobs {
		if _, err := w.o.Store.Stat(desc.Digest); err == nil {
			continue
		}
		g.Go(func() error { return w.bring(ctx, desc.Digest) })
	}
	return g.Wait()
}

// bring fetches a compressed layer, once, and what is in it.
func (w *Worker) bring(ctx context.Context, blob digest.Digest) error {
	o, ok := w.lazy.find(blob)
	if !ok {
		return fmt.Errorf("blob %s: %w", blob, store.ErrNotFound)
	}
	_, err, _ := w.lazy.flights.Do(blob.String(), func() (any, error) {
		if _, err := w.o.Store.Stat(blob); err == nil {
			return nil, nil
		}
		rc, err := o.open(ctx)
		if err != nil {
			return nil, err
		}
		toc, said, err := w.fetch(ctx, rc, o.desc)
		if err != nil {
			return nil, err
		}
		if toc.DiffID != o.diffID {
			return nil, fmt.Errorf("it unpacks to %s, not to %s: %w", toc.DiffID, o.diffID, store.ErrCorrupt)
		}
		if said != nil { // nobody wanted them
			err = w.facts().PutFacts(said)
		}
		return nil, errors.Join(w.putTOC(toc), err, w.facts().PutUnpacked(blob, o.diffID))
	})
	if err != nil {
		return fmt.Errorf("layer %s: %w", blob, err)
	}
	return nil
}

// need makes sure that a layer's bytes are in the store. blob is its compressed form, zero when the uncompressed one is there.
func (w *Worker) need(ctx context.Context, l solve.Layer) (blob ocispec.Descriptor, err error) {
	if w.virtual.get(l.DiffID) != nil { // a directory of this machine: read where it is
		return ocispec.Descriptor{}, nil
	}
	if _, err := w.o.Store.Stat(l.DiffID); err == nil {
		return ocispec.Descriptor{}, nil
	}
	if blob = l.Blob; blob.Digest == "" && l.Packed != nil {
		blob = *l.Packed
	}
	if blob.Digest == "" {
		var ok bool
		if blob, _, _, ok = w.Elsewhere(l.DiffID); !ok {
			return blob, fmt.Errorf("layer %s: %w", l.DiffID, store.ErrNotFound)
		}
	}
	return blob, w.Bring(ctx, []ocispec.Descriptor{blob})
}

// needAll is need for many layers, side by side.
func (w *Worker) needAll(ctx context.Context, layers []solve.Layer) error {
	var g errgroup.Group
	g.SetLimit(pulls)
	for _, l := range layers {
		g.Go(func() error {
			_, err := w.need(ctx, l)
			return err
		})
	}
	return g.Wait()
}

// Knows reports whether what is in a layer is known without its bytes: here, or by a cache, which is asked.
func (w *Worker) Knows(ctx context.Context, diffID digest.Digest) bool {
	if _, _, ok := w.facts().Get(diffID); ok {
		return true
	}
	if w.o.Remote == nil || !w.o.Remote.Learn(ctx, diffID) {
		return false
	}
	_, _, ok := w.facts().Get(diffID)
	return ok
}
