package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/ref"
)

// ErrConflict says that a tag was not what the condition of a push says: nothing was changed.
var ErrConflict = errors.New("the tag was changed by somebody else")

// PutOptions tunes PutManifest. The zero value is a plain push.
type PutOptions struct {
	// IfMatch is what the tag must point at, IfNone that it must not exist. Only
	// some registries look at it (this program's own does): an ErrConflict is
	// sure, its absence is not.
	IfMatch digest.Digest
	IfNone  bool
	// Tags are set with a push by digest, by those registries that can; see PutResult.
	Tags []string
}

// PutResult is what a registry made of a manifest.
type PutResult struct {
	Desc    ocispec.Descriptor
	Tags    []string      // those of PutOptions.Tags that it says it has set
	Subject digest.Digest // set when it lists the manifest as a referrer of this one by itself
}

// PutManifest is PushManifest with conditions and with what else the registry says.
func (c *Client) PutManifest(ctx context.Context, r ref.Ref, mediaType string, raw []byte, o PutOptions) (PutResult, error) {
	res := PutResult{Desc: ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}}
	if err := check(r); err != nil {
		return res, err
	}
	if r.Digest != "" {
		if got := r.Digest.Algorithm().FromBytes(raw); got != r.Digest {
			return res, fmt.Errorf("%w: pushing manifest %s: the digest of the document is %s", ErrInvalid, r, got)
		}
		res.Desc.Digest = r.Digest
	}
	name := r.Tag
	if name == "" {
		name = res.Desc.Digest.String()
	}
	rq := c.request(r, "pushing manifest", http.MethodPut, "/manifests/"+name, actPush)
	rq.header.Set("Content-Type", mediaType)
	if o.IfMatch != "" {
		rq.header.Set("If-Match", `"`+o.IfMatch.String()+`"`)
	} else if o.IfNone {
		rq.header.Set("If-None-Match", "*")
	}
	if r.Tag == "" && len(o.Tags) > 0 {
		rq.query = url.Values{"tag": o.Tags}.Encode()
	}
	rq.size = res.Desc.Size
	rq.body = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil }
	resp, err := c.do(ctx, rq)
	if err != nil {
		return res, err
	}
	if resp.StatusCode == http.StatusPreconditionFailed {
		return res, fmt.Errorf("%w: %w", ErrConflict, rq.fail(resp))
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return res, rq.fail(resp)
	}
	discard(resp)
	res.Tags = resp.Header.Values("OCI-Tag")
	if d := digest.Digest(resp.Header.Get("OCI-Subject")); d.Validate() == nil {
		res.Subject = d
	}
	became := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	if became.Validate() != nil {
		// A registry that does not say: ask it.
		home, err := c.home(pushedAs(r, res.Desc.Digest))
		if err != nil {
			return res, err
		}
		got, err := c.resolveAt(ctx, home)
		if err != nil {
			return res, fmt.Errorf("checking what was pushed: %w", err)
		}
		became = got.Digest
	}
	if want := became.Algorithm().FromBytes(raw); became != want {
		return res, fmt.Errorf("pushing manifest %s: %w: it became %s, and should be %s", r, ErrCorrupt, became, want)
	}
	return res, nil
}

// Original is Manifest for somebody who is going to change the tag: it asks where r itself is, and no mirror, which may have
// what the tag was.
func (c *Client) Original(ctx context.Context, r ref.Ref) (ocispec.Descriptor, []byte, error) {
	if err := checkManifest(r); err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	home, err := c.home(r)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	return c.manifestAt(ctx, home)
}

// HasManifest asks whether r's repository holds what r names, as somebody who is
// going to push there: one who may not read is told no.
func (c *Client) HasManifest(ctx context.Context, r ref.Ref) (bool, error) {
	desc, err := c.Head(ctx, r)
	return desc.Digest != "", err
}

// Head is Resolve for somebody who is going to push there. What is not there, or
// may not be read, is the zero descriptor.
func (c *Client) Head(ctx context.Context, r ref.Ref) (ocispec.Descriptor, error) {
	if err := checkManifest(r); err != nil {
		return ocispec.Descriptor{}, err
	}
	home, err := c.home(r)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	rq := c.manifestRequest(home, "resolving", http.MethodHead, actPush)
	resp, err := c.do(ctx, rq)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	discard(resp)
	switch resp.StatusCode {
	case http.StatusOK:
		if desc, ok := headDescriptor(resp); ok {
			if r.Digest != "" {
				desc.Digest = r.Digest
			}
			return desc, nil
		}
	case http.StatusNotFound, http.StatusUnauthorized, http.StatusForbidden:
		return ocispec.Descriptor{}, nil
	}
	// Registries and proxies that cannot HEAD, or leave out the headers.
	desc, _, err := c.manifestAt(ctx, home)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrDenied) {
		return ocispec.Descriptor{}, nil
	}
	return desc, err
}
