package registry

import (
	"context"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/internal/jsontree"
	"github.com/manifestctl/manifestctl/pkg/ref"
)

const (
	maxReferrerPages = 1000
	maxReferrers     = 100_000 // of one manifest
)

// Referrers lists the manifests whose subject is d, as the registry knows them. supported is false when the
// registry has no such list: then they stand in an index under [ReferrersTag]. Every descriptor is as the registry
// gives it, unchecked.
func (c *Client) Referrers(ctx context.Context, r ref.Ref, d digest.Digest) (list []ocispec.Descriptor, supported bool, err error) {
	if err := checkBlob(r, d); err != nil {
		return nil, false, err
	}
	err = c.homeFirst(ctx, r, func(p Place) (err error) {
		list, supported, err = c.referrersAt(ctx, p, d)
		return err
	})
	return list, supported, err
}

func (c *Client) referrersAt(ctx context.Context, p Place, d digest.Digest) (list []ocispec.Descriptor, supported bool, err error) {
	rq := c.requestAt(p, "listing referrers of", http.MethodGet, "/referrers/"+d.String(), actPull)
	rq.what = p.Ref.Repository() + "@" + d.String()
	rq.header.Set("Accept", ocispec.MediaTypeImageIndex)
	seen := map[string]bool{}
	for page := 1; ; page++ {
		got, next, ok, err := c.referrersPage(ctx, rq)
		if err != nil || !ok {
			return nil, false, err
		}
		if list = append(list, got...); next == nil {
			return list, true, nil
		}
		if seen[next.String()] || page == maxReferrerPages || len(list) > maxReferrers {
			return nil, true, fmt.Errorf("listing referrers of %s: the registry's pages do not end", rq.what)
		}
		seen[next.String()] = true
		rq.url = next
	}
}

func (c *Client) referrersPage(ctx context.Context, rq *request) (list []ocispec.Descriptor, next *url.URL, ok bool, err error) {
	resp, err := c.do(ctx, rq)
	if err != nil {
		return nil, nil, false, err
	}
	switch mt, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); {
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusMethodNotAllowed,
		resp.StatusCode == http.StatusOK && mt != ocispec.MediaTypeImageIndex && rq.url == nil:
		discard(resp) // the specification: 404 is a registry without this list; some answer every path with a page
		return nil, nil, false, nil
	case resp.StatusCode != http.StatusOK:
		return nil, nil, false, rq.fail(resp)
	}
	defer resp.Body.Close()
	body, err := readAll(resp.Body, maxTagPage)
	if err != nil {
		return nil, nil, false, rq.explain(err)
	}
	var idx ocispec.Index
	if _, err := jsontree.Decode(body, &idx); err != nil {
		return nil, nil, false, fmt.Errorf("listing referrers of %s: %w: %w", rq.what, ErrCorrupt, err)
	}
	next, err = nextPage(resp)
	if err == nil && next != nil {
		upgrade(next, resp.Request.URL)
		if !sameOrigin(next, resp.Request.URL) {
			err = fmt.Errorf("the next page is at another registry (%s): refused", printable(next.Host))
		}
	}
	if err != nil {
		return nil, nil, false, fmt.Errorf("listing referrers of %s: %w", rq.what, err)
	}
	return idx.Manifests, next, true, nil
}

// ReferrersTag is the tag under which a registry without a list of referrers has the index of d's
// (distribution specification, "Referrers Tag Schema").
func ReferrersTag(d digest.Digest) string {
	algorithm, encoded := d.Algorithm().String(), d.Encoded()
	clean := func(s string, n int) string {
		s = strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_.-", r) {
				return r
			}
			return '-'
		}, s)
		return s[:min(n, len(s))]
	}
	return clean(algorithm, 32) + "-" + clean(encoded, 64)
}
