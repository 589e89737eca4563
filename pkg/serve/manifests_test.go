package serve_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/serve"
)

type spaces struct{}

func TestManifests_F07_F09_F10(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		im := newImage(t, "arm64", 100)
		a.put("app", im.layer)
		a.put("app", im.config)
		put := func(ref string, body []byte, contentType string) answer {
			return a.call("PUT", "/v2/app/manifests/"+ref, body, "Content-Type", contentType)
		}
		oci := ocispec.MediaTypeImageManifest
		other := newImage(t, "arm64", 200)
		missing := digest.FromString("missing")
		index := func(children ...digest.Digest) []byte {
			var list []string
			for _, c := range children {
				list = append(list, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, oci, c, len(im.raw)))
			}
			return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, ocispec.MediaTypeImageIndex, strings.Join(list, ","))
		}
		deep := []byte(`{"schemaVersion":2,"mediaType":"` + oci + `","x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`)
		for name, tc := range map[string]struct {
			ref, contentType string
			body             []byte
			status           int
			code             string
		}{
			"F07 by another digest":    {digest.FromString("other").String(), oci, im.raw, 400, "DIGEST_INVALID"},
			"F09 too large":            {"x", oci, append(bytes.Repeat([]byte(" "), 4<<20), im.raw...), 413, "MANIFEST_INVALID"},
			"F09 deep":                 {"x", oci, deep, 400, "MANIFEST_INVALID"},
			"F09 wide":                 {"x", ocispec.MediaTypeImageIndex, index(slices.Repeat([]digest.Digest{missing}, 20000)...), 400, "MANIFEST_INVALID"},
			"B04 ambiguous artifact":   {"x", "application/vnd.example+json", fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[],"blobs":[]}`), 400, "MANIFEST_INVALID"},
			"F10 blobs missing":        {"x", oci, other.raw, 400, "MANIFEST_BLOB_UNKNOWN"},
			"F10 a child missing":      {"x", ocispec.MediaTypeImageIndex, index(missing), 400, "MANIFEST_BLOB_UNKNOWN"},
			"B03 another type":         {"x", ocispec.MediaTypeImageIndex, im.raw, 400, "MANIFEST_INVALID"},
			"B04 ambiguous":            {"x", "", fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[],"config":{"digest":%q,"size":1},"layers":[]}`, missing), 400, "MANIFEST_INVALID"},
			"an index that is none":    {"x", ocispec.MediaTypeImageIndex, []byte(`{"schemaVersion":2,"layers":[]}`), 400, "MANIFEST_INVALID"},
			"an image without config":  {"x", oci, []byte(`{"schemaVersion":2,"layers":[]}`), 400, "MANIFEST_INVALID"},
			"B10 the same key twice":   {"x", oci, bytes.Replace(im.raw, []byte(`{"schemaVersion":2`), []byte(`{"schemaVersion":2,"schemaVersion":2`), 1), 400, "MANIFEST_INVALID"},
			"B10 a key in other case":  {"x", oci, bytes.Replace(im.raw, []byte(`"layers"`), []byte(`"Layers"`), 1), 400, "MANIFEST_INVALID"},
			"B10 two documents":        {"x", oci, append(append([]byte(nil), im.raw...), im.raw...), 400, "MANIFEST_INVALID"},
			"B02 a negative size":      {"x", oci, bytes.Replace(im.raw, []byte(`"size":100`), []byte(`"size":-100`), 1), 400, "MANIFEST_INVALID"},
			"B02 another size":         {"x", oci, bytes.Replace(im.raw, []byte(`"size":100`), []byte(`"size":101`), 1), 400, "MANIFEST_INVALID"},
			"B15 a digest of dots":     {"x", oci, bytes.Replace(im.raw, []byte(describe(im.layer).Digest), []byte("sha256:../../x"), 1), 400, "MANIFEST_INVALID"},
			"B21 schema 1":             {"x", "application/vnd.docker.distribution.manifest.v1+prettyjws", []byte(`{"schemaVersion":1}`), 400, "MANIFEST_INVALID"},
			"F17 a page":               {"x", "text/html", []byte(`<script>alert(1)</script>`), 400, "MANIFEST_INVALID"},
			"F17 a page in a document": {"x", "", []byte(`{"schemaVersion":2,"mediaType":"text/html","manifests":[]}`), 400, "MANIFEST_INVALID"},
			"empty":                    {"x", oci, nil, 400, "MANIFEST_INVALID"},
			"not json":                 {"x", oci, []byte("hello"), 400, "MANIFEST_INVALID"},
		} {
			res := put(tc.ref, tc.body, tc.contentType)
			assert.Equal(t, tc.status, res.status, name)
			assert.Equal(t, []string{tc.code}, res.codes, name)
			assert.Equal(t, 404, a.call("GET", "/v2/app/manifests/"+tc.ref, nil).status, "%s: nothing is stored", name)
		}
		// Of unknown length, and endless: the server hangs up at its limit.
		endless, err := http.NewRequestWithContext(t.Context(), "PUT", a.base+"/v2/app/manifests/x", io.MultiReader(bytes.NewReader(im.raw), io.LimitReader(spaces{}, 1<<30)))
		require.NoError(t, err)
		if resp, err := plainClient.Do(endless); err == nil {
			assert.Equal(t, 413, resp.StatusCode)
			_ = resp.Body.Close()
		}
		assert.Equal(t, 404, a.call("GET", "/v2/app/manifests/x", nil).status)

		require.Equal(t, 201, put("1", im.raw, oci).status)
		require.Equal(t, 201, put("index", index(im.desc.Digest), ocispec.MediaTypeImageIndex).status)
		blobs := bytes.Replace(index(describe(im.layer).Digest), []byte(oci), []byte("application/octet-stream"), 1)
		require.Equal(t, 201, put("cache", blobs, ocispec.MediaTypeImageIndex).status, "an index may name blobs: caches are made so")
		res := a.call("GET", "/v2/app/manifests/index", nil, "Accept", "application/x-something")
		assert.Equal(t, 200, res.status)
		assert.Equal(t, ocispec.MediaTypeImageIndex, res.header.Get("Content-Type"))
		assert.Equal(t, "nosniff", res.header.Get("X-Content-Type-Options"))

		// A manifest that does not say what it is, is what it was pushed as.
		unnamed := fmt.Appendf(nil, `{"schemaVersion":2,"config":{"mediaType":"x","digest":%q,"size":%d},"layers":[]}`, describe(im.config).Digest, len(im.config))
		require.Equal(t, 201, put("unnamed", unnamed, "application/vnd.docker.distribution.manifest.v2+json").status)
		assert.Equal(t, "application/vnd.docker.distribution.manifest.v2+json", a.call("HEAD", "/v2/app/manifests/unnamed", nil).header.Get("Content-Type"))
	})
	t.Run("sparse", func(t *testing.T) {
		a := api{t, "http://" + start(t, serve.Options{Dir: t.TempDir(), Sparse: true})}
		im := newImage(t, "arm64", 100)
		assert.Equal(t, 201, a.call("PUT", "/v2/app/manifests/1", im.raw, "Content-Type", im.desc.MediaType).status)
	})
}

