package serve_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/serve"
)

// layout is every name that a registry's directory may hold.
var layout = regexp.MustCompile(`^(?:\.|registry\.json|lock|uploads(?:/upload-[0-9]+)?|blobs(?:/sha\d+(?:/[0-9a-f]+)?)?|repos(?:/[a-z0-9._/-]+?)?(?:/_(?:blobs|manifests)(?:/sha\d+(?:/[0-9a-f]+)?)?|/_tags(?:/[a-z0-9_!][a-z0-9_.!-]*)?|/_referrers(?:/sha\d+(?:/[0-9a-f]+(?:/sha\d+-[0-9a-f]+)?)?)?)?)$`)

// FuzzHTTP throws a request at a registry and looks at what it answered and at
// what is on disk.
func FuzzHTTP(f *testing.F) {
	dir := f.TempDir()
	h, err := serve.Handler(f.Context(), serve.Options{Dir: dir, Sparse: true, Limits: serve.Limits{Total: 32 << 20}})
	require.NoError(f, err)
	f.Cleanup(func() { assert.NoError(f, h.Close()) })
	d := digest.FromString("hello").String()
	manifest := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":"` + d + `","size":5},"layers":[],"subject":{"digest":"` + d + `","size":1}}`)
	for _, s := range []struct {
		method, target, key, value string
		body                       []byte
	}{
		{"GET", "/v2/", "Range", "bytes=0-", nil},
		{"GET", "/v2/_catalog?n=1&last=a", "", "", nil},
		{"GET", "/v2/a/b/tags/list?n=-1", "", "", nil},
		{"PUT", "/v2/a/manifests/Tag", "Content-Type", "application/vnd.oci.image.manifest.v1+json", manifest},
		{"PUT", "/v2/a/manifests/" + digest.FromBytes(manifest).String() + "?tag=a&tag=B", "If-Match", `"x"`, manifest},
		{"DELETE", "/v2/a/manifests/Tag", "If-Match", "*", nil},
		{"GET", "/v2/a/manifests/Tag", "If-None-Match", "*", nil},
		{"POST", "/v2/a/blobs/uploads/?digest=" + d, "", "", []byte("hello")},
		{"POST", "/v2/b/blobs/uploads/?mount=" + d + "&from=a", "", "", nil},
		{"POST", "/v2/b/blobs/uploads/", "", "", nil},
		{"PATCH", "/v2/b/blobs/uploads/0123456789abcdef0123456789abcdef", "Content-Range", "0-4", []byte("hello")},
		{"GET", "/v2/a/blobs/" + d, "Range", "bytes=-5", nil},
		{"GET", "/v2/a/referrers/" + d + "?artifactType=x", "", "", nil},
		{"GET", "/v2/a/%2e%2e/%2e%2e/manifests/x", "", "", nil},
		{"PUT", "/v2/../../x/manifests/x", "", "", manifest},
	} {
		f.Add(s.method, s.target, s.key, s.value, s.body)
	}
	f.Fuzz(func(t *testing.T, method, target, key, value string, body []byte) {
		u, err := url.ParseRequestURI(target)
		if err != nil || strings.ContainsAny(method, " \r\n") {
			return
		}
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/", bytes.NewReader(body))
		req.Method, req.URL = method, u
		req.Header[http.CanonicalHeaderKey(key)] = []string{value}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		res := w.Result()
		require.Less(t, res.StatusCode, 500, "%s", w.Body)
		if res.StatusCode >= 400 && res.StatusCode != http.StatusRequestedRangeNotSatisfiable {
			require.True(t, json.Valid(w.Body.Bytes()), "%s", w.Body)
		}
		for k, vs := range res.Header {
			for _, v := range vs {
				require.NotContains(t, v, "\n", k)
			}
		}
		if loc := res.Header.Get("Location"); strings.Contains(loc, "/uploads/") {
			del := httptest.NewRequestWithContext(t.Context(), http.MethodDelete, loc, nil)
			h.ServeHTTP(httptest.NewRecorder(), del)
		}
		if method == http.MethodGet || method == http.MethodHead {
			return
		}
		h.Collect()
		checkDirectory(t, dir)
		require.Equal(t, strconv.FormatInt(blobBytes(t, dir), 10), contentBytes(t, h), "what is counted is what is there")
	})
}

