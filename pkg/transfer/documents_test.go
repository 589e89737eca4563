package transfer

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
)

// reworded is c with its own document changed as text; what it reaches stays.
func reworded(t *testing.T, c testimage.Content, old, new string) testimage.Content {
	t.Helper()
	raw := string(c.Raw())
	require.Contains(t, raw, old)
	out := testimage.Document(c.Desc.MediaType, []byte(strings.ReplaceAll(raw, old, new)))
	out.Desc.Platform = c.Desc.Platform
	for d, b := range c.Blobs {
		if _, ok := out.Blobs[d]; !ok {
			out.Blobs[d] = b
		}
	}
	return out
}

// everywhere copies c from a registry to another, to a layout, an archive and the store, and back, and requires that
// nothing changes.
func everywhere(t *testing.T, c testimage.Content, o Options) {
	t.Helper()
	one, _ := serveRegistry(t)
	two, _ := debianRegistry(t)
	env := withStore(t, newEnv(t))
	put(t, env, c, at(t, "%s/app:1", one))
	from := at(t, "%s/app:1", one)
	for _, to := range []ref.Ref{at(t, "oci:layout:1"), at(t, "store:app:1"), at(t, "oci-archive:a.tar:1"), at(t, "%s/copy:1", one), at(t, "%s/app:1", two)} {
		_, err := Copy(t.Context(), env, from, to, o)
		require.NoError(t, err, "%s to %s", from, to)
		img, err := env.opener().Open(t.Context(), to)
		require.NoError(t, err)
		assert.Equal(t, c.Desc.Digest, img.Root().Digest, "%s", to)
		raw, err := img.Manifest(t.Context(), img.Root())
		require.NoError(t, err)
		assert.Equal(t, string(c.Raw()), string(raw), "%s", to)
		if index.IsIndex(c.Desc.MediaType) {
			idx, err := index.Parse(raw)
			require.NoError(t, err)
			for _, m := range idx.Manifests {
				child, err := img.Manifest(t.Context(), m)
				require.NoError(t, err, "%s: %s", to, m.MediaType)
				assert.Equal(t, m.Digest, digest.FromBytes(child))
			}
		}
		require.NoError(t, img.Close())
		from = to
	}
}

// TestCopy_B05_unknown: a child of a type that nobody knows goes along as it is.
func TestCopy_B05_unknown(t *testing.T) {
	unknown := testimage.Document("application/vnd.example.thing.v1+json", []byte(`{"mediaType":"application/vnd.example.thing.v1+json","a":1}`))
	bare := testimage.Document("application/vnd.example.other+json", []byte(`{"b":[1,2]}`))
	one, _ := serveRegistry(t)
	two, _ := serveRegistry(t)
	env := newEnv(t)
	c := testimage.Index(image("linux/amd64", "x"), unknown, bare)
	put(t, env, c, at(t, "%s/app:1", one))
	for _, hop := range [][2]ref.Ref{
		{at(t, "%s/app:1", one), at(t, "oci:layout:1")}, {at(t, "oci:layout:1"), at(t, "%s/app:1", two)}, {at(t, "%s/app:1", two), at(t, "oci:back:1")},
	} {
		rep, err := Copy(t.Context(), env, hop[0], hop[1], Options{})
		require.NoError(t, err)
		assert.Equal(t, c.Desc.Digest, rep.Roots[0].Digest)
	}
	img, err := env.opener().Open(t.Context(), at(t, "oci:back:1"))
	require.NoError(t, err)
	defer img.Close()
	for _, want := range []testimage.Content{unknown, bare} {
		got, err := img.Manifest(t.Context(), want.Desc)
		require.NoError(t, err)
		assert.Equal(t, want.Raw(), got)
	}
}

// TestCopy_B16_sha512: content under sha512 is verified and copied like any other.
func TestCopy_B16_sha512(t *testing.T) {
	c := image("linux/amd64", "x")
	raw := c.Raw()
	d := digest.SHA512.FromBytes(raw)
	c.Blobs[d] = raw
	c.Desc.Digest = d
	env := newEnv(t)
	put(t, env, c, at(t, "oci:layout:1"))
	_, err := Copy(t.Context(), env, at(t, "oci:layout:1"), at(t, "oci:other:1"), Options{})
	require.NoError(t, err)
	img, err := env.opener().Open(t.Context(), at(t, "oci:other:1"))
	require.NoError(t, err)
	defer img.Close()
	assert.Equal(t, d, img.Root().Digest)
}

