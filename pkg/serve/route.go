package serve

import (
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/ref"
)

// endpoint is what a path of the API is about.
type endpoint int

const (
	epNone endpoint = iota
	epBase
	epCatalog
	epTags
	epManifest
	epBlob
	epUploads
	epUpload
	epReferrers
)

// String names an endpoint for logs and metrics.
func (e endpoint) String() string {
	return [...]string{"none", "base", "catalog", "tags", "manifest", "blob", "uploads", "upload", "referrers"}[e]
}

// route is a path of the API, taken apart and checked.
type route struct {
	ep     endpoint
	repo   string
	tag    string        // manifest, when by tag
	digest digest.Digest // manifest, blob or referrers
	id     string        // upload
	user   string        // who asks; "": nobody in particular
}

// parseRoute reads a decoded path. Repositories may have any name, also "blobs"
// or "manifests": the end of the path decides.
func parseRoute(path string) (route, *apiError) {
	rest, ok := strings.CutPrefix(path, "/v2")
	switch {
	case !ok || rest != "" && rest[0] != '/':
		return route{}, errNotAPI
	case rest == "" || rest == "/":
		return route{ep: epBase}, nil
	case rest == "/_catalog":
		return route{ep: epCatalog}, nil
	}
	parts := strings.Split(rest[1:], "/")
	n := len(parts)
	last := func(i int) string {
		if n < i {
			return ""
		}
		return parts[n-i]
	}
	r := route{}
	keep := 0
	switch {
	case last(3) == "blobs" && last(2) == "uploads":
		r.ep, r.id, keep = epUpload, last(1), n-3
		if r.id == "" {
			r.ep = epUploads
		}
	case last(2) == "blobs" && last(1) == "uploads":
		r.ep, keep = epUploads, n-2
	case last(2) == "tags" && last(1) == "list":
		r.ep, keep = epTags, n-2
	case last(2) == "manifests":
		r.ep, keep = epManifest, n-2
	case last(2) == "blobs":
		r.ep, keep = epBlob, n-2
	case last(2) == "referrers":
		r.ep, keep = epReferrers, n-2
	default:
		return route{}, errNotAPI
	}
	r.repo = strings.Join(parts[:keep], "/")
	if err := ref.CheckRepo(r.repo); err != nil {
		return route{}, codeNameInvalid.with(err.Error())
	}
	return r, r.target(last(1))
}

// target reads the last part of the path: a digest or a tag.
func (r *route) target(s string) *apiError {
	switch r.ep {
	case epManifest:
		if !strings.Contains(s, ":") {
			if err := ref.CheckTag(s); err != nil {
				return codeTagInvalid.with(err.Error())
			}
			r.tag = s
			return nil
		}
		fallthrough
	case epBlob, epReferrers:
		d, err := parseDigest(s)
		r.digest = d
		return err
	default:
		return nil
	}
}

func parseDigest(s string) (digest.Digest, *apiError) {
	d := digest.Digest(s)
	if err := d.Validate(); err != nil {
		return "", codeDigestInvalid.with(err.Error())
	}
	return d, nil
}
