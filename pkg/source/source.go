// Package source opens images wherever a reference points, for reading: registry,
// store, OCI layout (directory, tar) and docker archive, all alike.
package source

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// ErrNotFound is the kind of "there is no such image, platform or blob"; the text lists what there is.
var ErrNotFound = errors.New("not found")

// Opener opens references. Fields may be nil when their kind is not used.
type Opener struct {
	Registry *registry.Client
	Store    *store.Store
	Dir      string // relative layouts and archives are looked up here; "" is the working directory
}

// Image is an opened image or index. Content is verified as it is read.
type Image interface {
	// Root describes what the reference names.
	Root() ocispec.Descriptor
	// Manifest returns the exact bytes of a manifest, index or config.
	Manifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error)
	// Blob opens a blob; Read reports an error in place of io.EOF when it does not match desc.
	Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)
	// Ref is the reference it was opened by.
	Ref() ref.Ref
	io.Closer
}

// Open opens what r names.
func (o *Opener) Open(ctx context.Context, r ref.Ref) (Image, error) {
	return nil, errors.New("source: not built yet")
}

// Resolved is one platform's image, read and cross-checked.
type Resolved struct {
	Platform platform.Platform
	Desc     ocispec.Descriptor // of the manifest
	Manifest ocispec.Manifest
	Raw      []byte // of the manifest
	Config   []byte
	DiffIDs  []digest.Digest
}

// Resolve picks the image for want out of img (an index, nested ones too, or a
// single image, whose config must then be of that platform) and reads manifest and config. ErrNotFound lists the platforms there are.
func Resolve(ctx context.Context, img Image, want platform.Platform) (*Resolved, error) {
	return nil, errors.New("source: not built yet")
}
