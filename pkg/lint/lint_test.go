package lint

import (
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/internal/testsource"
	"github.com/manifestctl/manifestctl/pkg/source"
)

func run(t *testing.T, c testimage.Content) (*Report, error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "x")
	testimage.WriteLayout(t, dir, map[string]testimage.Content{"1": c})
	return Run(t.Context(), testsource.Open(t, dir))
}

func TestRun(t *testing.T) {
	amd64, arm64 := testimage.Image("linux/amd64"), testimage.Image("linux/arm64/v8")
	wrong := testimage.Image("linux/amd64", testimage.Layer(testimage.File("a", "b")))
	wrong.Desc.Platform = &ocispec.Platform{OS: "linux", Architecture: "s390x"}
	missing := testimage.Index(amd64, arm64)
	delete(missing.Blobs, arm64.Desc.Digest)
	noConfig := testimage.Index(amd64)
	delete(noConfig.Blobs, digest.FromBytes(amd64.Config))
	broken := testimage.Document(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2}`))
	broken.Desc.Platform = &ocispec.Platform{OS: "linux", Architecture: "s390x"}
	for name, tc := range map[string]struct {
		c    testimage.Content
		want []string
	}{
		"clean":           {c: testimage.Index(amd64, arm64)},
		"a single image":  {c: amd64},
		"B12":             {c: testimage.Index(amd64, wrong), want: []string{RuleConfig.ID}},
		"B25":             {c: missing, want: []string{RuleDangling.ID}},
		"B25 a config":    {c: noConfig, want: []string{RuleDangling.ID}},
		"B10 broken":      {c: testimage.Index(amd64, broken), want: []string{RuleBroken.ID}},
		"B07 nested":      {c: testimage.Index(amd64, testimage.Index(arm64)), want: []string{RuleNested.ID}},
		"B11, and nested": {c: testimage.Index(amd64, testimage.Index(amd64, testimage.Image("linux/amd64/v1"))), want: []string{"duplicate-platform", "odd-platform", RuleNested.ID}},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := run(t, tc.c)
			require.NoError(t, err)
			var got []string
			for _, f := range r.Findings {
				got = append(got, f.Rule.ID)
			}
			assert.Equal(t, tc.want, got)
		})
	}
	notIndex := testimage.Document(ocispec.MediaTypeImageIndex, []byte(`{}`))
	_, err := run(t, notIndex)
	require.ErrorIs(t, err, source.ErrInvalid, "what was asked for must be readable")
}

func TestSARIF(t *testing.T) {
	amd64 := testimage.Image("linux/amd64")
	r, err := run(t, testimage.Index(amd64, testimage.Image("linux/amd64", testimage.Layer(testimage.File("a", "b")))))
	require.NoError(t, err)
	assert.Equal(t, []testsource.Finding{{Rule: r.Findings[0].Rule.ID, Level: "error"}}, testsource.SARIF(t, r.SARIF("1")))
}
