package registry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/registry"
)

func TestPushBlob_oneRequest(t *testing.T) {
	f := newFake(t)
	c := client(registry.Options{})
	desc, b := randomBlob(t, 100<<10)
	up, err := c.PushBlob(t.Context(), mustParse(t, f.host+"/team/app:1"), desc, opener(b), nil)
	require.NoError(t, err)
	assert.True(t, up)
	assert.True(t, f.holds("team/app", b))
	var methods []string
	for _, s := range f.requests() {
		methods = append(methods, s.method)
	}
	assert.Equal(t, []string{"HEAD", "POST", "PUT"}, methods)
	last := f.requests()[2]
	assert.Contains(t, last.query, "state=a%2Fb", "the session's own query is kept as it is")
	assert.Contains(t, last.query, "digest=sha256")
}

// shrink cuts the connection after n bytes of the body were stored.
func (f *fake) storeAndCut(n int64) func(http.ResponseWriter, *http.Request) bool {
	return func(_ http.ResponseWriter, r *http.Request) bool {
		id := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		part, _ := io.ReadAll(io.LimitReader(r.Body, n))
		f.Keep(id, part)
		panic(http.ErrAbortHandler)
	}
}

func TestPushBlob_C18_C19_brokenUploads(t *testing.T) {
	const chunk = 64 << 10
	desc, b := randomBlob(t, 300<<10)
	for name, tc := range map[string]struct {
		rules func(f *fake)
		posts int // sessions begun
	}{
		"C18 the one request is cut": {func(f *fake) { f.when("PUT", "/uploads/", 1, f.storeAndCut(100_000)) }, 1},
		"C18 it is cut at once":      {func(f *fake) { f.when("PUT", "/uploads/", 1, reset) }, 1},
		"C18 pieces are cut": {func(f *fake) {
			f.when("PUT", "/uploads/", 1, reset)
			f.when("PATCH", "/uploads/", 2, f.storeAndCut(1000))
			f.when("PATCH", "/uploads/", 4, reset)
		}, 1},
		"C18 the answer to a piece is lost": {func(f *fake) {
			f.when("PUT", "/uploads/", 1, reset)
			f.when("PATCH", "/uploads/", 2, f.storeAndCut(chunk))
		}, 1},
		"C18 too large for a proxy": {func(f *fake) {
			f.when("PUT", "/uploads/", 0, func(w http.ResponseWriter, r *http.Request) bool {
				return r.ContentLength > 100<<10 && status(413, "")(w, r)
			})
		}, 1},
		"C19 the session is lost": {func(f *fake) { f.when("PUT", "/uploads/", 1, status(404, "BLOB_UPLOAD_UNKNOWN")) }, 2},
		"C19 a restart loses the session of pieces": {func(f *fake) {
			f.when("PUT", "/uploads/", 1, reset)
			f.when("PATCH", "/uploads/", 3, func(w http.ResponseWriter, r *http.Request) bool {
				f.ForgetSessions()
				return false
			})
		}, 2},
		"C19 the status is lost": {func(f *fake) {
			f.when("PUT", "/uploads/", 1, reset)
			f.when("GET", "/uploads/", 1, status(404, "BLOB_UPLOAD_UNKNOWN"))
		}, 2},
		"C18 a status that makes no sense": {func(f *fake) {
			f.when("PUT", "/uploads/", 1, reset)
			f.when("GET", "/uploads/", 1, status(204, "", "Range", "0-99999999999"))
		}, 2},
		"C18 less was kept than was sent": {func(f *fake) {
			f.when("PUT", "/uploads/", 1, reset)
			f.when("PATCH", "/uploads/", 1, func(w http.ResponseWriter, r *http.Request) bool {
				id := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
				part, _ := io.ReadAll(r.Body)
				f.Keep(id, part[:100])
				w.Header().Set("Location", r.URL.Path)
				w.Header().Set("Range", "0-99")
				w.WriteHeader(202)
				return true
			})
		}, 1},
		"C12 an outage at the end": {func(f *fake) { f.when("PUT", "/uploads/", 1, status(502, "")) }, 1},
		"C18 416 without a reason": {func(f *fake) {
			f.when("PUT", "/uploads/", 1, reset)
			f.when("PATCH", "/uploads/", 2, status(416, ""))
		}, 1},
		"C20 the digest is refused once": {func(f *fake) { f.when("PUT", "/uploads/", 1, status(400, "DIGEST_INVALID")) }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			if tc.rules != nil {
				tc.rules(f)
			}
			c := client(registry.Options{ChunkSize: chunk})
			up, err := c.PushBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc, opener(b), nil)
			require.NoError(t, err)
			assert.True(t, up)
			assert.True(t, f.holds("app", b))
			assert.Equal(t, tc.posts, f.count("POST", "/uploads/"))
		})
	}
}

