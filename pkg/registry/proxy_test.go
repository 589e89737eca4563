package registry_test

import (
	"bytes"
	"context"
	"io"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testregistry"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// TestDebianRegistry_C13_C18 moves a blob to and from a registry over connections
// that are cut again and again.
func TestDebianRegistry_C13_C18_cutConnections(t *testing.T) {
	target := testregistry.Debian(t)
	for name, limits := range map[string][]int64{
		"once":           {1 << 20},
		"often":          {2 << 20, 3 << 20, 2 << 20, 3 << 20}, // distribution 2.8 drops an upload whose piece is cut
		"at the request": {100, 1 << 20, 300, 600, 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			desc, b := randomBlob(t, 8<<20)
			repo := "/" + strings.ReplaceAll(name, " ", "-")
			push := &testregistry.Proxy{}
			push.CutAt(limits...)
			c := client(registry.Options{ChunkSize: 1 << 20})
			_, err := c.PushBlob(t.Context(), mustParse(t, push.Start(t, target)+repo), desc, opener(b), nil)
			require.NoError(t, err)
			assert.NotZero(t, push.Cuts())

			get := &testregistry.Proxy{}
			get.CutAt(limits...)
			got, err := pull(t, client(registry.Options{}), get.Start(t, target)+repo, desc)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(b, got))
			assert.NotZero(t, get.Cuts())
		})
	}
}

// TestHTTP2 runs the whole protocol over HTTP/2, with several requests at once.
func TestHTTP2(t *testing.T) {
	f := unstarted()
	srv := httptest.NewUnstartedServer(f)
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = quiet
	srv.StartTLS()
	t.Cleanup(srv.Close)
	f.host = strings.TrimPrefix(srv.URL, "https://")
	f.when("GET", "/blobs/", 3, reset)
	f.when("PUT", "/blobs/", 2, reset)
	c := client(registry.Options{Insecure: everywhere})
	r := mustParse(t, f.host+"/app:1")
	var wg sync.WaitGroup
	for range 8 {
		desc, b := randomBlob(t, 300<<10)
		wg.Go(func() {
			_, err := c.PushBlob(t.Context(), r, desc, opener(b), nil)
			assert.NoError(t, err)
			rc, err := c.Blob(t.Context(), r, desc)
			if assert.NoError(t, err) {
				got, err := io.ReadAll(rc)
				assert.NoError(t, err)
				assert.True(t, bytes.Equal(b, got))
				assert.NoError(t, rc.Close())
			}
		})
	}
	wg.Wait()
	_, err := c.PushManifest(t.Context(), r, ocispec.MediaTypeImageManifest, imageManifest("x"))
	require.NoError(t, err)
	for _, s := range f.requests() {
		assert.NotEmpty(t, s.method)
	}
	c.Close()
}

func ExampleClient_PushBlob() {
	ctx := context.Background()
	to, err := ref.Parse("registry.example/team/app:1.0")
	if err != nil {
		return
	}
	layer := []byte("a layer")
	desc := ocispec.Descriptor{Digest: digest.FromBytes(layer), Size: int64(len(layer))}
	c := registry.New(registry.Options{})
	open := func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil }
	if _, err := c.PushBlob(ctx, to, desc, open, nil); err != nil {
		return // errors.Is(err, registry.ErrDenied): credentials
	}
}
