package registry_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

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
		var asked atomic.Int64
		f.when("", "", 0, func(w http.ResponseWriter, r *http.Request) bool {
			many := `["` + strings.Repeat("x", 100) + `"` + strings.Repeat(`,"`+strings.Repeat("y", 100)+`"`, 9999) + "]"
			return page(fmt.Sprintf(`</v2/app/tags/list?last=%d>; rel="next"`, asked.Add(1)), many)(w, r)
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
		f.putManifest("app", "b", ocispec.MediaTypeImageManifest, imageManifest("x"))
		f.putManifest("app", "a", ocispec.MediaTypeImageManifest, imageManifest("x"))
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
