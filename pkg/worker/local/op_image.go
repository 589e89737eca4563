package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/facts"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// pulls is how many layers are fetched at once for one image.
const pulls = 4

// bases are the images opened in this build: one tag means one digest for all platforms.
type bases struct {
	pins   Pins
	mu     sync.Mutex // guards pulled
	pulled map[string]*base
}

type base struct {
	once sync.Once
	img  source.Image
	err  error
}

// open opens the image that text names, once for all platforms.
func (b *bases) open(ctx context.Context, o *source.Opener, text string) (source.Image, error) {
	r, err := ref.Parse(text)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	e, ok := b.pulled[text]
	if !ok {
		e = &base{}
		b.pulled[text] = e
	}
	b.mu.Unlock()
	e.once.Do(func() {
		if b.pins != nil && r.Digest == "" {
			if r.Digest, e.err = b.pins.Pin(text); e.err != nil {
				return
			}
		}
		e.img, e.err = o.Open(ctx, r)
	})
	return e.img, e.err
}

// resolve opens the image that text names and picks the one for p.
func (b *bases) resolve(ctx context.Context, o *source.Opener, text string, p platform.Platform) (source.Image, *source.Resolved, error) {
	img, err := b.open(ctx, o, text)
	if err != nil {
		return nil, nil, err
	}
	found, err := source.Resolve(ctx, img, p)
	if err != nil {
		return nil, nil, err
	}
	if b.pins != nil && !strings.Contains(text, "@") {
		err = b.pins.Resolved(text, p, img.Root().Digest, found.Desc.Digest)
	}
	return img, found, err
}

func (b *bases) close() error {
	var errs []error
	closed := map[*base]bool{}
	for _, e := range b.pulled {
		if e.img != nil && !closed[e] {
			closed[e] = true
			errs = append(errs, e.img.Close())
		}
	}
	return errors.Join(errs...)
}

// Resolve gives the digest of what text names, a manifest or an index, and the config of its image for p. The image stays
// open, so that a vertex of the same name, or of that name and digest, means the same.
func (w *Worker) Resolve(ctx context.Context, text string, p platform.Platform) (digest.Digest, []byte, error) {
	img, found, err := w.bases.resolve(ctx, w.o.Opener, text, p)
	if err != nil {
		return "", nil, err
	}
	root := img.Root().Digest
	w.bases.alias(text, root)
	return root, found.Config, nil
}

// Layers gives what the layers of the image that text names are for p, without fetching them.
func (w *Worker) Layers(ctx context.Context, text string, p platform.Platform) ([]ocispec.Descriptor, error) {
	_, found, err := w.bases.resolve(ctx, w.o.Opener, text, p)
	if err != nil {
		return nil, err
	}
	return found.Manifest.Layers, nil
}

// Lend gives the compressed layers of the image that text names for p, the first limit of them when it is not nil, and what
// they unpack to. None is fetched: [Worker.Bring] does that for those that somebody wants.
func (w *Worker) Lend(ctx context.Context, text string, p platform.Platform, limit *int) ([]ocispec.Descriptor, []digest.Digest, error) {
	img, found, err := w.bases.resolve(ctx, w.o.Opener, text, p)
	if err != nil {
		return nil, nil, err
	}
	descs := make([]ocispec.Descriptor, 0, len(found.Manifest.Layers))
	for i, desc := range found.Manifest.Layers {
		if limit != nil && i >= *limit {
			break
		}
		blob := ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
		if _, known := w.lazy.find(blob.Digest); !known {
			w.lazy.add(origin{blob, found.DiffIDs[i], func(ctx context.Context) (io.ReadCloser, error) { return img.Blob(ctx, desc) }})
		}
		descs = append(descs, blob)
	}
	return descs, found.DiffIDs[:len(descs)], nil
}

// alias makes an opened image known by its name with its digest, too.
func (b *bases) alias(text string, d digest.Digest) {
	r, err := ref.Parse(text)
	if err != nil || r.Digest != "" {
		return
	}
	pinned := r
	pinned.Digest = d
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.pulled[pinned.String()]; !ok {
		b.pulled[pinned.String()] = b.pulled[text]
	}
}

// image resolves a base image for the vertex's platform and brings its layers into the store.
func (w *Worker) image(ctx context.Context, v *graph.Vertex, op graph.Image) (solve.Result, error) {
	img, found, err := w.bases.resolve(ctx, w.o.Opener, op.Ref, v.Platform)
	if err != nil {
		return solve.Result{}, err
	}
	if op.Checksum != "" && img.Root().Digest.String() != op.Checksum {
		return solve.Result{}, fmt.Errorf("%s is %s, not %s: %w", op.Ref, img.Root().Digest, op.Checksum, store.ErrCorrupt)
	}
	descs := found.Manifest.Layers
	if op.Layers != nil && *op.Layers < len(descs) {
		descs = descs[:*op.Layers]
	}
	r := solve.Result{Layers: make([]solve.Layer, len(descs))}
	if !op.FilesOnly {
		r.Config = found.Config
	}
	var g errgroup.Group
	g.SetLimit(pulls)
	for i, desc := range descs {
		g.Go(func() (err error) {
			r.Layers[i], err = w.pull(ctx, img, desc, found.DiffIDs[i])
			return err
		})
	}
	return r, g.Wait()
}

// pull brings one layer into the store, as it is, and its table of contents. A layer of which that is known stays where it is
// until its bytes are needed.
func (w *Worker) pull(ctx context.Context, img source.Image, desc ocispec.Descriptor, diffID digest.Digest) (solve.Layer, error) {
	l := solve.Layer{DiffID: diffID, Blob: ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}}
	if img.Ref().Kind == ref.Registry {
		l.From = []string{img.Ref().String()}
	}
	if _, err := w.o.Store.Stat(desc.Digest); err == nil {
		_, err := w.toc(ctx, l)
		return l, err
	}
	w.lazy.add(origin{l.Blob, diffID, func(ctx context.Context) (io.ReadCloser, error) { return img.Blob(ctx, desc) }})
	if !w.Knows(ctx, diffID) {
		if err := w.bring(ctx, desc.Digest); err != nil {
			return solve.Layer{}, err
		}
	}
	toc, err := w.toc(ctx, l)
	if err != nil {
		return solve.Layer{}, err
	}
	l.Size = toc.Size
	return l, nil
}

// fetch stores a layer's bytes while reading its table of contents from them, and closes blob.
func (w *Worker) fetch(ctx context.Context, blob io.ReadCloser, desc ocispec.Descriptor) (_ *layer.TOC, _ *facts.Layer, err error) {
	defer func() { err = errors.Join(err, blob.Close()) }()
	in, err := w.o.Store.Ingest(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer in.Abort()
	tee := io.TeeReader(blob, in)
	tar, err := layer.DecompressLayer(ctx, tee, desc.MediaType, layer.Limits{})
	if err != nil {
		return nil, nil, err
	}
	toc, said, err := w.read(ctx, tar, false, 0)
	if err := errors.Join(err, tar.Close()); err != nil {
		return nil, nil, err
	}
	if _, err := io.Copy(io.Discard, tee); err != nil { // to EOF, where the source verifies
		return nil, nil, err
	}
	got, err := in.Commit(ctx, desc.MediaType)
	if err != nil {
		return nil, nil, err
	}
	if got.Digest != desc.Digest {
		return nil, nil, fmt.Errorf("received %s: %w", got.Digest, store.ErrCorrupt)
	}
	return toc, said, nil
}
