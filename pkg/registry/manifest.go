package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/ref"
)

// The media types of Docker's own schema.
const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	artifact       = "application/vnd.oci.artifact.manifest.v1+json"
)

// manifestTypes are what a client of images understands: a registry may convert
// for those who ask for less.
var manifestTypes = []string{ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, dockerList, dockerManifest, artifact}

func isManifestType(t string) bool {
	for _, m := range manifestTypes {
		if t == m {
			return true
		}
	}
	return false
}

func (c *Client) manifestRequest(p Place, op, method, actions string) *request {
	rq := c.requestAt(p, op, method, "/manifests/"+p.Ref.Identifier(), actions)
	rq.header.Set("Accept", strings.Join(manifestTypes, ", "))
	return rq
}

// checkManifest is check for a reference that must name a manifest.
func checkManifest(r ref.Ref) error {
	if err := check(r); err != nil {
		return err
	}
	if r.Identifier() == "" {
		return fmt.Errorf("%w: %q has neither tag nor digest", ErrInvalid, r)
	}
	return nil
}

// Resolve returns the descriptor (media type, digest, size) of what r names: HEAD, else GET.
func (c *Client) Resolve(ctx context.Context, r ref.Ref) (desc ocispec.Descriptor, err error) {
	if err := checkManifest(r); err != nil {
		return ocispec.Descriptor{}, err
	}
	err = c.eachPlace(ctx, r, func(p Place) (err error) {
		desc, err = c.resolveAt(ctx, p)
		return err
	})
	return desc, err
}

func (c *Client) resolveAt(ctx context.Context, p Place) (ocispec.Descriptor, error) {
	r := p.Ref
	rq := c.manifestRequest(p, "resolving", http.MethodHead, actPull)
	resp, err := c.do(ctx, rq)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	switch resp.StatusCode {
	case http.StatusOK:
		discard(resp)
		desc, ok := headDescriptor(resp)
		if ok && r.Digest != "" && desc.Digest != r.Digest && desc.Digest.Algorithm() == r.Digest.Algorithm() {
			return ocispec.Descriptor{}, fmt.Errorf("resolving %s: %w: it says the digest is %s", r, ErrCorrupt, desc.Digest)
		}
		if ok {
			if r.Digest != "" {
				desc.Digest = r.Digest
			}
			return desc, nil
		}
	case http.StatusNotFound, http.StatusUnauthorized:
		return ocispec.Descriptor{}, rq.fail(resp)
	default:
		discard(resp)
	}
	// Registries and proxies that cannot HEAD, or leave out the headers.
	desc, _, err := c.manifestAt(ctx, p)
	return desc, err
}

// headDescriptor makes a descriptor of headers, if they say enough.
func headDescriptor(resp *http.Response) (ocispec.Descriptor, bool) {
	d := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	mt, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || !isManifestType(mt) || d.Validate() != nil || resp.ContentLength <= 0 {
		return ocispec.Descriptor{}, false
	}
	return ocispec.Descriptor{MediaType: mt, Digest: d, Size: resp.ContentLength}, true
}

// Manifest fetches the manifest or index that r names, verified: raw is exactly what the registry holds.
func (c *Client) Manifest(ctx context.Context, r ref.Ref) (desc ocispec.Descriptor, raw []byte, err error) {
	if err := checkManifest(r); err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	err = c.eachPlace(ctx, r, func(p Place) (err error) {
		desc, raw, err = c.manifestAt(ctx, p)
		return err
	})
	return desc, raw, err
}

func (c *Client) manifestAt(ctx context.Context, p Place) (desc ocispec.Descriptor, raw []byte, err error) {
	r := p.Ref
	rq := c.manifestRequest(p, "pulling manifest", http.MethodGet, actPull)
	for try := 1; ; try++ {
		resp, err := c.do(ctx, rq)
		if err != nil {
			return ocispec.Descriptor{}, nil, err
		}
		if resp.StatusCode != http.StatusOK {
			return ocispec.Descriptor{}, nil, rq.fail(resp)
		}
		raw, err = c.readManifest(resp)
		if err == nil {
			desc, err = describe(r, resp, raw)
			if err != nil {
				return ocispec.Descriptor{}, nil, fmt.Errorf("pulling manifest %s: %w", r, err)
			}
			return desc, raw, nil
		}
		if ctx.Err() != nil || !passingError(err) || try == tries {
			return ocispec.Descriptor{}, nil, rq.explain(err)
		}
		if err := c.o.Sleep(ctx, backoff(try)); err != nil {
			return ocispec.Descriptor{}, nil, rq.explain(err)
		}
	}
}

