package serve_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLists_F14(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		im := newImage(t, "arm64", 10)
		for _, tag := range []string{"b", "A", "c", "a", "B", "_x", "1.0"} {
			a.putImage("app", tag, im)
		}
		a.putImage("zoo/x", "1", im)
		tags := func(query string) (int, []string, string) {
			res := a.call("GET", "/v2/app/tags/list"+query, nil)
			var doc struct {
				Name string
				Tags []string
			}
			if res.status == 200 {
				require.NoError(t, json.Unmarshal(res.body, &doc))
				assert.Equal(t, "app", doc.Name)
				assert.NotNil(t, doc.Tags)
			}
			return res.status, doc.Tags, res.header.Get("Link")
		}
		all := []string{"1.0", "_x", "A", "a", "B", "b", "c"}
		_, got, link := tags("")
		assert.Equal(t, all, got)
		assert.Empty(t, link)
		_, got, link = tags("?n=3")
		assert.Equal(t, all[:3], got)
		assert.Equal(t, `</v2/app/tags/list?last=A&n=3>; rel="next"`, link)
		_, got, link = tags("?n=3&last=A")
		assert.Equal(t, all[3:6], got)
		assert.NotEmpty(t, link)
		_, got, link = tags("?n=3&last=b")
		assert.Equal(t, all[6:], got)
		assert.Empty(t, link)
		_, got, link = tags("?n=7")
		assert.Equal(t, all, got)
		assert.Empty(t, link)
		_, got, _ = tags("?n=0")
		assert.Empty(t, got)
		_, got, _ = tags("?last=zzz")
		assert.Empty(t, got)
		_, got, _ = tags("?last=Aa") // no such tag: what follows it
		assert.Equal(t, all[4:], got)
		_, got, _ = tags("?n=1000000000000000000000000000")
		assert.Equal(t, all, got)
		for _, bad := range []string{"?n=-1", "?n=x", "?n=", "?n=1.5", "?n=%zz", "?n=+1", "?n=0x10"} {
			code, _, _ := tags(bad)
			assert.Equal(t, 400, code, bad)
		}
		code, _, _ := tags("?n=1&last=" + strings.Repeat("x", 5000))
		assert.Equal(t, 200, code)
		assert.Equal(t, 404, a.call("GET", "/v2/nobody/tags/list", nil).status)

		res := a.call("GET", "/v2/_catalog", nil)
		assert.JSONEq(t, `{"repositories":["app","zoo/x"]}`, string(res.body))
		res = a.call("GET", "/v2/_catalog?n=1", nil)
		assert.JSONEq(t, `{"repositories":["app"]}`, string(res.body))
		assert.Equal(t, `</v2/_catalog?last=app&n=1>; rel="next"`, res.header.Get("Link"))
		assert.Equal(t, 400, a.call("GET", "/v2/_catalog?n=-1", nil).status)
	})
}

func TestBlobs_F15_ranges(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		b := randomBytes(t, 1000)
		a.put("app", b)
		path := "/v2/app/blobs/" + describe(b).Digest.String()
		for rng, tc := range map[string]struct {
			status int
			want   []byte
		}{
			"":                            {200, b},
			"bytes=0-":                    {206, b},
			"bytes=0-0":                   {206, b[:1]},
			"bytes=100-199":               {206, b[100:200]},
			"bytes=990-5000":              {206, b[990:]},
			"bytes=-5":                    {206, b[995:]},
			"bytes=-5000":                 {206, b},
			"bytes=1000-":                 {416, nil},
			"bytes=5-2":                   {416, nil},
			"bytes=-":                     {416, nil},
			"bytes=a-b":                   {416, nil},
			"bytes=99999999999999999999-": {416, nil},
			"lines=1-2":                   {416, nil},
		} {
			res := call{"GET", a.base + path, nil, map[string]string{"Range": rng}}
			req, err := http.NewRequestWithContext(t.Context(), "GET", res.url, nil)
			require.NoError(t, err)
			if rng != "" {
				req.Header.Set("Range", rng)
			}
			resp, err := plainClient.Do(req)
			require.NoError(t, err)
			got, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			_ = resp.Body.Close()
			assert.Equal(t, tc.status, resp.StatusCode, rng)
			if tc.want != nil {
				assert.Equal(t, tc.want, got, rng)
				assert.Equal(t, "application/octet-stream", resp.Header.Get("Content-Type"))
				assert.Equal(t, "nosniff", resp.Header.Get("X-Content-Type-Options"))
			}
		}
		res := a.call("HEAD", path, nil)
		assert.Equal(t, 200, res.status)
		assert.Equal(t, "1000", res.header.Get("Content-Length"))
		assert.Equal(t, describe(b).Digest.String(), res.header.Get("Docker-Content-Digest"))
		assert.Equal(t, 404, a.call("GET", "/v2/app/blobs/"+digest.FromString("x").String(), nil).status)
	})
}

