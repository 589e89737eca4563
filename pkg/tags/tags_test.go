package tags_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/serve"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/tags"
)

// world is a registry on a store. refuse says which requests it answers with 405.
type world struct {
	t      *testing.T
	store  *store.Store
	host   string
	client *registry.Client
	refuse func(*http.Request) bool
}

func newWorld(t *testing.T) *world {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "store"), store.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = st.Close() })
	handler, err := serve.Handler(t.Context(), serve.Options{Store: st})
	require.NoError(t, err)
	w := &world{t: t, store: st, refuse: func(*http.Request) bool { return false }}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if w.refuse(r) {
			http.Error(rw, `{"errors":[{"code":"UNSUPPORTED"}]}`, http.StatusMethodNotAllowed)
			return
		}
		handler.ServeHTTP(rw, r)
	}))
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	require.NoError(t, err)
	w.host = u.Host
	w.client = registry.New(registry.Options{Keychain: registry.DefaultKeychain(func(string) string { return "" })})
	t.Cleanup(w.client.Close)
	return w
}

func (w *world) push(name string, c testimage.Content) ref.Ref {
	w.t.Helper()
	r, err := ref.Parse(w.host + "/" + name)
	require.NoError(w.t, err)
	testimage.WriteStore(w.t, w.store, name, c)
	return r
}

func (w *world) tags(r ref.Ref) []string {
	w.t.Helper()
	list, err := w.client.Tags(w.t.Context(), r)
	require.NoError(w.t, err)
	return list
}

func TestReaching(t *testing.T) {
	w := newWorld(t)
	a, b := testimage.Image("linux/amd64"), testimage.Image("linux/arm64")
	inner := testimage.Index(a)
	r := w.push("app:nested", testimage.Index(inner, b))
	w.push("app:inner", inner)
	w.push("app:b", b)
	w.push("app:other", testimage.Image("linux/s390x"))
	got, err := tags.Reaching(t.Context(), w.client, r, a.Desc.Digest)
	require.NoError(t, err)
	assert.Equal(t, []string{"inner", "nested"}, got)
	got, err = tags.Reaching(t.Context(), w.client, r, b.Desc.Digest)
	require.NoError(t, err)
	assert.Equal(t, []string{"b", "nested"}, got)

	require.ErrorIs(t, tags.Delete(t.Context(), w.client, r.WithDigest(a.Desc.Digest), false), tags.ErrInUse)
	require.NoError(t, tags.Delete(t.Context(), w.client, r.WithDigest(a.Desc.Digest), true))
	require.ErrorIs(t, tags.Delete(t.Context(), w.client, r.WithDigest(a.Desc.Digest), true), registry.ErrNotFound)
}

func TestDeleteTag(t *testing.T) {
	byTag := func(r *http.Request) bool {
		return r.Method == http.MethodDelete && !strings.Contains(r.URL.Path, "sha256:")
	}
	for name, tc := range map[string]struct {
		refuse  func(*http.Request) bool
		wantErr error
	}{
		"a registry that can":                    {refuse: func(*http.Request) bool { return false }},
		"one that deletes manifests only":        {refuse: byTag},
		"one that does not delete is left alone": {refuse: func(r *http.Request) bool { return r.Method == http.MethodDelete }, wantErr: tags.ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c := testimage.Image("linux/amd64")
			r := w.push("app:1", c)
			w.push("app:2", c)
			w.refuse = tc.refuse
			require.ErrorIs(t, tags.Delete(t.Context(), w.client, r, false), tc.wantErr)
			want := []string{"2"}
			if tc.wantErr != nil {
				want = []string{"1", "2"}
			}
			assert.Equal(t, want, w.tags(r))
			for _, tag := range want {
				got, err := w.client.Resolve(t.Context(), r.WithTag(tag))
				require.NoError(t, err)
				assert.Equal(t, c.Desc.Digest, got.Digest, "the manifest and the other tags stay")
			}
		})
	}
	w := newWorld(t)
	r := w.push("app:1", testimage.Image("linux/amd64"))
	require.ErrorIs(t, tags.Delete(t.Context(), w.client, r.WithTag("none"), false), registry.ErrNotFound)
	require.ErrorIs(t, tags.Delete(t.Context(), w.client, ref.Ref{Kind: ref.Store, Name: "x"}, false), registry.ErrInvalid)
}
