package registry_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

func TestPushBlob_C08_locations(t *testing.T) {
	desc, b := randomBlob(t, 1000)
	t.Run("another origin gets no credentials", func(t *testing.T) {
		f, storage := newFake(t), newFake(t)
		storage.Keep("x", nil)
		f.when("", "/v2/", 0, func(w http.ResponseWriter, r *http.Request) bool {
			if _, _, ok := r.BasicAuth(); !ok {
				return status(401, "", "WWW-Authenticate", "Basic")(w, r)
			}
			return r.Method == http.MethodPost && status(202, "", "Location", "http://"+storage.host+"/v2/app/blobs/uploads/x")(w, r)
		})
		_, err := client(registry.Options{Keychain: someone}).PushBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc, opener(b), nil)
		require.NoError(t, err)
		assert.True(t, storage.holds("app", b))
		for _, s := range storage.requests() {
			assert.Empty(t, s.auth)
		}
	})
	t.Run("not from https to http", func(t *testing.T) {
		f, plain := newTLSFake(t), newFake(t)
		f.when("POST", "", 0, status(202, "", "Location", "http://"+plain.host+"/v2/app/blobs/uploads/x"))
		_, err := client(registry.Options{Insecure: everywhere}).PushBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc, opener(b), nil)
		require.Error(t, err)
		assert.Contains(t, err.Error(), "from https to http")
		assert.Empty(t, plain.requests())
	})
	t.Run("http to itself becomes https", func(t *testing.T) { // a registry behind a proxy that does not know it
		f := newTLSFake(t)
		f.when("POST", "/uploads/", 0, func(w http.ResponseWriter, r *http.Request) bool {
			f.Keep("x", nil)
			return status(202, "", "Location", "http://"+f.host+"/v2/app/blobs/uploads/x")(w, r)
		})
		_, err := client(registry.Options{Insecure: everywhere}).PushBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc, opener(b), nil)
		require.NoError(t, err)
		assert.True(t, f.holds("app", b))
	})
	t.Run("a redirect of the bytes is refused", func(t *testing.T) {
		f, other := newFake(t), newFake(t)
		f.when("PUT", "/uploads/", 0, status(307, "", "Location", "http://"+other.host+"/x"))
		_, err := client(registry.Options{}).PushBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc, opener(b), nil)
		require.Error(t, err)
		assert.Empty(t, other.requests())
	})
}

func TestPushBlob_C22_mounts(t *testing.T) {
	desc, b := randomBlob(t, 1000)
	for _, code := range []int{202, 400, 401, 403, 404, 405, 500} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			f := newFake(t)
			f.put("src", b)
			f.when("POST", "", 0, func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Query().Get("mount") == "" {
					return false
				}
				if code == 202 {
					r.URL.RawQuery = ""
					return false
				}
				return status(code, "NO")(w, r)
			})
			src := mustParse(t, f.host+"/src:1")
			up, err := client(registry.Options{}).PushBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc, opener(b), []ref.Ref{src})
			require.NoError(t, err)
			assert.True(t, up)
			assert.True(t, f.holds("app", b))
			if code == 202 {
				assert.Equal(t, 1, f.count("POST", ""), "the session that a refused mount opens is used")
			}
		})
	}
	t.Run("candidates", func(t *testing.T) {
		f := newFake(t)
		f.put("four", b)
		f.put("two", b)
		r := mustParse(t, f.host+"/app:1")
		from := []ref.Ref{r, mustParse(t, "other.example/two:1"), mustParse(t, "oci:dir"), mustParse(t, f.host+"/one:1"), mustParse(t, f.host+"/one:2"), mustParse(t, f.host+"/two:1"), mustParse(t, f.host+"/three:1"), mustParse(t, f.host+"/four:1")}
		up, err := client(registry.Options{}).PushBlob(t.Context(), r, desc, opener(b), from)
		require.NoError(t, err)
		assert.False(t, up)
		assert.Equal(t, 2, f.count("POST", ""), "one, then two")
		assert.Equal(t, 1, f.count("DELETE", "/uploads/"), "the session of the first is given back")
	})
}

