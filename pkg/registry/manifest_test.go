package registry_test

import (
	"bytes"
	"fmt"
	"net/http"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

const dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"

// answers makes a fake answer every GET of a manifest with one document.
func answers(f *fake, contentType string, body []byte, headers ...string) {
	do := func(w http.ResponseWriter, _ *http.Request) bool {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(body)
		return true
	}
	f.when("GET", "/manifests/", 0, do)
	f.when("HEAD", "/manifests/", 0, status(405, ""))
}

func TestManifest_verified(t *testing.T) {
	good := imageManifest("x")
	d := digest.FromBytes(good)
	other := digest.FromString("other")
	index := []byte(`{"schemaVersion":2,"manifests":[]}`)
	for name, tc := range map[string]struct {
		contentType string
		body        []byte
		headers     []string
		digest      digest.Digest
		wantType    string
		err         error
		text        string
	}{
		"by tag":                        {ocispec.MediaTypeImageManifest, good, nil, "", ocispec.MediaTypeImageManifest, nil, ""},
		"by digest":                     {ocispec.MediaTypeImageManifest, good, nil, d, ocispec.MediaTypeImageManifest, nil, ""},
		"by sha512":                     {ocispec.MediaTypeImageManifest, good, nil, digest.SHA512.FromBytes(good), ocispec.MediaTypeImageManifest, nil, ""},
		"B01 by another digest":         {ocispec.MediaTypeImageManifest, good, nil, other, "", registry.ErrCorrupt, d.String()},
		"C23 another digest header":     {ocispec.MediaTypeImageManifest, good, []string{"Docker-Content-Digest", other.String()}, "", "", registry.ErrCorrupt, d.String()},
		"a digest header of nonsense":   {ocispec.MediaTypeImageManifest, good, []string{"Docker-Content-Digest", "x"}, "", ocispec.MediaTypeImageManifest, nil, ""},
		"B05 with a charset":            {ocispec.MediaTypeImageManifest + "; charset=utf-8", good, nil, "", ocispec.MediaTypeImageManifest, nil, ""},
		"B05 plain json":                {"application/json", good, nil, "", ocispec.MediaTypeImageManifest, nil, ""},
		"B05 no type at all":            {"", good, nil, "", ocispec.MediaTypeImageManifest, nil, ""},
		"B05 text, an index unnamed":    {"text/plain", index, nil, "", ocispec.MediaTypeImageIndex, nil, ""},
		"B05 an image unnamed":          {"application/json", []byte(`{"schemaVersion":2,"config":{},"layers":[]}`), nil, "", ocispec.MediaTypeImageManifest, nil, ""},
		"B03 header and document":       {dockerManifest, good, nil, "", "", registry.ErrCorrupt, dockerManifest},
		"B04 ambiguous":                 {"application/json", []byte(`{"schemaVersion":2,"manifests":[],"layers":[]}`), nil, "", "", registry.ErrCorrupt, "ambiguous"},
		"B10 the same key twice":        {ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2,"mediaType":"a","mediaType":"b"}`), nil, "", "", registry.ErrCorrupt, "not a manifest"},
		"B21 schema 1":                  {"application/vnd.docker.distribution.manifest.v1+prettyjws", []byte(`{"schemaVersion":1}`), nil, "", "", nil, "schema 1"},
		"C26 a captive portal":          {"text/html; charset=utf-8", []byte("<html>log in</html>"), nil, "", "", registry.ErrCorrupt, "not a manifest: text/html"},
		"C26 not json":                  {ocispec.MediaTypeImageManifest, []byte("hello"), nil, "", "", registry.ErrCorrupt, "not a manifest"},
		"an array":                      {ocispec.MediaTypeImageManifest, []byte("[]"), nil, "", "", registry.ErrCorrupt, "not a manifest"},
		"null":                          {ocispec.MediaTypeImageManifest, []byte("null"), nil, "", "", registry.ErrCorrupt, "not a manifest"},
		"nothing known":                 {"application/json", []byte(`{"hello":"world"}`), nil, "", "", registry.ErrCorrupt, "not a manifest"},
		"empty":                         {ocispec.MediaTypeImageManifest, nil, nil, "", "", registry.ErrCorrupt, "not a manifest"},
		"B09 longer than 4 MiB":         {ocispec.MediaTypeImageManifest, append(good, bytes.Repeat([]byte(" "), 4<<20)...), nil, "", "", registry.ErrCorrupt, "4194304"},
		"an unknown type in a document": {"application/json", []byte(`{"schemaVersion":2,"mediaType":"application/vnd.example+json"}`), nil, "", "application/vnd.example+json", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			answers(f, tc.contentType, tc.body, tc.headers...)
			r := mustParse(t, f.host+"/app:1")
			if tc.digest != "" {
				r = r.WithDigest(tc.digest)
			}
			c := client(registry.Options{})
			desc, raw, err := c.Manifest(t.Context(), r)
			if tc.text != "" {
				require.Error(t, err)
				if tc.err != nil {
					require.ErrorIs(t, err, tc.err)
				}
				assert.Contains(t, err.Error(), tc.text)
				assert.Contains(t, err.Error(), r.String())
				_, err = c.Resolve(t.Context(), r)
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tc.body, raw)
			want := digest.FromBytes(tc.body)
			if tc.digest != "" {
				want = tc.digest
			}
			assert.Equal(t, ocispec.Descriptor{MediaType: tc.wantType, Digest: want, Size: int64(len(tc.body))}, desc)
			again, err := c.Resolve(t.Context(), r)
			require.NoError(t, err)
			assert.Equal(t, desc, again, "HEAD is refused: Resolve says what GET says")
		})
	}
}

func TestManifest_B09_endless(t *testing.T) {
	f := newFake(t)
	f.when("GET", "/manifests/", 0, func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		for {
			if _, err := w.Write(bytes.Repeat([]byte(" "), 1<<16)); err != nil {
				return true
			}
		}
	})
	_, _, err := client(registry.Options{}).Manifest(t.Context(), mustParse(t, f.host+"/app:1"))
	require.ErrorIs(t, err, registry.ErrCorrupt)
	assert.Equal(t, 1, f.count("", ""))
}

func TestManifest_cut(t *testing.T) {
	f := newFake(t)
	raw := imageManifest("x")
	f.putManifest("app", "1", ocispec.MediaTypeImageManifest, raw)
	f.when("GET", "/manifests/", 1, cutAfter(raw, 20))
	_, got, err := client(registry.Options{}).Manifest(t.Context(), mustParse(t, f.host+"/app:1"))
	require.NoError(t, err)
	assert.Equal(t, raw, got)
}

func TestResolve_C21_HEAD(t *testing.T) {
	raw := imageManifest("x")
	d := digest.FromBytes(raw)
	want := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: int64(len(raw))}
	for name, tc := range map[string]struct {
		head func(http.ResponseWriter, *http.Request) bool
		gets int
		err  error
	}{
		"good": {nil, 0, nil},
		"405":  {status(405, ""), 1, nil},
		"403":  {status(403, ""), 1, nil},
		"500":  {status(500, ""), 1, nil},
		"400":  {status(400, ""), 1, nil},
		"404":  {status(404, ""), 0, registry.ErrNotFound},
		"without a digest": {func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
			return true
		}, 1, nil},
		"without a length": {func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			w.Header().Set("Docker-Content-Digest", d.String())
			_ = http.NewResponseController(w).Flush()
			return true
		}, 1, nil},
		"without a type": {func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
			w.Header().Set("Docker-Content-Digest", d.String())
			return true
		}, 1, nil},
		"a login page": {func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", "text/html")
			w.Header().Set("Content-Length", "5")
			return true
		}, 1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.putManifest("app", "1", ocispec.MediaTypeImageManifest, raw)
			if tc.head != nil {
				f.when("HEAD", "", 0, tc.head)
			}
			got, err := client(registry.Options{}).Resolve(t.Context(), mustParse(t, f.host+"/app:1"))
			require.ErrorIs(t, err, tc.err)
			if tc.err == nil {
				assert.Equal(t, want, got)
			}
			assert.Equal(t, tc.gets, f.count("GET", "/manifests/"))
		})
	}
	t.Run("another digest than asked for", func(t *testing.T) {
		f := newFake(t)
		f.when("HEAD", "", 0, func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			w.Header().Set("Content-Length", "100")
			w.Header().Set("Docker-Content-Digest", digest.FromString("other").String())
			return true
		})
		_, err := client(registry.Options{}).Resolve(t.Context(), mustParse(t, f.host+"/app@"+d.String()))
		require.ErrorIs(t, err, registry.ErrCorrupt)
	})
}

func TestPushManifest(t *testing.T) {
	raw := imageManifest("x")
	d := digest.FromBytes(raw)
	push := func(f *fake, r ref.Ref) (ocispec.Descriptor, error) {
		return client(registry.Options{}).PushManifest(t.Context(), r, ocispec.MediaTypeImageManifest, raw)
	}
	t.Run("by tag", func(t *testing.T) {
		f := newFake(t)
		got, err := push(f, mustParse(t, f.host+"/app:1"))
		require.NoError(t, err)
		assert.Equal(t, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d, Size: int64(len(raw))}, got)
		assert.Equal(t, "/v2/app/manifests/1", f.requests()[0].path)
		assert.Len(t, f.requests(), 1)
	})
	t.Run("by digest", func(t *testing.T) {
		f := newFake(t)
		_, err := push(f, mustParse(t, f.host+"/app@"+d.String()))
		require.NoError(t, err)
		assert.Equal(t, "/v2/app/manifests/"+d.String(), f.requests()[0].path)
		_, err = push(f, ref.Ref{Kind: ref.Registry, Host: f.host, Repo: "app"})
		require.NoError(t, err)
		assert.Equal(t, "/v2/app/manifests/"+d.String(), f.requests()[1].path)
	})
	t.Run("by tag and digest", func(t *testing.T) {
		f := newFake(t)
		_, err := push(f, mustParse(t, f.host+"/app:1@"+d.String()))
		require.NoError(t, err)
		assert.Equal(t, "/v2/app/manifests/1", f.requests()[0].path)
	})
	t.Run("by another digest", func(t *testing.T) {
		f := newFake(t)
		_, err := push(f, mustParse(t, f.host+"/app@"+digest.FromString("other").String()))
		require.ErrorIs(t, err, registry.ErrInvalid)
		assert.Empty(t, f.requests())
	})
	t.Run("C23 it became another", func(t *testing.T) {
		f := newFake(t)
		f.when("PUT", "", 0, status(201, "", "Docker-Content-Digest", digest.FromString("other").String()))
		_, err := push(f, mustParse(t, f.host+"/app:1"))
		require.ErrorIs(t, err, registry.ErrCorrupt)
		assert.Contains(t, err.Error(), d.String())
	})
	t.Run("it does not say, and is asked", func(t *testing.T) {
		f := newFake(t)
		f.putManifest("app", "1", ocispec.MediaTypeImageManifest, raw)
		f.when("PUT", "", 0, status(201, ""))
		_, err := push(f, mustParse(t, f.host+"/app:1"))
		require.NoError(t, err)
		f.putManifest("app", "1", ocispec.MediaTypeImageManifest, imageManifest("y"))
		_, err = push(f, mustParse(t, f.host+"/app:1"))
		require.ErrorIs(t, err, registry.ErrCorrupt)
	})
	t.Run("C20 a blob is missing", func(t *testing.T) {
		f := newFake(t)
		f.when("PUT", "", 0, status(400, "MANIFEST_BLOB_UNKNOWN"))
		_, err := push(f, mustParse(t, f.host+"/app:1"))
		require.ErrorIs(t, err, registry.ErrBlobUnknown)
		assert.NotErrorIs(t, err, registry.ErrNotFound)
	})
	t.Run("denied", func(t *testing.T) {
		f := newFake(t)
		f.when("PUT", "", 0, status(403, "DENIED"))
		_, err := push(f, mustParse(t, f.host+"/app:1"))
		require.ErrorIs(t, err, registry.ErrDenied)
		assert.Contains(t, err.Error(), "push to app")
		assert.Contains(t, err.Error(), "config.json")
	})
	t.Run("a redirect is followed with the body", func(t *testing.T) {
		f := newFake(t)
		f.when("PUT", "/v2/app/", 0, status(307, "", "Location", "/v2/moved/manifests/1"))
		_, err := push(f, mustParse(t, f.host+"/app:1"))
		require.NoError(t, err)
		moved, _ := f.Manifest("moved", "1")
		assert.Equal(t, raw, moved)
	})
}
