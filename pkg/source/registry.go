package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// maxRemembered is how many bytes of documents one open image keeps.
const maxRemembered = 16 << 20

// registryImage is an image in a registry. The tag is resolved once, by fetching
// what it names; everything else is asked for by digest, and documents only once.
type registryImage struct {
	client *registry.Client
	ref    ref.Ref
	root   ocispec.Descriptor

	documents  sync.Mutex // guards what follows
	remembered map[digest.Digest][]byte
	size       int
}

var (
	_ Image  = (*registryImage)(nil)
	_ Placed = (*registryImage)(nil)
)

func (o *Opener) openRegistry(ctx context.Context, r ref.Ref) (Image, error) {
	if o.Registry == nil {
		return nil, fmt.Errorf("%w: no registry can be read here", errors.ErrUnsupported)
	}
	desc, raw, err := o.Registry.Manifest(ctx, r)
	if err != nil {
		return nil, registryError(err)
	}
	i := &registryImage{client: o.Registry, ref: r, root: desc, remembered: map[digest.Digest][]byte{}}
	i.remember(desc.Digest, raw)
	return i, nil
}

func (i *registryImage) Root() ocispec.Descriptor { return i.root }
func (i *registryImage) Ref() ref.Ref             { return i.ref }
func (i *registryImage) Close() error             { return nil }

// Places implements [Placed]: all of it is in this repository.
func (i *registryImage) Places(d digest.Digest) []ref.Ref { return []ref.Ref{i.ref.WithDigest(d)} }

func (i *registryImage) remember(d digest.Digest, raw []byte) {
	i.documents.Lock()
	defer i.documents.Unlock()
	if _, ok := i.remembered[d]; !ok && i.size+len(raw) <= maxRemembered {
		i.remembered[d] = raw
		i.size += len(raw)
	}
}

func (i *registryImage) Manifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if err := checkDocument(desc); err != nil {
		return nil, err
	}
	i.documents.Lock()
	raw, ok := i.remembered[desc.Digest]
	i.documents.Unlock()
	if ok {
		return raw, checkSize(desc, raw)
	}
	raw, err := i.document(ctx, desc)
	if err != nil {
		return nil, err
	}
	i.remember(desc.Digest, raw)
	return raw, nil
}

// document fetches a manifest, index or config.
func (i *registryImage) document(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if index.IsIndex(desc.MediaType) || index.IsManifest(desc.MediaType) {
		return i.fetch(ctx, desc)
	}
	rc, err := i.Blob(ctx, desc)
	if err == nil {
		return readDocument(rc, desc)
	}
	// A manifest of a type that is not known here is not among the blobs.
	if errors.Is(err, registry.ErrNotFound) && !index.IsConfig(desc.MediaType) {
		if raw, ferr := i.fetch(ctx, desc); ferr == nil {
			return raw, nil
		}
	}
	return nil, err
}

// fetch gets a manifest by digest.
func (i *registryImage) fetch(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	_, raw, err := i.client.Manifest(ctx, i.ref.WithDigest(desc.Digest))
	if err != nil {
		return nil, registryError(err)
	}
	return raw, checkSize(desc, raw)
}

func (i *registryImage) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if err := index.CheckDigest(desc.Digest); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	rc, err := i.client.Blob(ctx, i.ref, desc)
	if err != nil {
		return nil, registryError(err)
	}
	return rc, nil
}

// checkSize refuses a document whose descriptor gives another size (ROBUSTNESS.md b02).
func checkSize(desc ocispec.Descriptor, raw []byte) error {
	if desc.Size > 0 && desc.Size != int64(len(raw)) {
		return fmt.Errorf("%w: %s has %d bytes, but its descriptor says %d", ErrCorrupt, desc.Digest, len(raw), desc.Size)
	}
	return nil
}

func registryError(err error) error {
	if errors.Is(err, registry.ErrNotFound) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}