func TestPushBlob_C21_HEAD(t *testing.T) {
	desc, b := randomBlob(t, 1000)
	for _, code := range []int{403, 405, 500, 501} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			f := newFake(t)
			f.when("HEAD", "", 0, status(code, ""))
			c := client(registry.Options{})
			r := mustParse(t, f.host+"/app:1")
			up, err := c.PushBlob(t.Context(), r, desc, opener(b), nil)
			require.NoError(t, err)
			assert.True(t, up)
			up, err = c.PushBlob(t.Context(), r, desc, opener(b), nil)
			require.NoError(t, err)
			assert.False(t, up, "found by GET")
			for _, s := range f.requests() {
				if s.method == "GET" {
					assert.Equal(t, "bytes=0-0", s.rangeHeader, "which does not fetch it")
				}
			}
		})
	}
	t.Run("whoever may not read may still write", func(t *testing.T) {
		f := newFake(t)
		f.when("HEAD", "", 0, status(403, ""))
		f.when("GET", "", 0, status(403, ""))
		up, err := client(registry.Options{}).PushBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc, opener(b), nil)
		require.NoError(t, err)
		assert.True(t, up)
	})
}

func TestPushBlob_twiceAtOnce(t *testing.T) {
	f := newFake(t)
	c := client(registry.Options{})
	desc, b := randomBlob(t, 200<<10)
	r := mustParse(t, f.host+"/app:1")
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			_, err := c.PushBlob(t.Context(), r, desc, opener(b), nil)
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	assert.Equal(t, 1, f.count("PUT", "/uploads/"))
}

func TestInvalid_C31_B15(t *testing.T) {
	f := newFake(t)
	c := client(registry.Options{})
	good := mustParse(t, f.host+"/app:1")
	for name, r := range map[string]ref.Ref{
		"a layout":    mustParse(t, "oci:dir"),
		"traversal":   {Kind: ref.Registry, Host: f.host, Repo: "../../x", Tag: "1"},
		"an escape":   {Kind: ref.Registry, Host: f.host, Repo: "a%2fb", Tag: "1"},
		"a query":     {Kind: ref.Registry, Host: f.host, Repo: "a?x=y", Tag: "1"},
		"bad digest":  {Kind: ref.Registry, Host: f.host, Repo: "a", Digest: "sha256:../../x"},
		"nothing":     {},
		"bad tag":     {Kind: ref.Registry, Host: f.host, Repo: "a", Tag: "../x"},
		"no tag":      {Kind: ref.Registry, Host: f.host, Repo: "a"},
		"host a path": {Kind: ref.Registry, Host: f.host + "/x", Repo: "a", Tag: "1"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.Resolve(t.Context(), r)
			require.ErrorIs(t, err, registry.ErrInvalid)
			_, _, err = c.Manifest(t.Context(), r)
			require.ErrorIs(t, err, registry.ErrInvalid)
		})
	}
	for _, d := range []digest.Digest{"", "sha256:x", "sha256:../../x", "md5:d41d8cd98f00b204e9800998ecf8427e"} {
		_, err := c.Blob(t.Context(), good, ocispec.Descriptor{Digest: d})
		require.ErrorIs(t, err, registry.ErrInvalid, d)
		_, err = c.HasBlob(t.Context(), good, d)
		require.ErrorIs(t, err, registry.ErrInvalid, d)
		_, err = c.PushBlob(t.Context(), good, ocispec.Descriptor{Digest: d}, opener(nil), nil)
		require.ErrorIs(t, err, registry.ErrInvalid, d)
	}
	_, err := c.PushBlob(t.Context(), good, ocispec.Descriptor{Digest: digest.FromString("x"), Size: -1}, opener(nil), nil)
	require.ErrorIs(t, err, registry.ErrInvalid)
	assert.Empty(t, f.requests())
}

func TestProgress(t *testing.T) {
	f := newFake(t)
	evs := &events{}
	c := client(registry.Options{Events: evs.sink})
	desc, b := randomBlob(t, 10<<20)
	r := mustParse(t, f.host+"/app:1")
	_, err := c.PushBlob(t.Context(), r, desc, opener(b), nil)
	require.NoError(t, err)
	pushed := evs.of(event.Progress)
	_, err = pull(t, c, f.host+"/app:1", desc)
	require.NoError(t, err)
	pulled := evs.of(event.Progress)[len(pushed):]
	for verb, list := range map[string][]event.Event{"pushing": pushed, "pulling": pulled} {
		require.NotEmpty(t, list)
		assert.Equal(t, verb+" "+desc.Digest.String()[:len("sha256:")+12], list[0].Item)
		assert.Zero(t, list[0].Current)
		assert.Equal(t, desc.Size, list[len(list)-1].Current)
		assert.Equal(t, desc.Size, list[len(list)-1].Total)
		assert.Less(t, len(list), 60, "a display can follow")
		assert.Greater(t, len(list), 3)
		for i := 1; i < len(list); i++ {
			assert.Greater(t, list[i].Current, list[i-1].Current)
		}
	}
}
