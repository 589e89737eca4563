package remotecache_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/remotecache"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// buildKitCache is a cache as buildx exports it: a manifest of the layers, whose config has the keys.
func buildKitCache(t *testing.T) testimage.Content {
	t.Helper()
	config := []byte(`{"layers":[],"records":[{"digest":"sha256:b7b5e4d5b5f1ab1e4bb4b1b1c7f1e9ab33c1a9b0ddce3d7a1b2d40be59a03f5b"}]}`)
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
	m.Config = ocispec.Descriptor{MediaType: "application/vnd.buildkit.cacheconfig.v0", Digest: digest.FromBytes(config), Size: int64(len(config))}
	raw, err := json.Marshal(m)
	require.NoError(t, err)
	c := testimage.Document(m.MediaType, raw)
	c.Blobs[m.Config.Digest] = config
	return c
}

// TestWhatIsNoCache: a --cache-from that holds something else is a warning that says what, and a --cache-to never takes its place.
func TestWhatIsNoCache(t *testing.T) {
	for what, tc := range map[string]struct {
		content testimage.Content
		from    string
		to      string
	}{
		"BuildKit's": {buildKitCache(t), "BuildKit's, of buildx or buildctl", "BuildKit's cache is there"},
		"an image":   {testimage.Image("linux/amd64", testimage.Layer(testimage.File("a", "a"))), "an image without records", "an image is there"},
		"an index":   {testimage.Index(testimage.Image("linux/amd64"), testimage.Image("linux/arm64")), "an image without records", "an image is there"},
	} {
		for name, p := range places(t) {
			t.Run(what+" in a "+name, func(t *testing.T) {
				to, err := remotecache.ParseTo(p.to)
				require.NoError(t, err)
				if name == "local" {
					testimage.WriteLayout(t, p.dir, map[string]testimage.Content{"latest": tc.content})
				} else {
					testimage.WriteLayout(t, filepath.Join(p.env.Dir, "from"), map[string]testimage.Content{"x": tc.content})
					_, err := transfer.Copy(t.Context(), p.env, mustRef(t, "oci:from:x"), to.Ref, transfer.Options{})
					require.NoError(t, err)
				}
				opener := &source.Opener{Registry: p.env.Registry, Dir: p.env.Dir}
				_, warnings := p.open(t)
				require.Len(t, *warnings, 1)
				assert.Contains(t, (*warnings)[0], "is not used: it is no cache of manifestctl's but "+tc.from)

				err = remotecache.Check(t.Context(), opener, to)
				require.ErrorIs(t, err, remotecache.ErrOther)
				assert.Contains(t, err.Error(), tc.to)
				if name == "registry" {
					assert.True(t, strings.HasSuffix(err.Error(), "such as "+to.Ref.Host+"/app:manifestctl-cache"), err)
				}
			})
		}
	}
	for name, p := range places(t) {
		to, err := remotecache.ParseTo(p.to)
		require.NoError(t, err)
		opener := &source.Opener{Registry: p.env.Registry, Dir: p.env.Dir}
		require.NoError(t, remotecache.Check(t.Context(), opener, to), "%s: there is nothing yet", name)
		content := blobs{}
		require.NoError(t, p.export(t, content, target(t, amd64, "one", content)))
		require.NoError(t, remotecache.Check(t.Context(), opener, to), "%s: it is ours", name)
	}
}

func mustRef(t *testing.T, s string) ref.Ref {
	t.Helper()
	r, err := ref.Parse(s)
	require.NoError(t, err)
	return r
}
