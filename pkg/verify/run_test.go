package verify_test

import (
	"context"
	"io"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testexe"
	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/internal/testsource"
	"github.com/manifestctl/manifestctl/pkg/facts"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/verify"
)

// counted counts the blobs that are opened.
type counted struct {
	source.Image
	blobs int
}

func (c *counted) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	c.blobs++
	return c.Image.Blob(ctx, desc)
}

func open(t *testing.T, c testimage.Content) *counted {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "x")
	testimage.WriteLayout(t, dir, map[string]testimage.Content{"1": c})
	return &counted{Image: testsource.Open(t, dir)}
}

func reader(t *testing.T) *verify.Reader {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "store"), store.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = st.Close() })
	return &verify.Reader{Cache: facts.Cache{Store: st}}
}

// starts is an image whose entrypoint is /app.
func starts(p string, layers ...testimage.LayerData) testimage.Content {
	return testimage.ImageWith(testimage.ImageOptions{Edit: func(i *ocispec.Image) { i.Config.Entrypoint = []string{"/app"} }}, p, layers...)
}

func layerOf(arch string) testimage.LayerData {
	return testimage.Layer(testimage.Exec("app", testexe.Exec(arch)))
}

func rules(r *verify.Report) []string {
	out := []string{}
	for _, f := range r.Findings {
		out = append(out, f.Platform+" "+f.Rule.ID)
	}
	return out
}

func TestRun(t *testing.T) {
	amd64, arm64 := starts("linux/amd64", layerOf("amd64").Gzip()), starts("linux/arm64", layerOf("arm64").Zstd())
	wrong := starts("linux/s390x", layerOf("amd64").Gzip())
	disagrees := starts("linux/amd64", layerOf("arm64"))
	disagrees.Desc.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64"}
	missing := starts("linux/arm64", layerOf("arm64"))
	delete(missing.Blobs, layerOf("arm64").DiffID())
	foreign := layerOf("amd64")
	foreign.MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	windows := starts("windows/amd64", foreign)
	delete(windows.Blobs, foreign.DiffID())
	truncated := layerOf("arm64")
	truncated.Tar = truncated.Tar[:300]
	for name, tc := range map[string]struct {
		c    testimage.Content
		want []string
	}{
		"right":                      {testimage.Index(amd64, arm64), []string{}},
		"one of three":               {testimage.Index(amd64, arm64, wrong), []string{"linux/s390x wrong-machine"}},
		"nested":                     {testimage.Index(amd64, testimage.Index(wrong)), []string{"linux/s390x wrong-machine"}},
		"a single image":             {wrong, []string{"linux/s390x wrong-machine"}},
		"index and config disagree":  {testimage.Index(disagrees), []string{"linux/arm64 config-disagrees"}},
		"a layer is missing":         {testimage.Index(missing), []string{"linux/arm64 broken-image", "linux/arm64 unread-layer"}},
		"a layer of Windows's base":  {testimage.Index(windows), []string{"windows/amd64 unread-layer"}},
		"a layer that is no archive": {testimage.Index(starts("linux/amd64", testimage.RawLayer([]byte("hi")))), []string{"linux/amd64 broken-image", "linux/amd64 unread-layer"}},
	} {
		t.Run(name, func(t *testing.T) {
			report, err := reader(t).Run(t.Context(), open(t, tc.c), verify.Options{})
			require.NoError(t, err)
			assert.Equal(t, tc.want, rules(report))
		})
	}
}

// What was read once is not read again, whichever image or compression it is in next.
func TestRunTwice(t *testing.T) {
	r := reader(t)
	img := open(t, testimage.Index(starts("linux/amd64", layerOf("amd64").Gzip()), starts("linux/arm64", layerOf("arm64"))))
	first, err := r.Run(t.Context(), img, verify.Options{})
	require.NoError(t, err)
	assert.Equal(t, 2, img.blobs)
	assert.Positive(t, first.Read)
	second, err := r.Run(t.Context(), img, verify.Options{})
	require.NoError(t, err)
	assert.Equal(t, 2, img.blobs, "the second run reads no layer")
	assert.Zero(t, second.Read)
	assert.Equal(t, first.Findings, second.Findings)

	known := verify.Options{KnownOnly: true}
	other := open(t, starts("linux/arm64", layerOf("amd64").Gzip()))
	report, err := r.Run(t.Context(), other, known)
	require.NoError(t, err)
	assert.Equal(t, []string{"linux/arm64 wrong-machine"}, rules(report))
	unknown := open(t, starts("linux/arm64", layerOf("s390x")))
	report, err = r.Run(t.Context(), unknown, known)
	require.NoError(t, err)
	assert.Empty(t, report.Findings)
	assert.Equal(t, 1, report.Unknown)
	assert.Zero(t, other.blobs+unknown.blobs)

	_, err = r.Run(t.Context(), img, verify.Options{Platforms: []platform.Platform{{OS: "linux", Arch: "s390x"}}})
	require.ErrorIs(t, err, source.ErrNotFound)
}

// A config that claims the diffID of a layer which is known to be right does not make another layer right.
func TestRunClaimsKnownLayer(t *testing.T) {
	r := reader(t)
	good, bad := layerOf("arm64"), layerOf("amd64")
	_, err := r.Run(t.Context(), open(t, starts("linux/arm64", good)), verify.Options{})
	require.NoError(t, err)
	for name, blob := range map[string]testimage.LayerData{"plain": bad, "gzip": bad.Gzip()} {
		forged := testimage.ImageWith(testimage.ImageOptions{Edit: func(i *ocispec.Image) {
			i.Config.Entrypoint = []string{"/app"}
			i.RootFS.DiffIDs = []digest.Digest{good.DiffID()}
		}}, "linux/arm64", blob)
		for range 2 { // and the second look does not believe what the first one read either
			report, err := r.Run(t.Context(), open(t, forged), verify.Options{})
			require.NoError(t, err)
			assert.Equal(t, []string{"linux/arm64 broken-image", "linux/arm64 unread-layer"}, rules(report), name)
		}
	}
}

func TestSARIF(t *testing.T) {
	report, err := reader(t).Run(t.Context(), open(t, starts("linux/arm64", layerOf("amd64"))), verify.Options{})
	require.NoError(t, err)
	assert.Equal(t, []testsource.Finding{{Rule: "wrong-machine", Level: "error"}}, testsource.SARIF(t, verify.SARIF("1.0", []*verify.Report{report})))
}
