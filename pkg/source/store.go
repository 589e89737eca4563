package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// maxListed is how many names an error lists.
const maxListed = 20

// storeImage is an image in the store. What only a manifest was taken over of is read from where it lies.
type storeImage struct {
	store    *store.Store
	registry *registry.Client // nil: only what is in the store
	ref      ref.Ref
	root     ocispec.Descriptor

	reading sync.Mutex // guards holders
	holders map[digest.Digest][]digest.Digest
}

var (
	_ Image  = (*storeImage)(nil)
	_ Placed = (*storeImage)(nil)
)

func (o *Opener) openStore(ctx context.Context, r ref.Ref) (Image, error) {
	if o.Store == nil {
		return nil, fmt.Errorf("%w: no store can be read here", errors.ErrUnsupported)
	}
	img := &storeImage{store: o.Store, registry: o.Registry, ref: r, holders: map[digest.Digest][]digest.Digest{}}
	if r.Digest != "" {
		root, err := img.byDigest(ctx, r.Digest)
		img.root = root
		return img, err
	}
	root, err := o.Store.HoldRef(r.Familiar())
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("%w: %w; %s", ErrNotFound, err, o.storeNames())
	}
	if err != nil {
		return nil, err
	}
	root.Annotations = nil // of the name, not of the image
	img.root = root
	return img, nil
}

// storeNames says what the store holds.
func (o *Opener) storeNames() string {
	refs, err := o.Store.Refs()
	if err != nil {
		return fmt.Sprintf("listing it: %v", err)
	}
	names := make([]string, 0, len(refs))
	for _, r := range refs {
		names = append(names, r.Name)
	}
	return "it holds " + listed(names)
}

// listed joins what there is for an error's text.
func listed(names []string) string {
	switch {
	case len(names) == 0:
		return "nothing"
	case len(names) > maxListed:
		return strings.Join(names[:maxListed], ", ") + fmt.Sprintf(" and %d more", len(names)-maxListed)
	}
	return strings.Join(names, ", ")
}

func (i *storeImage) byDigest(ctx context.Context, d digest.Digest) (ocispec.Descriptor, error) {
	size, err := i.store.Stat(d)
	if err != nil {
		return ocispec.Descriptor{}, storeError(err)
	}
	return describe(ctx, i, ocispec.Descriptor{Digest: d, Size: size})
}

// describe completes a descriptor whose media type only the document itself tells.
func describe(ctx context.Context, img Image, desc ocispec.Descriptor) (ocispec.Descriptor, error) {
	raw, err := img.Manifest(ctx, desc)
	if err != nil {
		return desc, err
	}
	if desc.MediaType, err = index.Sniff(raw); err != nil {
		return desc, fmt.Errorf("%w: %s: %w", ErrInvalid, desc.Digest, err)
	}
	desc.Size = int64(len(raw))
	return desc, nil
}

func (i *storeImage) Root() ocispec.Descriptor { return i.root }
func (i *storeImage) Ref() ref.Ref             { return i.ref }
func (i *storeImage) Close() error             { return nil }

func (i *storeImage) Manifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if err := checkDocument(desc); err != nil {
		return nil, err
	}
	rc, err := i.Blob(ctx, desc)
	if err != nil {
		return nil, err
	}
	raw, err := readDocument(rc, desc)
	if err == nil {
		i.note(desc.Digest, raw)
	}
	return raw, err
}

func (i *storeImage) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if err := index.CheckDigest(desc.Digest); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	rc, err := i.store.Open(ctx, desc)
	if err == nil {
		return rc, nil
	}
	if errors.Is(err, store.ErrNotFound) && i.registry != nil {
		for _, place := range i.Places(desc.Digest) {
			rc, rerr := i.registry.Blob(ctx, place, desc)
			if rerr == nil {
				return rc, nil
			}
			err = fmt.Errorf("%w; and %w", err, rerr)
		}
	}
	return nil, storeError(err)
}

// note remembers which manifest holds which blobs.
func (i *storeImage) note(d digest.Digest, raw []byte) {
	m, err := index.ParseManifest(raw)
	if err != nil {
		return // an index, or a config
	}
	i.reading.Lock()
	defer i.reading.Unlock()
	for _, b := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if !slices.Contains(i.holders[b.Digest], d) {
			i.holders[b.Digest] = append(i.holders[b.Digest], d)
		}
	}
}

// Places implements [Placed]: it knows the blobs of the manifests that were read.
func (i *storeImage) Places(d digest.Digest) []ref.Ref {
	i.reading.Lock()
	holders := append([]digest.Digest{d}, i.holders[d]...)
	i.reading.Unlock()
	var out []ref.Ref
	for _, holder := range holders {
		texts, err := i.store.Origins(holder)
		if err != nil {
			continue // it is only a hint
		}
		for _, text := range texts {
			r, err := ref.Parse(text)
			if err != nil || r.Kind != ref.Registry {
				continue
			}
			if r = r.WithDigest(d); !slices.Contains(out, r) {
				out = append(out, r)
			}
		}
	}
	return out
}

func storeError(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}
