package transfer

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/internal/testregistry"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/serve"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// memory is a source in memory.
type memory struct {
	content testimage.Content
	at      ref.Ref
}

var _ Source = memory{}

func (m memory) Ref() ref.Ref {
	if m.at.Kind == "" {
		return ref.Ref{Kind: ref.OCILayout, Path: "memory"}
	}
	return m.at
}

func (m memory) Manifest(_ context.Context, desc ocispec.Descriptor) ([]byte, error) {
	raw, ok := m.content.Blobs[desc.Digest]
	if !ok {
		return nil, fmt.Errorf("%w: %s", source.ErrNotFound, desc.Digest)
	}
	return raw, nil
}

func (m memory) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	raw, err := m.Manifest(ctx, desc)
	return io.NopCloser(bytes.NewReader(raw)), err
}

// counter passes requests on, and counts, holds or refuses them.
type counter struct {
	http.Handler

	counting sync.Mutex
	lines    []string // "GET manifests"
	hook     func(w http.ResponseWriter, r *http.Request) bool
	now      int // requests that are under way
	conns    *testregistry.Connections
	most     int // that ever were at once
	crowd    int // requests wait until so many of them are under way
	complete chan struct{}
}

func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	line := r.Method
	for _, part := range []string{"manifests", "blobs/uploads", "blobs", "tags", "referrers"} {
		if strings.Contains(r.URL.Path, "/"+part+"/") {
			line += " " + part
			break
		}
	}
	c.counting.Lock()
	c.lines = append(c.lines, line)
	hook, complete := c.hook, c.complete
	c.now++
	c.most = max(c.most, c.now)
	if complete != nil && c.now >= c.crowd {
		close(complete)
		c.complete = nil
	}
	c.counting.Unlock()
	defer func() {
		c.counting.Lock()
		defer c.counting.Unlock()
		c.now--
	}()
	if complete != nil {
		select {
		case <-complete:
		case <-time.After(time.Minute): // they never come: atOnce tells
		}
	}
	if hook == nil || !hook(w, r) {
		c.Handler.ServeHTTP(w, r)
	}
}

// reset forgets what was counted and returns it.
func (c *counter) reset() []string {
	c.counting.Lock()
	defer c.counting.Unlock()
	lines := c.lines
	c.lines, c.most = nil, c.now
	return lines
}

// server serves c, whose connections are counted.
func (c *counter) server() *httptest.Server {
	srv := httptest.NewUnstartedServer(c)
	c.conns = testregistry.CountConnections(srv.Config)
	srv.Start()
	return srv
}

func (c *counter) setHook(h func(w http.ResponseWriter, r *http.Request) bool) {
	c.counting.Lock()
	defer c.counting.Unlock()
	c.hook = h
}

// gather holds all requests until n of them are under way at once.
func (c *counter) gather(n int) {
	c.counting.Lock()
	defer c.counting.Unlock()
	c.crowd, c.complete = n, make(chan struct{})
}

// atOnce is the most requests that were under way at one time since reset.
func (c *counter) atOnce() int {
	c.counting.Lock()
	defer c.counting.Unlock()
	return c.most
}

// countOf is how many lines are these.
func countOf(lines []string, what string) (n int) {
	for _, l := range lines {
		if l == what {
			n++
		}
	}
	return n
}

// serveRegistry is our own registry on a free port.
func serveRegistry(t testing.TB) (string, *counter) {
	t.Helper()
	h, err := serve.Handler(t.Context(), serve.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	c := &counter{Handler: h}
	srv := c.server()
	t.Cleanup(func() {
		srv.Close()
		require.NoError(t, h.Close())
	})
	return strings.TrimPrefix(srv.URL, "http://"), c
}

// debianRegistry is Debian's docker-registry (distribution 2.8) behind a counter.
func debianRegistry(t testing.TB) (string, *counter) {
	t.Helper()
	c := &counter{Handler: testregistry.DebianHandler(t)}
	srv := c.server()
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://"), c
}

// registries are those that tests run against.
var registries = map[string]func(testing.TB) (string, *counter){
	"serve":           serveRegistry,
	"docker-registry": debianRegistry,
}

func at(t testing.TB, format string, a ...any) ref.Ref {
	t.Helper()
	r, err := ref.Parse(fmt.Sprintf(format, a...))
	require.NoError(t, err)
	return r
}

func newEnv(t testing.TB) Env {
	t.Helper()
	c := registry.New(registry.Options{})
	t.Cleanup(c.Close)
	return Env{Registry: c, Dir: t.TempDir(), Now: time.Now}
}

func withStore(t testing.TB, env Env) Env {
	t.Helper()
	st, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	env.Store = st
	return env
}

// image is a small image whose bytes differ by platform and text.
func image(platform, text string) testimage.Content {
	return testimage.Image(platform, testimage.Layer(testimage.File("text", text), testimage.File("platform", platform)).Gzip())
}

// put brings content somewhere.
func put(t testing.TB, env Env, c testimage.Content, names ...ref.Ref) {
	t.Helper()
	desc := c.Desc
	desc.Platform = nil
	_, err := Move(t.Context(), env, []Root{{Desc: desc, From: memory{content: c}, Names: names}}, Options{})
	require.NoError(t, err)
}

// entryOf is the entry of an image in an index.
func entryOf(t testing.TB, c testimage.Content) index.Entry {
	t.Helper()
	e, err := index.NewEntry(c.Desc)
	require.NoError(t, err)
	return e
}

// requireWhole reads everything that a reference names, to its last byte, and returns what it is.
func requireWhole(t testing.TB, env Env, r ref.Ref) ocispec.Descriptor {
	t.Helper()
	img, err := env.opener().Open(t.Context(), r)
	require.NoError(t, err)
	defer img.Close()
	var walk func(desc ocispec.Descriptor)
	seen := map[digest.Digest]bool{}
	walk = func(desc ocispec.Descriptor) {
		if seen[desc.Digest] {
			return
		}
		seen[desc.Digest] = true
		switch {
		case index.IsIndex(desc.MediaType):
			idx, err := source.ReadIndex(t.Context(), img, desc)
			require.NoError(t, err)
			for _, m := range idx.Manifests {
				walk(m)
			}
		case index.IsManifest(desc.MediaType):
			m, _, err := source.ReadManifest(t.Context(), img, desc)
			require.NoError(t, err)
			walk(m.Config)
			for _, l := range m.Layers {
				walk(l)
			}
		default:
			rc, err := img.Blob(t.Context(), desc)
			require.NoError(t, err)
			n, err := io.Copy(io.Discard, rc)
			require.NoError(t, err)
			require.NoError(t, rc.Close())
			require.Equal(t, desc.Size, n)
		}
	}
	walk(img.Root())
	return img.Root()
}

// verifying is a source that verifies as the real ones do.
type verifying struct{ memory }

func (v verifying) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	raw, err := v.Manifest(ctx, desc)
	if err != nil {
		return nil, err
	}
	if digest.FromBytes(raw) != desc.Digest {
		return io.NopCloser(io.MultiReader(bytes.NewReader(raw[:len(raw)/2]), broken{})), nil
	}
	return io.NopCloser(bytes.NewReader(raw)), nil
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, source.ErrCorrupt }

// sumFile is the digest of a file.
func sumFile(t testing.TB, path string) digest.Digest {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	d, err := digest.FromReader(f)
	require.NoError(t, err)
	return d
}

func parsed(t testing.TB, s string) platform.Platform {
	t.Helper()
	p, err := platform.Parse(s)
	require.NoError(t, err)
	return p
}
