package source

import (
	"context"
	"fmt"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// AtHand gives an image without the way to a registry: documents that were not fetched before, and all blobs, are ErrNotFound.
// An image that lies elsewhere is given as it is.
func AtHand(img Image) Image {
	if r, ok := img.(*registryImage); ok {
		return atHand{r}
	}
	return img
}

type atHand struct{ *registryImage }

// Manifest implements Image.
func (a atHand) Manifest(_ context.Context, desc ocispec.Descriptor) ([]byte, error) {
	a.documents.Lock()
	raw, ok := a.remembered[desc.Digest]
	a.documents.Unlock()
	if !ok {
		return nil, fmt.Errorf("%w: %s was not fetched", ErrNotFound, desc.Digest)
	}
	return raw, checkSize(desc, raw)
}

// Blob implements Image.
func (a atHand) Blob(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return nil, fmt.Errorf("%w: %s was not fetched", ErrNotFound, desc.Digest)
}
