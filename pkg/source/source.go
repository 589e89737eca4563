// Package source opens images wherever a reference points, for reading: registry,
// store, OCI layout (directory, tar) and docker archive, all alike.
//
// # Invariants
//
//   - Every byte handed out is verified against the digest it was asked for by; whoever reads to EOF has verified it.
//   - Nothing is read outside of the directory or archive that the reference names, whatever is in it.
//   - No platform is ever assumed: it stands in a descriptor or a config, or is an error.
package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// The kinds of errors.
var (
	// ErrNotFound is the kind of "there is no such image, platform or blob"; the text lists what there is.
	ErrNotFound = errors.New("not found")
	// ErrAmbiguous says that a layout or archive holds several images that the reference could mean.
	ErrAmbiguous = errors.New("ambiguous reference")
	// ErrInvalid says that what is there is no image, layout or archive, or contradicts itself.
	ErrInvalid = errors.New("invalid image")
	// ErrCorrupt says that bytes are not what their digest says.
	ErrCorrupt = errors.New("content does not match its digest")
)

// Opener opens references. Fields may be nil when their kind is not used.
type Opener struct {
	Registry *registry.Client
	Store    *store.Store
	Dir      string // relative layouts and archives are looked up here; "" is the working directory
	Spool    string // where compressed archives are unpacked to; "" is the system's directory for temporary files
}

// Image is an opened image or index. Content is verified as it is read. It is safe for concurrent use, but for Close.
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

// Placed is implemented by images that know repositories in registries which hold a blob or manifest of theirs. From there
// it can be mounted; a place may turn out to hold it no more.
type Placed interface {
	Places(d digest.Digest) []ref.Ref
}

// Open opens what r names.
func (o *Opener) Open(ctx context.Context, r ref.Ref) (Image, error) {
	img, err := o.open(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", r, err)
	}
	return img, nil
}

func (o *Opener) open(ctx context.Context, r ref.Ref) (Image, error) {
	switch r.Kind {
	case ref.Registry:
		return o.openRegistry(ctx, r)
	case ref.Store:
		return o.openStore(ctx, r)
	}
	f, err := o.openFiles(ctx, r)
	if err != nil {
		return nil, err
	}
	var img Image
	if r.Kind == ref.DockerArchive {
		img, err = openDocker(ctx, f, r)
	} else {
		img, err = openLayout(f, r)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return img, nil
}

// openFiles opens the directory or archive that r is in.
func (o *Opener) openFiles(ctx context.Context, r ref.Ref) (files, error) {
	path := r.Path
	if o.Dir != "" && !filepath.IsAbs(path) {
		path = filepath.Join(o.Dir, path)
	}
	switch r.Kind {
	case ref.OCILayout:
		return openDir(path)
	case ref.OCIArchive, ref.DockerArchive:
		return openTar(ctx, path, o.Spool)
	}
	return nil, fmt.Errorf("%w: a reference of kind %q cannot be read", errors.ErrUnsupported, r.Kind)
}

// checkDocument refuses descriptors whose bytes are too many to be read at once.
func checkDocument(desc ocispec.Descriptor) error {
	if err := index.CheckDigest(desc.Digest); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if desc.Size > index.MaxSize {
		return fmt.Errorf("%w: %s has %d bytes, more than the limit of %d for manifests and configs", ErrInvalid, desc.Digest, desc.Size, index.MaxSize)
	}
	return nil
}

// readDocument reads the whole of a small blob.
func readDocument(rc io.ReadCloser, desc ocispec.Descriptor) (_ []byte, err error) {
	defer func() { err = errors.Join(err, rc.Close()) }()
	raw, err := io.ReadAll(io.LimitReader(rc, index.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", desc.Digest, err)
	}
	if len(raw) > index.MaxSize {
		return nil, fmt.Errorf("%w: %s has more bytes than the limit of %d for manifests and configs", ErrInvalid, desc.Digest, index.MaxSize)
	}
	return raw, nil
}