// TestCopy_B18_urls: where a descriptor says that a layer may be had is not asked.
func TestCopy_B18_urls(t *testing.T) {
	var asked atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.WriteHeader(http.StatusOK)
	}))
	defer elsewhere.Close()
	c := image("linux/amd64", "x")
	m, err := index.ParseManifest(c.Raw())
	require.NoError(t, err)
	layer := m.Layers[0].Digest
	for _, url := range []string{elsewhere.URL + "/layer", "http://169.254.169.254/latest", "file:///etc/passwd"} {
		with := reworded(t, c, `"mediaType":"`+m.Layers[0].MediaType+`"`, `"urls":["`+url+`"],"mediaType":"`+m.Layers[0].MediaType+`"`)
		delete(with.Blobs, layer)
		env := newEnv(t)
		testimage.WriteLayout(t, env.Dir, map[string]testimage.Content{"1": with})
		_, err = Copy(t.Context(), env, at(t, "oci:%s:1", env.Dir), at(t, "oci:out:1"), Options{AllLayers: true})
		require.ErrorIs(t, err, ErrIncomplete)
		assert.Contains(t, err.Error(), layer.String())
	}
	assert.Zero(t, asked.Load())
}

// TestCopy_B20_foreign: layers that are not to be distributed stay behind, with a note, unless they are asked for.
func TestCopy_B20_foreign(t *testing.T) {
	host, _ := serveRegistry(t)
	for name, mt := range map[string]string{
		"oci": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "docker": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
	} {
		c := image("windows/amd64", name)
		m, err := index.ParseManifest(c.Raw())
		require.NoError(t, err)
		c = reworded(t, c, m.Layers[0].MediaType, mt)
		env := newEnv(t)
		testimage.WriteLayout(t, env.Dir, map[string]testimage.Content{"1": c})
		src := at(t, "oci:%s:1", env.Dir)
		rep, err := Copy(t.Context(), env, src, at(t, "%s/%s:without", host, name), Options{})
		require.NoError(t, err)
		assert.Contains(t, strings.Join(rep.Notes, "\n"), m.Layers[0].Digest.String())
		has, err := env.Registry.HasBlob(t.Context(), at(t, "%s/%s:x", host, name), m.Layers[0].Digest)
		require.NoError(t, err)
		assert.False(t, has)
		rep, err = Copy(t.Context(), env, src, at(t, "%s/%s-all:with", host, name), Options{AllLayers: true})
		require.NoError(t, err)
		assert.Empty(t, rep.Notes)
		requireWhole(t, env, at(t, "%s/%s-all:with", host, name))
	}
}

// TestCopy_B21_artifacts: what is no image is copied byte by byte.
func TestCopy_B21_artifacts(t *testing.T) {
	layer := testimage.Layer(testimage.File("a", "b")).Gzip()
	image := testimage.Image("linux/amd64", layer)
	m, err := index.ParseManifest(image.Raw())
	require.NoError(t, err)
	kind := func(config, layers string) testimage.Content {
		c := reworded(t, image, ocispec.MediaTypeImageConfig, config)
		return reworded(t, c, m.Layers[0].MediaType, layers)
	}
	empty := testimage.RawLayer(nil)
	for name, c := range map[string]testimage.Content{
		"helm":        kind("application/vnd.cncf.helm.config.v1+json", "application/vnd.cncf.helm.chart.content.v1.tar+gzip"),
		"wasm":        kind("application/vnd.wasm.config.v1+json", "application/vnd.wasm.content.layer.v1+wasm"),
		"cosign":      kind(ocispec.MediaTypeImageConfig, "application/vnd.dev.cosign.simplesigning.v1+json"),
		"no layers":   testimage.Image("linux/amd64"),
		"empty blob":  testimage.Image("linux/amd64", empty),
		"in an index": testimage.Index(kind("application/vnd.wasm.config.v1+json", "application/vnd.wasm.content.layer.v1+wasm"), image),
	} {
		t.Run(name, func(t *testing.T) { everywhere(t, c, Options{}) })
	}
}
