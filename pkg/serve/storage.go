package serve

import (
	"context"
	"errors"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What a storage says besides nil. Anything else is trouble of its own.
var (
	errUnknown     = errors.New("unknown")                       // the thing that was asked for
	errMismatch    = errors.New("content differs from its name") // of an upload
	errUnsupported = errors.New("not supported")
)

// storage is where a registry keeps its content: the directory or the store. Its
// names and digests are checked. Changes of one repository's manifests and tags
// are made one at a time.
type storage interface {
	Repos(ctx context.Context) ([]string, error) // in byte order
	HasRepo(ctx context.Context, repo string) (bool, error)

	StatBlob(ctx context.Context, repo string, d digest.Digest) (size int64, err error)
	OpenBlob(ctx context.Context, repo string, d digest.Digest) (io.ReadSeekCloser, error)
	// MountBlob makes a blob of from one of repo; from "" is any repository.
	MountBlob(ctx context.Context, repo string, d digest.Digest, from string) error
	DeleteBlob(ctx context.Context, repo string, d digest.Digest) error
	// NewUpload begins a blob; algo is what its digest will likely be of.
	NewUpload(ctx context.Context, algo digest.Algorithm) (upload, error)

	Resolve(ctx context.Context, repo, tag string) (ocispec.Descriptor, error)
	Manifest(ctx context.Context, repo string, d digest.Digest) (ocispec.Descriptor, []byte, error)
	// HasManifest is Manifest without reading it.
	HasManifest(ctx context.Context, repo string, d digest.Digest) (bool, error)
	// PutManifest reports whether the bytes had been there, in whatever repository.
	PutManifest(ctx context.Context, repo string, m *document, tags []string) (had bool, err error)
	DeleteManifest(ctx context.Context, repo string, d digest.Digest) error // and the tags on it
	DeleteTag(ctx context.Context, repo, tag string) error
	Tags(ctx context.Context, repo string) ([]string, error) // in any order
	Referrers(ctx context.Context, repo string, d digest.Digest) ([]ocispec.Descriptor, error)

	// Usage is how many bytes there are in all.
	Usage(ctx context.Context) (int64, error)
	// Collect removes content that no repository has, and returns how many bytes.
	Collect(ctx context.Context) (freed int64, err error)

	Close() error
}

// upload is a blob that arrives. One goroutine at a time uses it.
type upload interface {
	io.Writer
	// Mark notes the end of what is certain; Rewind goes back to it, or reports
	// errUnsupported and is of no use any more.
	Mark() error
	Rewind() error
	// Commit makes it a blob of repo, or reports errMismatch. It ends the upload. had
	// tells whether the bytes had been there, in whatever repository.
	Commit(ctx context.Context, repo string, want digest.Digest) (had bool, err error)
	// Abort drops it. After Commit it does nothing.
	Abort()
}
