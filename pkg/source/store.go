package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// maxListed is how many names an error lists.
const maxListed = 20

// storeImage is an image in the store.
type storeImage struct {
	store *store.Store
	ref   ref.Ref
	root  ocispec.Descriptor
}

var _ Image = (*storeImage)(nil)

func (o *Opener) openStore(ctx context.Context, r ref.Ref) (Image, error) {
	if o.Store == nil {
		return nil, fmt.Errorf("%w: no store can be read here", errors.ErrUnsupported)
	}
	img := &storeImage{store: o.Store, ref: r}
	if r.Digest != "" {
		root, err := img.byDigest(ctx, r.Digest)
		img.root = root
		return img, err
	}
	root, err := o.Store.GetRef(r.Familiar())
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
	return readDocument(rc, desc)
}

func (i *storeImage) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if err := index.CheckDigest(desc.Digest); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	rc, err := i.store.Open(ctx, desc)
	if err != nil {
		return nil, storeError(err)
	}
	return rc, nil
}

func storeError(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}
