package registry_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// debianRegistry runs Debian's docker-registry (distribution 2.8) and returns
// its HOST:PORT.
func debianRegistry(t *testing.T) string {
	t.Helper()
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		bin = "/usr/bin/docker-registry"
	}
	_, err = os.Stat(bin)
	require.NoError(t, err, "these tests need Debian's package docker-registry: apt-get install --no-install-recommends docker-registry")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %s}\n", dir, addr), 0o600))
	cmd := exec.Command(bin, "serve", config)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("docker-registry said:\n%s", log.String())
		}
	})
	require.Eventually(t, func() bool {
		resp, err := http.Get("http://" + addr + "/v2/")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, 10*time.Second, 20*time.Millisecond)
	return addr
}

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
	host := debianRegistry(t)
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