// checkDirectory holds a registry's directory to its invariants: no name that the layout does not have; content has its
// digest; what a repository has is there; a tag is a manifest of its repository; a referrer is one, too.
func checkDirectory(t *testing.T, dir string) {
	t.Helper()
	described := func(path string) (d digest.Digest) {
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		var desc ocispec.Descriptor
		require.NoError(t, json.Unmarshal(raw, &desc), path)
		require.NoError(t, desc.Digest.Validate(), path)
		return desc.Digest
	}
	require.NoError(t, filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		require.NoError(t, err)
		name := filepath.ToSlash(rel)
		require.Regexp(t, layout, name)
		if !e.Type().IsRegular() {
			require.True(t, e.IsDir(), "%s is neither a file nor a directory", name)
			return nil
		}
		parts := strings.Split(name, "/")
		n := len(parts)
		content := func(algo, hex string) string { return filepath.Join(dir, "blobs", algo, hex) }
		switch {
		case parts[0] == "blobs":
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, parts[2], digest.Algorithm(parts[1]).FromBytes(b).Encoded())
		case n > 3 && (parts[n-3] == "_blobs" || parts[n-3] == "_manifests"):
			require.FileExists(t, content(parts[n-2], parts[n-1]), "%s", name)
			if parts[n-3] == "_manifests" {
				require.Equal(t, digest.NewDigestFromEncoded(digest.Algorithm(parts[n-2]), parts[n-1]), described(path))
			}
		case n > 3 && parts[n-2] == "_tags":
			d := described(path)
			require.FileExists(t, filepath.Join(dir, filepath.Join(parts[:n-2]...), "_manifests", d.Algorithm().String(), d.Encoded()), "%s", name)
		case n > 4 && parts[n-4] == "_referrers":
			d := described(path)
			require.FileExists(t, filepath.Join(dir, filepath.Join(parts[:n-4]...), "_manifests", d.Algorithm().String(), d.Encoded()), "%s", name)
		}
		return nil
	}))
}

// blobBytes is how many bytes of content a registry's directory holds.
func blobBytes(t *testing.T, dir string) (total int64) {
	t.Helper()
	for path, size := range tree(t, filepath.Join(dir, "blobs")) {
		require.NotContains(t, filepath.Base(path), ".tmp-")
		total += size
	}
	return total
}

// FuzzManifest throws a document at a registry: what it takes, it gives back as
// it was, under a type that is no page.
func FuzzManifest(f *testing.F) {
	h, err := serve.Handler(f.Context(), serve.Options{Dir: f.TempDir(), Sparse: true})
	require.NoError(f, err)
	f.Cleanup(func() { assert.NoError(f, h.Close()) })
	d := digest.FromString("x").String()
	for _, s := range []string{
		`{"schemaVersion":2,"config":{"digest":"` + d + `","size":1},"layers":[]}`,
		`{"schemaVersion":2,"manifests":[{"digest":"` + d + `","size":1,"platform":{"os":"linux"}}]}`,
		`{"schemaVersion":2,"mediaType":"text/html","manifests":[]}`,
		`{"schemaVersion":1}`, `{}`, `[]`, `null`, `{"manifests":[],"layers":[]}`,
	} {
		f.Add("application/vnd.oci.image.manifest.v1+json", []byte(s))
		f.Add("application/vnd.oci.image.index.v1+json", []byte(s))
		f.Add("text/html", []byte(s))
	}
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		put := httptest.NewRequestWithContext(t.Context(), http.MethodPut, "/v2/a/manifests/x", bytes.NewReader(body))
		put.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, put)
		if w.Code != http.StatusCreated {
			require.Contains(t, []int{400, 413}, w.Code, "%s", w.Body)
			return
		}
		at := "/v2/a/manifests/" + w.Header().Get("Docker-Content-Digest")
		require.Equal(t, digest.FromBytes(body).String(), w.Header().Get("Docker-Content-Digest"))
		w = httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, at, nil))
		require.Equal(t, http.StatusOK, w.Code)
		require.True(t, bytes.Equal(body, w.Body.Bytes()))
		require.Regexp(t, `^application/vnd\.[A-Za-z0-9!#$&^_.+-]*\+json$`, w.Header().Get("Content-Type"))
	})
}
