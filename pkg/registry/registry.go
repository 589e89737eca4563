// Package registry speaks the OCI distribution protocol with a transport of our
// own: no ping, one connection pool, auth driven by the 401, credentials only to
// their own origin, every byte verified, children before the tag.
package registry

import (
	"context"
	"errors"
	"io"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/ref"
)

// The kinds of errors.
var (
	ErrNotFound = errors.New("not found in the registry")
	ErrDenied   = errors.New("denied by the registry")
	ErrCorrupt  = errors.New("registry sent other bytes than asked for")
)

var errTODO = errors.New("registry: not built yet")

// Hosts is a set of registry hosts: some by name, or all.
type Hosts struct {
	All   bool
	Names []string // HOST[:PORT]
}

// Has reports whether host is in the set.
func (h Hosts) Has(host string) bool { return false }

// Options tunes a client. The zero value is the recommended one.
type Options struct {
	PlainHTTP Hosts          // http instead of https; loopback addresses need no entry
	Insecure  Hosts          // TLS unverified
	Keychain  authn.Keychain // nil: docker's and podman's files (authn.DefaultKeychain)
	UserAgent string
	Events    event.Sink
}

// Client talks to any number of registries. It is safe for concurrent use.
type Client struct{}

// New makes a client. It does no I/O.
func New(o Options) *Client { return &Client{} }

// Resolve returns the descriptor (media type, digest, size) of what r names: HEAD, else GET.
func (c *Client) Resolve(ctx context.Context, r ref.Ref) (ocispec.Descriptor, error) {
	return ocispec.Descriptor{}, errTODO
}

// Manifest fetches the manifest or index that r names, verified: raw is exactly what the registry holds.
func (c *Client) Manifest(ctx context.Context, r ref.Ref) (desc ocispec.Descriptor, raw []byte, err error) {
	return ocispec.Descriptor{}, nil, errTODO
}

// Blob opens a blob of r's repository. Read reports ErrCorrupt in place of io.EOF when the bytes do not match desc.
func (c *Client) Blob(ctx context.Context, r ref.Ref, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return nil, errTODO
}

// HasBlob asks whether r's repository holds the blob.
func (c *Client) HasBlob(ctx context.Context, r ref.Ref, d digest.Digest) (bool, error) {
	return false, errTODO
}

// Open gives a blob's bytes, from the start, as often as asked: retries need it.
type Open func(context.Context) (io.ReadCloser, error)

// PushBlob makes sure r's repository holds the blob: asks, mounts from one of from on the same host, else uploads.
// uploaded is false when no bytes moved.
func (c *Client) PushBlob(ctx context.Context, r ref.Ref, desc ocispec.Descriptor, open Open, from []ref.Ref) (uploaded bool, err error) {
	return false, errTODO
}

// PushManifest puts raw under r's tag, or under its digest when r has no tag, and checks what the registry says it became.
func (c *Client) PushManifest(ctx context.Context, r ref.Ref, mediaType string, raw []byte) (ocispec.Descriptor, error) {
	return ocispec.Descriptor{}, errTODO
}

// Tags lists the tags of r's repository, following pagination.
func (c *Client) Tags(ctx context.Context, r ref.Ref) ([]string, error) { return nil, errTODO }
