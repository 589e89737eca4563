package inspect

import (
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// forest is an index with everything that an index can have.
func forest() testimage.Content {
	layer := testimage.Layer(testimage.File("a", "b"))
	amd := testimage.ImageWith(testimage.ImageOptions{Annotations: map[string]string{"manifest": "\x1b[31mred"}}, "linux/amd64", layer)
	amd.Desc.Annotations = map[string]string{"entry": "1"}
	attestation := testimage.Image("unknown/unknown", layer)
	attestation.Desc.Annotations = map[string]string{
		index.AnnotationReferenceType: "attestation-manifest", index.AnnotationReferenceDigest: amd.Desc.Digest.String(),
	}
	nested := testimage.Index(testimage.Image("linux/s390x", layer))
	artifact := testimage.Document("application/vnd.example.thing+json", []byte(`{"a":1}`))
	subject := ocispec.Descriptor{MediaType: amd.Desc.MediaType, Digest: amd.Desc.Digest, Size: amd.Desc.Size}
	return testimage.IndexWith(testimage.IndexOptions{Annotations: map[string]string{"index": "2"}, Subject: &subject}, amd, attestation, nested, nested, artifact)
}

func TestTree(t *testing.T) {
	for name, o := range map[string]Options{"tree.txt": {Tree: true}, "tree.json": {Tree: true, Format: "json"}} {
		res, err := Run(t.Context(), &memory{Content: forest()}, ref.Ref{Kind: ref.OCILayout, Path: "dir", Tag: "1"}, o)
		require.NoError(t, err)
		golden(t, name, string(res.out))
		assert.Empty(t, res.Warnings)
	}
	_, err := Run(t.Context(), &memory{Content: forest()}, ref.Ref{}, Options{Tree: true, Raw: true})
	require.ErrorIs(t, err, ErrFormat)
}

func TestTree_missing(t *testing.T) {
	c := forest()
	idx, err := index.Parse(c.Raw())
	require.NoError(t, err)
	delete(c.Blobs, idx.Manifests[0].Digest)
	res, err := Run(t.Context(), &memory{Content: c}, ref.Ref{Kind: ref.OCILayout, Path: "dir"}, Options{Tree: true})
	require.NoError(t, err)
	assert.Contains(t, string(res.out), "missing or broken")
	assert.Len(t, res.Warnings, 1)

	_, err = Run(t.Context(), &memory{Content: forest(), err: assert.AnError}, ref.Ref{Kind: ref.OCILayout, Path: "dir"}, Options{Tree: true})
	require.NoError(t, err) // nothing is missing
	c = forest()
	delete(c.Blobs, idx.Manifests[2].Digest)
	_, err = Run(t.Context(), &memory{Content: c, err: assert.AnError}, ref.Ref{Kind: ref.OCILayout, Path: "dir"}, Options{Tree: true})
	require.ErrorIs(t, err, assert.AnError)
}

// TestTree_B07_repeats: what repeats is read once, and what nests without end is an error.
func TestTree_B07_repeats(t *testing.T) {
	run := func(c testimage.Content) error {
		m := &memory{Content: c}
		_, err := Run(t.Context(), m, ref.Ref{Kind: ref.OCILayout, Path: "dir"}, Options{Tree: true})
		return err
	}
	c := testimage.Image("linux/amd64")
	for range index.MaxNesting {
		c = testimage.Index(c, c, c, c, c, c, c, c)
	}
	require.NoError(t, run(c))
	require.ErrorIs(t, run(testimage.Index(testimage.Index(c))), source.ErrInvalid)
}
