package registry_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testregistry"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

func mustParse(t *testing.T, s string) ref.Ref {
	t.Helper()
	r, err := ref.Parse(s)
	require.NoError(t, err)
	return r
}

func randomBlob(t *testing.T, n int) (ocispec.Descriptor, []byte) {
	t.Helper()
	b := make([]byte, n)
	_, err := rand.Read(b)
	require.NoError(t, err)
	return describe(b), b
}

func describe(b []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(b), Size: int64(len(b))}
}

func opener(b []byte) registry.Open {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

func TestDebianRegistry_roundTrip(t *testing.T) {
	host := testregistry.Debian(t)
	ctx := t.Context()
	c := registry.New(registry.Options{})
	r := mustParse(t, host+"/team/app:1.0")

	_, err := c.Resolve(ctx, r)
	require.ErrorIs(t, err, registry.ErrNotFound)

	layer, layerBytes := randomBlob(t, 3<<20)
	config := []byte(`{"architecture":"arm64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)
	up, err := c.PushBlob(ctx, r, layer, opener(layerBytes), nil)
	require.NoError(t, err)
	assert.True(t, up)
	up, err = c.PushBlob(ctx, r, layer, opener(layerBytes), nil)
	require.NoError(t, err)
	assert.False(t, up, "it is there")
	_, err = c.PushBlob(ctx, r, describe(config), opener(config), nil)
	require.NoError(t, err)
	empty := describe(nil)
	_, err = c.PushBlob(ctx, r, empty, opener(nil), nil)
	require.NoError(t, err)

	raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`,
		ocispec.MediaTypeImageManifest, describe(config).Digest, len(config), layer.Digest, layer.Size)
	desc, err := c.PushManifest(ctx, r, ocispec.MediaTypeImageManifest, raw)
	require.NoError(t, err)
	assert.Equal(t, digest.FromBytes(raw), desc.Digest)

	got, err := c.Resolve(ctx, r)
	require.NoError(t, err)
	assert.Equal(t, desc, got)
	got, gotRaw, err := c.Manifest(ctx, r.WithDigest(desc.Digest))
	require.NoError(t, err)
	assert.Equal(t, desc, got)
	assert.Equal(t, raw, gotRaw)

	rc, err := c.Blob(ctx, r, layer)
	require.NoError(t, err)
	back, err := io.ReadAll(rc)
	require.NoError(t, err)
	require.NoError(t, rc.Close())
	assert.Equal(t, layerBytes, back)
	rc, err = c.Blob(ctx, r, empty)
	require.NoError(t, err)
	back, err = io.ReadAll(rc)
	require.NoError(t, err)
	assert.Empty(t, back)

	other := mustParse(t, host+"/other/app:1")
	up, err = c.PushBlob(ctx, other, layer, func(context.Context) (io.ReadCloser, error) {
		t.Error("a mounted blob is not read")
		return nil, io.EOF
	}, []ref.Ref{other, r})
	require.NoError(t, err)
	assert.False(t, up, "mounted")
	has, err := c.HasBlob(ctx, other, layer.Digest)
	require.NoError(t, err)
	assert.True(t, has)
	has, err = c.HasBlob(ctx, other, describe(config).Digest)
	require.NoError(t, err)
	assert.False(t, has)

	_, err = c.PushManifest(ctx, other, ocispec.MediaTypeImageManifest, raw)
	require.ErrorIs(t, err, registry.ErrBlobUnknown, "the config was not pushed to it")

	_, err = c.PushManifest(ctx, r.WithTag("1.1"), ocispec.MediaTypeImageManifest, raw)
	require.NoError(t, err)
	tags, err := c.Tags(ctx, r)
	require.NoError(t, err)
	assert.Equal(t, []string{"1.0", "1.1"}, tags)
}