func TestDeletes_F11(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		im := newImage(t, "arm64", 100)
		a.putImage("app", "1", im)
		a.putImage("app", "2", im)
		a.putImage("other", "1", im)
		at := "/v2/app/manifests/" + im.desc.Digest.String()
		assert.Equal(t, 202, a.call("DELETE", "/v2/app/manifests/2", nil).status)
		assert.Equal(t, 404, a.call("GET", "/v2/app/manifests/2", nil).status)
		assert.Equal(t, 404, a.call("DELETE", "/v2/app/manifests/2", nil).status)
		assert.Equal(t, 200, a.call("GET", at, nil).status, "a tag is only a name")
		assert.Equal(t, 202, a.call("DELETE", at, nil).status)
		assert.Equal(t, 404, a.call("GET", at, nil).status)
		assert.Equal(t, 404, a.call("GET", "/v2/app/manifests/1", nil).status, "and its tags")
		assert.Equal(t, 404, a.call("DELETE", at, nil).status)
		if res := a.call("GET", "/v2/app/tags/list", nil); res.status == 200 {
			assert.JSONEq(t, `{"name":"app","tags":[]}`, string(res.body))
		}
		assert.Equal(t, 200, a.call("GET", "/v2/other/manifests/1", nil).status, "another repository has its own")
		a.putImage("app", "1", im)
		assert.Equal(t, 200, a.call("GET", at, nil).status, "pushed again")
		assert.Equal(t, 404, a.call("DELETE", "/v2/nobody/manifests/1", nil).status)
	})
	t.Run("blobs", func(t *testing.T) {
		dir := t.TempDir()
		o := serve.Options{Dir: dir}
		h, err := serve.Handler(t.Context(), o)
		require.NoError(t, err)
		require.NoError(t, h.Close())
		host := start(t, o)
		a := api{t, "http://" + host}
		b := randomBytes(t, 100)
		path := "/v2/app/blobs/" + describe(b).Digest.String()
		a.put("app", b)
		a.put("other", b)
		assert.Equal(t, 202, a.call("DELETE", path, nil).status)
		assert.Equal(t, 404, a.call("HEAD", path, nil).status)
		assert.Equal(t, 404, a.call("DELETE", path, nil).status)
		assert.Equal(t, 200, a.call("HEAD", "/v2/other/blobs/"+describe(b).Digest.String(), nil).status)
	})
}

