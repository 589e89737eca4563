package serve_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/serve"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// backends are the two places that can be served.
var backends = map[string]func(t *testing.T) serve.Options{
	"directory": func(t *testing.T) serve.Options { return serve.Options{Dir: filepath.Join(t.TempDir(), "registry")} },
	"store": func(t *testing.T) serve.Options {
		s, err := store.Open(t.Context(), t.TempDir(), store.Options{})
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, s.Close()) })
		return serve.Options{Store: s}
	},
}

// each runs a test on both backends.
func each(t *testing.T, test func(t *testing.T, host string)) {
	for name, options := range backends {
		t.Run(name, func(t *testing.T) { test(t, start(t, options(t))) })
	}
}

// start serves until the test ends and returns HOST:PORT.
func start(t *testing.T, o serve.Options) string {
	t.Helper()
	h, err := serve.Handler(t.Context(), o)
	require.NoError(t, err)
	srv := httptest.NewServer(h)
	t.Cleanup(func() {
		srv.Close()
		assert.NoError(t, h.Close())
	})
	return strings.TrimPrefix(srv.URL, "http://")
}

func mustParse(t *testing.T, s string) ref.Ref {
	t.Helper()
	r, err := ref.Parse(s)
	require.NoError(t, err)
	return r
}

func randomBytes(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	_, err := rand.Read(b)
	require.NoError(t, err)
	return b
}

func describe(b []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(b), Size: int64(len(b))}
}

func opener(b []byte) registry.Open {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

// image is a manifest with one layer and its config.
type image struct {
	layer, config, raw []byte
	desc               ocispec.Descriptor
}

func newImage(t *testing.T, arch string, size int) image {
	t.Helper()
	im := image{layer: randomBytes(t, size)}
	im.config = fmt.Appendf(nil, `{"architecture":%q,"os":"linux","config":{"Env":["A=b"]},"rootfs":{"type":"layers","diff_ids":[%q]}}`, arch, digest.FromBytes(im.layer))
	im.raw = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		ocispec.MediaTypeImageManifest, digest.FromBytes(im.config), len(im.config), digest.FromBytes(im.layer), len(im.layer))
	im.desc = describe(im.raw)
	im.desc.MediaType = ocispec.MediaTypeImageManifest
	return im
}

func (im image) push(t *testing.T, c *registry.Client, r ref.Ref) {
	t.Helper()
	for _, b := range [][]byte{im.layer, im.config} {
		_, err := c.PushBlob(t.Context(), r, describe(b), opener(b), nil)
		require.NoError(t, err)
	}
	desc, err := c.PushManifest(t.Context(), r, ocispec.MediaTypeImageManifest, im.raw)
	require.NoError(t, err)
	assert.Equal(t, im.desc, desc)
}

func TestRoundTrip_ourClient(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		ctx := t.Context()
		c := registry.New(registry.Options{})
		r := mustParse(t, host+"/team/app:1.0")
		_, err := c.Resolve(ctx, r)
		require.ErrorIs(t, err, registry.ErrNotFound)
		_, err = c.Tags(ctx, r)
		require.ErrorIs(t, err, registry.ErrNotFound)

		im := newImage(t, "arm64", 1<<20)
		im.push(t, c, r)
		desc, raw, err := c.Manifest(ctx, r)
		require.NoError(t, err)
		assert.Equal(t, im.desc, desc)
		assert.Equal(t, im.raw, raw)
		desc, err = c.Resolve(ctx, r.WithDigest(im.desc.Digest))
		require.NoError(t, err)
		assert.Equal(t, im.desc, desc)

		rc, err := c.Blob(ctx, r, describe(im.layer))
		require.NoError(t, err)
		got, err := io.ReadAll(rc)
		require.NoError(t, err)
		require.NoError(t, rc.Close())
		assert.Equal(t, im.layer, got)

		im.push(t, c, r.WithTag("1.1"))
		tags, err := c.Tags(ctx, r)
		require.NoError(t, err)
		assert.Equal(t, []string{"1.0", "1.1"}, tags)

		other := mustParse(t, host+"/other/app:x")
		uploaded, err := c.PushBlob(ctx, other, describe(im.layer), opener(im.layer), []ref.Ref{r})
		require.NoError(t, err)
		assert.False(t, uploaded, "it is mounted")
	})
}

func TestRoundTrip_ggcr(t *testing.T) {
	each(t, func(t *testing.T, host string) {
		index, err := random.Index(2048, 3, 4)
		require.NoError(t, err)
		tag, err := name.ParseReference(host + "/team/index:latest")
		require.NoError(t, err)
		require.NoError(t, remote.WriteIndex(tag, index))
		got, err := remote.Index(tag)
		require.NoError(t, err)
		manifest, err := got.IndexManifest()
		require.NoError(t, err)
		require.Len(t, manifest.Manifests, 4)
		for _, m := range manifest.Manifests {
			im, err := got.Image(m.Digest)
			require.NoError(t, err)
			readLayers(t, im, 3)
		}
		want, err := index.Digest()
		require.NoError(t, err)
		have, err := got.Digest()
		require.NoError(t, err)
		assert.Equal(t, want, have)

		tags, err := remote.List(tag.Context())
		require.NoError(t, err)
		assert.Equal(t, []string{"latest"}, tags)
		repos, err := remote.Catalog(t.Context(), tag.Context().Registry)
		require.NoError(t, err)
		assert.Equal(t, []string{"team/index"}, repos)

		im, err := random.Image(100, 1)
		require.NoError(t, err)
		other, err := name.ParseReference(host + "/other:x")
		require.NoError(t, err)
		require.NoError(t, remote.Write(other, im))
		back, err := remote.Image(other)
		require.NoError(t, err)
		readLayers(t, back, 1)
	})
}

// readLayers reads an image's layers to their ends, where they are verified.
func readLayers(t *testing.T, im v1.Image, n int) {
	t.Helper()
	layers, err := im.Layers()
	require.NoError(t, err)
	assert.Len(t, layers, n)
	for _, l := range layers {
		rc, err := l.Compressed()
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, rc)
		require.NoError(t, err)
		require.NoError(t, rc.Close())
	}
}

func TestRoundTrip_skopeo(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	require.NoError(t, err, "this test needs Debian's package skopeo: apt-get install --no-install-recommends skopeo")
	each(t, func(t *testing.T, host string) {
		c := registry.New(registry.Options{})
		newImage(t, "amd64", 5<<20).push(t, c, mustParse(t, host+"/a:1"))
		dir := t.TempDir()
		run := func(args ...string) {
			cmd := exec.Command(skopeo, append([]string{"--insecure-policy"}, args...)...)
			cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_RUNTIME_DIR="+dir, "XDG_CONFIG_HOME="+dir)
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "skopeo %v: %s", args, out)
		}
		run("copy", "--src-tls-verify=false", "docker://"+host+"/a:1", "oci:"+dir+"/layout:1")
		run("copy", "--dest-tls-verify=false", "oci:"+dir+"/layout:1", "docker://"+host+"/b/c:2")
		run("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+host+"/a:1", "docker://"+host+"/d:3")
		run("inspect", "--tls-verify=false", "docker://"+host+"/d:3")
		want, err := c.Resolve(t.Context(), mustParse(t, host+"/a:1"))
		require.NoError(t, err)
		for _, s := range []string{"/b/c:2", "/d:3"} {
			got, err := c.Resolve(t.Context(), mustParse(t, host+s))
			require.NoError(t, err)
			assert.Equal(t, want, got, s)
		}
	})
}
