package diff

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
)

var update = flag.Bool("update", false, "write the golden files anew")

// memory is an image in memory.
type memory struct {
	testimage.Content
	name string
}

var _ source.Image = memory{}

func (m memory) Ref() ref.Ref             { return ref.Ref{Kind: ref.OCILayout, Path: m.name} }
func (m memory) Root() ocispec.Descriptor { return m.Desc }
func (m memory) Close() error             { return nil }

func (m memory) Manifest(_ context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if raw, ok := m.Blobs[desc.Digest]; ok {
		return raw, nil
	}
	return nil, source.ErrNotFound
}

func (m memory) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	raw, err := m.Manifest(ctx, desc)
	return io.NopCloser(bytes.NewReader(raw)), err
}

func file(name, text string) testimage.Entry { return testimage.File(name, text) }

// two are indexes that differ in everything that can differ.
func two() (a, b testimage.Content) {
	base := testimage.Layer(file("same", "1"), file("text", "abc"), file("gone", "x"), file("mode", "m"))
	equal := testimage.Image("linux/s390x", base)
	amd := testimage.ImageWith(testimage.ImageOptions{Edit: func(c *ocispec.Image) {
		c.Config.Env, c.Config.Cmd = []string{"A=1", "B=2"}, []string{"a"}
	}, Annotations: map[string]string{"k": "1"}}, "linux/amd64", base)
	top := testimage.Layer(file("text", "abd"), testimage.Whiteout("gone"), file("new", ""), testimage.File("mode", "m").Mode(0o600))
	amd2 := testimage.ImageWith(testimage.ImageOptions{Edit: func(c *ocispec.Image) {
		c.Config.Env, c.Config.Cmd, c.Config.User = []string{"A=1", "B=3"}, []string{"a", "b"}, "5"
	}}, "linux/amd64", testimage.Layer(file("same", "1"), file("text", "abc"), file("gone", "x"), file("mode", "m")), top)
	amd2.Desc.Annotations = map[string]string{"entry": "x"}
	a = testimage.IndexWith(testimage.IndexOptions{Annotations: map[string]string{"i": "1"}}, amd, equal, testimage.Image("linux/arm64", base))
	attestation := testimage.Image("unknown/unknown", base)
	attestation.Desc.Annotations = map[string]string{index.AnnotationReferenceType: "attestation-manifest"}
	b = testimage.IndexWith(testimage.IndexOptions{Annotations: map[string]string{"i": "2"}}, amd2, equal, testimage.Image("linux/riscv64", base), attestation)
	return a, b
}

func TestRun(t *testing.T) {
	a, b := two()
	rep, err := Run(t.Context(), memory{a, "a"}, memory{b, "b"}, Options{Files: true, Spool: t.TempDir()})
	require.NoError(t, err)
	got, err := json.MarshalIndent(rep, "", "  ")
	require.NoError(t, err)
	golden := filepath.Join("testdata", "report.json")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(golden, append(got, '\n'), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	assert.Equal(t, string(want), string(got)+"\n")
	assert.False(t, rep.Same)

	gzip, zstd := testimage.Layer(file("a", "1")).Gzip(), testimage.Layer(file("a", "1")).Zstd()
	rep, err = Run(t.Context(), memory{testimage.Image("linux/amd64", gzip), "a"}, memory{testimage.Image("linux/amd64", zstd), "b"}, Options{Files: true})
	require.NoError(t, err)
	assert.Equal(t, Repacked, rep.Platforms[0].Layers[0].Status)
	assert.Empty(t, rep.Platforms[0].Files)

	rep, err = Run(t.Context(), memory{a, "a"}, memory{a, "b"}, Options{Files: true})
	require.NoError(t, err)
	assert.True(t, rep.Same)
	for _, p := range rep.Platforms {
		assert.Equal(t, Same, p.Status)
	}

	rep, err = Run(t.Context(), memory{a, "a"}, memory{b, "b"}, Options{Platforms: []platform.Platform{{OS: "linux", Arch: "s390x"}}})
	require.NoError(t, err)
	assert.Len(t, rep.Platforms, 1)
	_, err = Run(t.Context(), memory{a, "a"}, memory{b, "b"}, Options{Platforms: []platform.Platform{{OS: "linux", Arch: "386"}}})
	require.ErrorIs(t, err, source.ErrNotFound)
}

// TestRun_details: differences that are easily missed are not.
func TestRun_details(t *testing.T) {
	l := testimage.Layer(file("a", "1")).Gzip()
	x, y := testimage.Image("linux/amd64", l), testimage.Image("linux/arm64", l)
	tagged := x
	tagged.Desc.Annotations = map[string]string{"k": "v"}
	for name, tc := range map[string]struct {
		a, b testimage.Content
		same bool
	}{
		"the order of platforms":      {testimage.Index(x, y), testimage.Index(y, x), false},
		"an entry's annotation":       {testimage.Index(x, y), testimage.Index(tagged, y), false},
		"an index around it":          {testimage.Index(x), x, false},
		"Docker's types":              {x, testimage.ImageWith(testimage.ImageOptions{Docker: true}, "linux/amd64", l), false},
		"the compression":             {x, testimage.Image("linux/amd64", testimage.Layer(file("a", "1")).Zstd()), false},
		"what the images are for":     {x, y, false},
		"the same image":              {x, x, true},
		"a duplicate of one platform": {testimage.Index(x, testimage.Image("linux/amd64")), testimage.Index(x), false},
	} {
		t.Run(name, func(t *testing.T) {
			rep, err := Run(t.Context(), memory{tc.a, "a"}, memory{tc.b, "b"}, Options{})
			require.NoError(t, err)
			assert.Equal(t, tc.same, rep.Same)
			told := len(rep.Index) + len(rep.Others)
			for _, p := range rep.Platforms {
				if p.Status != Same {
					told++
				}
				if p.Status == Changed {
					assert.NotZero(t, len(p.Manifest)+len(p.Config)+len(p.Layers))
				}
			}
			assert.Equal(t, tc.same, told == 0)
		})
	}
	_, err := Run(t.Context(), memory{testimage.Index(x), "a"}, memory{func() testimage.Content {
		c := testimage.Index(y)
		delete(c.Blobs, y.Desc.Digest)
		return c
	}(), "b"}, Options{})
	require.ErrorIs(t, err, source.ErrNotFound)
}