func TestManifests_ifMatch(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		one, two := newImage(t, "amd64", 10), newImage(t, "arm64", 20)
		a.putImage("app", "x", one)
		a.put("app", two.layer)
		a.put("app", two.config)
		put := func(im image, header ...string) int {
			return a.call("PUT", "/v2/app/manifests/x", im.raw, append(header, "Content-Type", im.desc.MediaType)...).status
		}
		etag := a.call("HEAD", "/v2/app/manifests/x", nil).header.Get("ETag")
		assert.Equal(t, `"`+one.desc.Digest.String()+`"`, etag)
		assert.Equal(t, 412, put(two, "If-Match", `"`+two.desc.Digest.String()+`"`))
		assert.Equal(t, 412, put(two, "If-None-Match", `*`))
		assert.Equal(t, 412, put(two, "If-Match", `W/`+etag), "a weak comparison does not do")
		assert.Equal(t, etag, a.call("HEAD", "/v2/app/manifests/x", nil).header.Get("ETag"))
		assert.Equal(t, 201, put(two, "If-Match", etag))
		assert.Equal(t, 412, put(one, "If-Match", etag))
		assert.Equal(t, 201, put(one, "If-Match", "*"))
		assert.Equal(t, 412, a.call("DELETE", "/v2/app/manifests/x", nil, "If-Match", `"`+two.desc.Digest.String()+`"`).status)
		assert.Equal(t, 202, a.call("DELETE", "/v2/app/manifests/x", nil, "If-Match", etag).status)
		assert.Equal(t, 412, put(one, "If-Match", "*"), "nothing matches nothing")
		assert.Equal(t, 201, put(one, "If-None-Match", "*"))
		assert.Equal(t, 304, a.call("GET", "/v2/app/manifests/x", nil, "If-None-Match", etag).status)
	})
	t.Run("of many writers one wins", func(t *testing.T) {
		eachAPI(t, func(t *testing.T, a api) {
			base := newImage(t, "amd64", 10)
			a.putImage("app", "x", base)
			var images []image
			for range 8 {
				im := newImage(t, "arm64", 10)
				a.put("app", im.layer)
				a.put("app", im.config)
				images = append(images, im)
			}
			var wg sync.WaitGroup
			var mu sync.Mutex
			won := 0
			for _, im := range images {
				wg.Go(func() {
					res := a.call("PUT", "/v2/app/manifests/x", im.raw, "Content-Type", im.desc.MediaType, "If-Match", `"`+base.desc.Digest.String()+`"`)
					mu.Lock()
					defer mu.Unlock()
					if res.status == 201 {
						won++
					} else {
						assert.Equal(t, 412, res.status)
					}
				})
			}
			wg.Wait()
			assert.Equal(t, 1, won)
		})
	})
}

// TestTags_F12 reads a tag while many write it.
func TestTags_F12_oneManifestAtATime(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		const writers = 6
		var images []image
		known := map[string]bool{}
		for range writers {
			im := newImage(t, "arm64", 10)
			a.put("app", im.layer)
			a.put("app", im.config)
			images = append(images, im)
			known[string(im.raw)] = true
		}
		a.putImage("app", "x", images[0])
		stop := make(chan struct{})
		var readers, wg sync.WaitGroup
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				res := a.call("GET", "/v2/app/manifests/x", nil)
				if !assert.Equal(t, 200, res.status) || !assert.True(t, known[string(res.body)], "not what anybody pushed: %s", res.body) {
					return
				}
				assert.Equal(t, digest.FromBytes(res.body).String(), res.header.Get("Docker-Content-Digest"))
			}
		})
		for _, im := range images {
			wg.Go(func() {
				for range 3 {
					assert.Equal(t, 201, a.call("PUT", "/v2/app/manifests/x", im.raw, "Content-Type", im.desc.MediaType).status)
				}
			})
		}
		wg.Wait()
		close(stop)
		readers.Wait()
	})
}

func TestTagParameter(t *testing.T) {
	eachAPI(t, func(t *testing.T, a api) {
		im := newImage(t, "arm64", 10)
		a.put("app", im.layer)
		a.put("app", im.config)
		at := "/v2/app/manifests/" + im.desc.Digest.String()
		res := a.call("PUT", at+"?tag=a&tag=b", im.raw, "Content-Type", im.desc.MediaType)
		require.Equal(t, 201, res.status)
		assert.Equal(t, []string{"a", "b"}, res.header.Values("OCI-Tag"))
		assert.JSONEq(t, `{"name":"app","tags":["a","b"]}`, string(a.call("GET", "/v2/app/tags/list", nil).body))
		assert.Equal(t, 400, a.call("PUT", at+"?tag=ok&tag=../x", im.raw, "Content-Type", im.desc.MediaType).status)
		assert.Equal(t, 400, a.call("PUT", at+"?"+strings.Repeat("tag=x&", 101), im.raw, "Content-Type", im.desc.MediaType).status)
		assert.JSONEq(t, `{"name":"app","tags":["a","b"]}`, string(a.call("GET", "/v2/app/tags/list", nil).body))
	})
}
