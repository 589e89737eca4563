package registry_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/event"
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
		assert.Equal(t, raw, f.manifests["moved:1"])
	})
}

func TestTags_C25(t *testing.T) {
	page := func(link, tags string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			if link != "" {
				w.Header().Set("Link", link)
			}
			fmt.Fprintf(w, `{"name":"app","tags":%s}`, tags)
			return true
		}
	}
	list := func(t *testing.T, f *fake) ([]string, error) {
		return client(registry.Options{Keychain: someone}).Tags(t.Context(), mustParse(t, f.host+"/app"))
	}
	t.Run("pages", func(t *testing.T) {
		f := newFake(t)
		f.when("", "", 1, page(`</v2/app/tags/list?last=b&n=2>; rel="next"`, `["c","b"]`))
		f.when("", "", 2, page(`<list?last=d>; rel=next`, `["d","b"]`))
		f.when("", "", 3, page("<http://"+f.host+`/v2/app/tags/list?last=e>;rel="next", </x>; rel="prev"`, `null`))
		f.when("", "", 4, page(`</v2/app/tags/list>; rel="first"`, `["a"]`))
		tags, err := list(t, f)
		require.NoError(t, err)
		assert.Equal(t, []string{"a", "b", "c", "d"}, tags)
		assert.Len(t, f.requests(), 4)
		assert.Equal(t, "last=b&n=2", f.requests()[1].query)
	})
	t.Run("a loop", func(t *testing.T) {
		f := newFake(t)
		f.when("", "", 0, page(`</v2/app/tags/list?last=b>; rel="next"`, `["b"]`))
		_, err := list(t, f)
		require.Error(t, err)
		assert.Contains(t, err.Error(), "do not end")
		assert.LessOrEqual(t, len(f.requests()), 3)
	})
	t.Run("without end", func(t *testing.T) {
		f := newFake(t)
		n := 0
		f.when("", "", 0, func(w http.ResponseWriter, r *http.Request) bool {
			n++
			many := `["` + strings.Repeat("x", 100) + `"` + strings.Repeat(`,"`+strings.Repeat("y", 100)+`"`, 9999) + "]"
			return page(fmt.Sprintf(`</v2/app/tags/list?last=%d>; rel="next"`, n), many)(w, r)
		})
		c := client(registry.Options{})
		c.SetMaxTags(50_000)
		_, err := c.Tags(t.Context(), mustParse(t, f.host+"/app"))
		require.Error(t, err)
		assert.Len(t, f.requests(), 6)
	})
	t.Run("another host", func(t *testing.T) {
		f, evil := newFake(t), newFake(t)
		f.when("", "", 0, page("<http://"+evil.host+`/v2/app/tags/list>; rel="next"`, `["b"]`))
		_, err := list(t, f)
		require.Error(t, err)
		assert.Contains(t, err.Error(), evil.host)
		assert.Empty(t, evil.requests())
	})
	t.Run("a smaller page", func(t *testing.T) {
		f := newFake(t)
		f.when("", "", 0, func(w http.ResponseWriter, r *http.Request) bool {
			return r.URL.RawQuery != "" && status(400, "PAGINATION_NUMBER_INVALID")(w, r)
		})
		tags, err := list(t, f)
		require.NoError(t, err)
		assert.Equal(t, []string{"a", "b"}, tags)
	})
	for name, body := range map[string]string{"html": "<html>", "an escape": `["../../x"]`, "a control": `["a\u001b[31m"]`} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.when("", "", 0, page("", body))
			_, err := list(t, f)
			require.ErrorIs(t, err, registry.ErrCorrupt)
			assert.NotContains(t, err.Error(), "\x1b")
		})
	}
}

func TestErrors_C27_B17(t *testing.T) {
	pullError := func(t *testing.T, do func(http.ResponseWriter, *http.Request) bool) error {
		f := newFake(t)
		f.when("", "", 0, do)
		_, _, err := client(registry.Options{}).Manifest(t.Context(), mustParse(t, f.host+"/app:1"))
		require.Error(t, err)
		assert.Contains(t, err.Error(), f.host+"/app:1")
		return err
	}
	say := func(code int, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(code)
			_, _ = w.Write([]byte(body))
			return true
		}
	}
	err := pullError(t, say(403, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied","detail":{"a":1}},{"code":"OTHER"}]}`))
	require.ErrorIs(t, err, registry.ErrDenied)
	assert.Contains(t, err.Error(), `DENIED: requested access to the resource is denied ({"a":1}); OTHER`)

	err = pullError(t, say(404, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"\u001b[31mred\u001b]52;c;x\u0007 \u202e end"}]}`))
	require.ErrorIs(t, err, registry.ErrNotFound)
	for _, bad := range []string{"\x1b", "\x07", "\u202e"} {
		assert.NotContains(t, err.Error(), bad)
	}
	assert.Contains(t, err.Error(), "red")

	err = pullError(t, func(w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(400)
		for range 1 << 12 { // 64 MiB if somebody reads them
			if _, err := w.Write(bytes.Repeat([]byte("no "), 5<<10)); err != nil {
				return true
			}
		}
		return true
	})
	assert.Less(t, len(err.Error()), 1000)

	err = pullError(t, say(418, `<html><body>teapot</body></html>`))
	assert.NotContains(t, err.Error(), "<")
	assert.Contains(t, err.Error(), "teapot")
	pullError(t, say(400, `{"error":"invalid_scope","error_description":"no such scope"}`))
	pullError(t, say(400, `{"errors":"not a list"}`))
	pullError(t, say(400, "\xff\xfe"))
	pullError(t, say(302, ``))

	var e *registry.Error
	require.ErrorAs(t, pullError(t, status(404, "NAME_UNKNOWN")), &e)
	assert.Equal(t, []string{"NAME_UNKNOWN"}, e.Codes)
	assert.Equal(t, 404, e.Status)
}

func TestWarnings_onceEach(t *testing.T) {
	f := newFake(t)
	f.putManifest("app", "1", ocispec.MediaTypeImageManifest, imageManifest("x"))
	f.when("", "", 0, func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Add("Warning", `299 - "this repository goes away \"soon\""`)
		w.Header().Add("Warning", `110 - "stale"`)
		return false
	})
	evs := &events{}
	c := client(registry.Options{Events: evs.sink})
	for range 3 {
		_, err := c.Resolve(t.Context(), mustParse(t, f.host+"/app:1"))
		require.NoError(t, err)
	}
	require.Len(t, evs.of(event.Warning), 1)
	assert.Contains(t, evs.of(event.Warning)[0].Text, `goes away "soon"`)
}
