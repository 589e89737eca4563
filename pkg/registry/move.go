package registry

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/ref"
)

// Moved says how a blob came to be in a repository.
type Moved int

// The ways of a blob.
const (
	Existed Moved = iota // it was there
	Mounted              // from another repository of the registry: no bytes moved
	Uploaded
)

// MoveBlob is PushBlob that says what it did. With likely, a mount is tried
// before the repository is asked for the blob: when a repository of from surely
// holds it, that is one request instead of two.
func (c *Client) MoveBlob(ctx context.Context, r ref.Ref, desc ocispec.Descriptor, open Open, from []ref.Ref, likely bool) (Moved, error) {
	if err := checkBlob(r, desc.Digest); err != nil {
		return Existed, err
	}
	if desc.Size < 0 {
		return Existed, fmt.Errorf("%w: blob %s has a size of %d", ErrInvalid, desc.Digest, desc.Size)
	}
	// Two images that share a layer: the second push finds what the first sent.
	unlock, err := c.uploads.lock(ctx, r.Repository()+"@"+desc.Digest.String())
	if err != nil {
		return Existed, err
	}
	defer unlock()

	u := &upload{c: c, ref: r, desc: desc}
	if likely {
		if mounted, err := u.mount(ctx, from); mounted || err != nil {
			return Mounted, err
		}
		from = nil
	}
	has, err := c.hasBlob(ctx, r, desc.Digest, actPush)
	if has {
		u.cancel(ctx)
		return Existed, nil
	}
	if err != nil && (ctx.Err() != nil || !isAnswer(err)) {
		return Existed, err // whoever may not read may still write
	}
	if mounted, err := u.mount(ctx, from); mounted || err != nil {
		return Mounted, err
	}
	u.progress = c.track("pushing", desc.Digest, desc.Size)
	u.parts = &pieces{open: open, progress: u.progress}
	defer u.parts.close()
	return Uploaded, u.run(ctx)
}

// MountBlob makes a blob of from's repository, on the same host, one of r's. It
// is false when the registry does not do that.
func (c *Client) MountBlob(ctx context.Context, r ref.Ref, d digest.Digest, from ref.Ref) (bool, error) {
	if err := checkBlob(r, d); err != nil {
		return false, err
	}
	u := &upload{c: c, ref: r, desc: ocispec.Descriptor{Digest: d}}
	mounted, err := u.mount(ctx, []ref.Ref{from})
	u.cancel(ctx)
	return mounted, err
}

// Requests is how many requests were made in all, attempts and redirects and those for tokens among them.
func (c *Client) Requests() int64 { return c.pool.requests.Load() }