func TestReferrers_F21(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		im := newImage(t, "arm64", 10)
		a.putImage("app", "1", im)
		empty := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
		of := func(d digest.Digest, query string) answer {
			return a.call("GET", "/v2/app/referrers/"+d.String()+query, nil)
		}
		res := of(im.desc.Digest, "")
		assert.Equal(t, 200, res.status)
		assert.JSONEq(t, empty, string(res.body))
		assert.Equal(t, ocispec.MediaTypeImageIndex, res.header.Get("Content-Type"))
		assert.JSONEq(t, empty, string(a.call("GET", "/v2/nobody/referrers/"+im.desc.Digest.String(), nil).body))
		assert.Equal(t, 400, a.call("GET", "/v2/app/referrers/sha256:x", nil).status)

		artifact := func(kind string, subject digest.Digest) []byte {
			return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":%d},"layers":[],"subject":{"mediaType":%q,"digest":%q,"size":1},"annotations":{"k":%q}}`,
				ocispec.MediaTypeImageManifest, kind, describe(im.config).Digest, len(im.config), ocispec.MediaTypeImageManifest, subject, kind)
		}
		var put []digest.Digest
		for _, kind := range []string{"text/sbom", "text/signature"} {
			raw := artifact(kind, im.desc.Digest)
			res := a.call("PUT", "/v2/app/manifests/"+digest.FromBytes(raw).String(), raw, "Content-Type", ocispec.MediaTypeImageManifest)
			require.Equal(t, 201, res.status, "%s", res.body)
			assert.Equal(t, im.desc.Digest.String(), res.header.Get("OCI-Subject"))
			put = append(put, digest.FromBytes(raw))
		}
		// A subject that is not there yet.
		later := digest.FromString("later")
		raw := artifact("text/early", later)
		require.Equal(t, 201, a.call("PUT", "/v2/app/manifests/early", raw, "Content-Type", ocispec.MediaTypeImageManifest).status)

		list := func(res answer) (kinds []string) {
			var idx ocispec.Index
			require.NoError(t, json.Unmarshal(res.body, &idx))
			for _, m := range idx.Manifests {
				kinds = append(kinds, m.ArtifactType)
				assert.Equal(t, m.ArtifactType, m.Annotations["k"])
				assert.NotZero(t, m.Size)
			}
			return kinds
		}
		assert.ElementsMatch(t, []string{"text/sbom", "text/signature"}, list(of(im.desc.Digest, "")))
		assert.Equal(t, []string{"text/early"}, list(of(later, "")))
		res = of(im.desc.Digest, "?artifactType=text/sbom")
		assert.Equal(t, []string{"text/sbom"}, list(res))
		assert.Equal(t, "artifactType", res.header.Get("OCI-Filters-Applied"))
		assert.Empty(t, list(of(im.desc.Digest, "?artifactType=text/none")))
		require.Equal(t, 202, a.call("DELETE", "/v2/app/manifests/"+put[0].String(), nil).status)
		assert.Equal(t, []string{"text/signature"}, list(of(im.desc.Digest, "")))
		require.Equal(t, 202, a.call("DELETE", "/v2/app/manifests/"+put[1].String(), nil).status)
		assert.Empty(t, list(of(im.desc.Digest, "")))
	})
}
