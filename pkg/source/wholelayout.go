package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/index"
)

// Layout is a whole OCI layout, in a directory or an archive, for whoever offers
// all that is in it. Any number of goroutines may use it.
type Layout struct {
	files   files
	entries []ocispec.Descriptor
}

// OpenLayout opens the layout in a directory, or in a tar of one. A compressed
// archive is unpacked to a file in the directory for temporary files first.
func OpenLayout(ctx context.Context, name string) (_ *Layout, err error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	var f files
	if info.IsDir() {
		f, err = openDir(name)
	} else {
		f, err = openTar(ctx, name, "")
	}
	if err != nil {
		return nil, err
	}
	idx, err := readLayoutIndex(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	return &Layout{f, idx.Manifests}, nil
}

// Manifests are the entries of index.json, with their annotations.
func (l *Layout) Manifests() []ocispec.Descriptor { return slices.Clone(l.entries) }

// Blob opens the bytes of a blob, unverified: fs.ErrNotExist when there are none.
func (l *Layout) Blob(d digest.Digest) (io.ReadSeekCloser, error) {
	if err := index.CheckDigest(d); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	rc, _, err := l.files.open("blobs/" + d.Algorithm().String() + "/" + d.Encoded())
	if err != nil {
		return nil, err
	}
	if f, ok := rc.(io.ReadSeekCloser); ok {
		return f, nil
	}
	return nil, errors.Join(fmt.Errorf("the blob %s: %w", d, errors.ErrUnsupported), rc.Close())
}

// Close closes the directory or archive; blobs of an archive are not to be read
// any more.
func (l *Layout) Close() error { return l.files.Close() }