func (c *Client) readManifest(resp *http.Response) ([]byte, error) {
	defer resp.Body.Close()
	raw, err := readAll(resp.Body, c.o.MaxManifest)
	if errors.Is(err, errTooLong) {
		return nil, fmt.Errorf("%w: the manifest is longer than %d bytes, the most that registries must accept", ErrCorrupt, c.o.MaxManifest)
	}
	return raw, err
}

// describe verifies a manifest against what was asked for and against what the
// registry says it is.
func describe(r ref.Ref, resp *http.Response, raw []byte) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	if said := digest.Digest(resp.Header.Get("Docker-Content-Digest")); said.Validate() == nil {
		if got := said.Algorithm().FromBytes(raw); got != said {
			return desc, fmt.Errorf("%w: it says the digest is %s, and the digest is %s", ErrCorrupt, said, got)
		}
		desc.Digest = said
	}
	if r.Digest != "" {
		if got := r.Digest.Algorithm().FromBytes(raw); got != r.Digest {
			return desc, fmt.Errorf("%w: its digest is %s", ErrCorrupt, got)
		}
		desc.Digest = r.Digest
	}
	var err error
	desc.MediaType, err = mediaType(resp.Header.Get("Content-Type"), raw)
	if errors.Is(err, errNeither) && r.Digest != "" {
		// Its bytes are those that were asked for: what an index names, of a type that is not known here.
		if header, _, perr := mime.ParseMediaType(resp.Header.Get("Content-Type")); perr == nil && strings.HasSuffix(header, "+json") {
			desc.MediaType, err = header, nil
		}
	}
	return desc, err
}

// mediaType decides what a document is. The header and the document must agree
// (image-spec, "mediaType" of manifest and index); a header that says nothing
// leaves it to the document.
func mediaType(contentType string, raw []byte) (string, error) {
	header, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		header = ""
	}
	if header == "text/html" || header == "application/xhtml+xml" {
		return "", fmt.Errorf("%w: not a manifest: %s (a login page or a proxy's?)", ErrCorrupt, header)
	}
	var doc struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Manifests     json.RawMessage `json:"manifests"`
		Layers        json.RawMessage `json:"layers"`
		Config        json.RawMessage `json:"config"`
	}
	if _, err := jsontree.Decode(raw, &doc); err != nil {
		return "", fmt.Errorf("%w: not a manifest (%s): %w", ErrCorrupt, printable(contentType), err)
	}
	switch {
	case doc.SchemaVersion == 1 || strings.HasPrefix(header, "application/vnd.docker.distribution.manifest.v1+"):
		return "", errors.New("it is of Docker's schema 1, which is not supported: push the image anew with a current tool")
	case isManifestType(header) && doc.MediaType != "" && doc.MediaType != header:
		return "", fmt.Errorf("%w: the registry says it is %s, and the document that it is %s", ErrCorrupt, header, printable(doc.MediaType))
	case isManifestType(header):
		return header, nil
	case doc.MediaType != "":
		return doc.MediaType, nil
	case doc.Manifests != nil && (doc.Layers != nil || doc.Config != nil):
		return "", fmt.Errorf("%w: the document is ambiguous: it has manifests as well as layers or a config", ErrCorrupt)
	case doc.Manifests != nil:
		return ocispec.MediaTypeImageIndex, nil
	case doc.Config != nil:
		return ocispec.MediaTypeImageManifest, nil
	}
	return "", fmt.Errorf("%w: not a manifest: %s: %w", ErrCorrupt, printable(contentType), errNeither)
}

// errNeither says that a document is neither an index nor a manifest.
var errNeither = errors.New("it has neither manifests nor a config")

// PushManifest puts raw under r's tag, or under its digest when r has no tag, and checks what the registry says it became.
// An ErrBlobUnknown says that the registry misses something raw names.
func (c *Client) PushManifest(ctx context.Context, r ref.Ref, mediaType string, raw []byte) (ocispec.Descriptor, error) {
	res, err := c.PutManifest(ctx, r, mediaType, raw, PutOptions{})
	return res.Desc, err
}

// pushedAs names a manifest as PushManifest names it: by the tag if there is one.
func pushedAs(r ref.Ref, d digest.Digest) ref.Ref {
	if r.Tag != "" {
		return r.WithTag(r.Tag)
	}
	return r.WithDigest(d)
}