func TestPushBlob_C18_minimumChunk(t *testing.T) {
	f := newFake(t)
	desc, b := randomBlob(t, 300<<10)
	f.when("POST", "/uploads/", 0, func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("OCI-Chunk-Min-Length", "131072")
		return false
	})
	f.when("PUT", "/uploads/", 1, reset)
	_, err := client(registry.Options{ChunkSize: 1000}).PushBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc, opener(b), nil)
	require.NoError(t, err)
	assert.True(t, f.holds("app", b))
	assert.Equal(t, 3, f.count("PATCH", "/uploads/"))
	for _, s := range f.requests() {
		if s.method == "PATCH" {
			t.Log(s.header.Get("Content-Range"))
		}
	}
}

// TestPushBlob_ends holds registries with which no upload can succeed.
func TestPushBlob_ends(t *testing.T) {
	desc, b := randomBlob(t, 300<<10)
	for name, tc := range map[string]struct {
		rules func(f *fake)
		kind  error
		text  string
	}{
		"sessions are always lost": {func(f *fake) { f.when("PUT", "/uploads/", 0, status(404, "BLOB_UPLOAD_UNKNOWN")) }, registry.ErrNotFound, "BLOB_UPLOAD_UNKNOWN"},
		"pieces, then always lost": {func(f *fake) {
			f.when("PUT", "/uploads/", 0, reset)
			f.when("PATCH", "/uploads/", 0, func(w http.ResponseWriter, r *http.Request) bool {
				_, _ = io.Copy(io.Discard, r.Body)
				return status(404, "BLOB_UPLOAD_UNKNOWN")(w, r)
			})
		}, registry.ErrNotFound, "BLOB_UPLOAD_UNKNOWN"},
		"progress, then lost, again and again": {func(f *fake) {
			f.when("PUT", "/uploads/", 0, f.storeAndCut(100<<10))
			f.when("PATCH", "/uploads/", 0, func(w http.ResponseWriter, r *http.Request) bool {
				f.ForgetSessions()
				return false
			})
		}, nil, ""},
		"denied":             {func(f *fake) { f.when("POST", "/uploads/", 0, status(403, "DENIED")) }, registry.ErrDenied, "DENIED"},
		"unsupported":        {func(f *fake) { f.when("POST", "/uploads/", 0, status(405, "UNSUPPORTED")) }, nil, "UNSUPPORTED"},
		"no Location":        {func(f *fake) { f.when("POST", "/uploads/", 0, status(202, "")) }, nil, "no place"},
		"too large, at 1 MB": {func(f *fake) { f.when("", "/uploads/session", 0, status(413, "")) }, nil, "limits the size"},
		"it stores nothing": {func(f *fake) {
			f.when("PUT", "/uploads/", 0, reset)
			f.when("PATCH", "/uploads/", 0, func(w http.ResponseWriter, r *http.Request) bool {
				_, _ = io.Copy(io.Discard, r.Body)
				w.Header().Set("Location", r.URL.Path)
				w.Header().Set("Range", "0-0")
				w.WriteHeader(202)
				return true
			})
		}, nil, "did not keep"},
		"C23 it became another blob": {func(f *fake) {
			f.when("PUT", "/uploads/", 0, func(w http.ResponseWriter, r *http.Request) bool {
				_, _ = io.Copy(io.Discard, r.Body)
				return status(201, "", "Docker-Content-Digest", digest.FromString("other").String())(w, r)
			})
		}, registry.ErrCorrupt, digest.FromString("other").String()},
		"the digest is refused": {func(f *fake) { f.when("PUT", "/uploads/", 0, status(400, "DIGEST_INVALID")) }, nil, "DIGEST_INVALID"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			tc.rules(f)
			c := client(registry.Options{ChunkSize: 32 << 10})
			_, err := c.PushBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc, opener(b), nil)
			require.Error(t, err)
			if tc.kind != nil {
				require.ErrorIs(t, err, tc.kind)
			}
			assert.Contains(t, err.Error(), tc.text)
			assert.Contains(t, err.Error(), f.host+"/app@"+desc.Digest.String())
			assert.Less(t, f.count("", ""), 150)
		})
	}
}

func TestPushBlob_source(t *testing.T) {
	desc, b := randomBlob(t, 300<<10)
	bad := errors.New("disk on fire")
	for name, tc := range map[string]struct {
		open registry.Open
		kind error
	}{
		"cannot be opened": {func(context.Context) (io.ReadCloser, error) { return nil, bad }, bad},
		"breaks": {func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(b[:1000]), errReader{bad})), nil
		}, bad},
		"breaks after its last byte": {func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(bytes.NewReader(b), errReader{bad})), nil
		}, bad},
		"is short": {opener(b[:1000]), io.ErrUnexpectedEOF},
		"is long":  {opener(append(append([]byte(nil), b...), 1)), nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			opened := 0
			_, err := client(registry.Options{}).PushBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc, func(ctx context.Context) (io.ReadCloser, error) {
				opened++
				return tc.open(ctx)
			}, nil)
			require.Error(t, err)
			if tc.kind != nil {
				require.ErrorIs(t, err, tc.kind)
			}
			assert.Equal(t, 1, opened, "trying again does not mend a source")
		})
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }
