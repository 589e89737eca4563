package serve_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/serve"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// bundle is an OCI layout with two images and what refers to one of them, as file names and bytes.
func bundle(t *testing.T) (im image, files map[string][]byte) {
	t.Helper()
	im = newImage(t, "arm64", 5000)
	sbom := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"text/sbom","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":%d},"layers":[],"subject":{"mediaType":%q,"digest":%q,"size":%d}}`,
		ocispec.MediaTypeImageManifest, digest.FromBytes(im.config), len(im.config), ocispec.MediaTypeImageManifest, im.desc.Digest, im.desc.Size)
	entry := func(raw []byte, annotations map[string]string) ocispec.Descriptor {
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(raw), Size: int64(len(raw)), Annotations: annotations}
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{
		entry(im.raw, map[string]string{ocispec.AnnotationRefName: "1.0"}),
		entry(im.raw, map[string]string{ocispec.AnnotationRefName: "ghcr.io/team/app:2.0"}),
		entry(im.raw, map[string]string{ocispec.AnnotationRefName: "3.0", "io.containerd.image.name": "docker.io/library/debian:12"}),
		entry(sbom, nil),
	}}
	index.SchemaVersion = 2
	raw, err := json.Marshal(index)
	require.NoError(t, err)
	files = map[string][]byte{"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": raw}
	for _, b := range [][]byte{im.layer, im.config, im.raw, sbom} {
		files["blobs/sha256/"+digest.FromBytes(b).Encoded()] = b
	}
	return im, files
}

// layouts writes the same layout in every form.
func layouts(t *testing.T, files map[string][]byte) map[string]string {
	t.Helper()
	dir := t.TempDir()
	var plain, zipped bytes.Buffer
	tw := tar.NewWriter(&plain)
	for name, b := range files {
		path := filepath.Join(dir, "carried", name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, b, 0o644))
		require.NoError(t, tw.WriteHeader(&tar.Header{Name: name, Size: int64(len(b)), Mode: 0o644, Typeflag: tar.TypeReg}))
		_, err := tw.Write(b)
		require.NoError(t, err)
	}
	require.NoError(t, tw.Close())
	zw := gzip.NewWriter(&zipped)
	_, err := zw.Write(plain.Bytes())
	require.NoError(t, err)
	require.NoError(t, zw.Close())
	require.NoError(t, os.WriteFile(filepath.Join(dir, "Carried.oci.tar"), plain.Bytes(), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "carried.tar.gz"), zipped.Bytes(), 0o644))
	return map[string]string{
		"directory": filepath.Join(dir, "carried"), "archive": filepath.Join(dir, "Carried.oci.tar"), "compressed": filepath.Join(dir, "carried.tar.gz"),
	}
}

// TestLayout serves a layout as it is, in every form, and changes nothing of it.
func TestLayout(t *testing.T) {
	im, files := bundle(t)
	for name, path := range layouts(t, files) {
		t.Run(name, func(t *testing.T) {
			before := tree(t, filepath.Dir(path))
			host := start(t, serve.Options{Layout: path})
			a := api{t, "http://" + host}
			assert.JSONEq(t, `{"repositories":["carried","debian","ghcr.io/team/app"]}`,
				string(a.call("GET", "/v2/_catalog", nil).body), "one spelling of each")
			for _, name := range []string{"carried:1.0", "team/app:2.0", "ghcr.io/team/app:2.0", "carried:3.0", "debian:12", "library/debian:12", "docker.io/library/debian:12"} {
				r := mustParse(t, host+"/"+name)
				desc, raw, err := registry.New(registry.Options{}).Manifest(t.Context(), r)
				require.NoError(t, err, name)
				assert.Equal(t, im.desc, desc)
				assert.Equal(t, im.raw, raw)
			}
			rc, err := registry.New(registry.Options{}).Blob(t.Context(), mustParse(t, host+"/carried:1.0"), describe(im.layer))
			require.NoError(t, err)
			got, err := io.ReadAll(rc)
			require.NoError(t, err)
			require.NoError(t, rc.Close())
			assert.Equal(t, im.layer, got)
			res := a.call("GET", "/v2/carried/blobs/"+describe(im.layer).Digest.String(), nil, "Range", "bytes=-5")
			assert.Equal(t, 206, res.status)
			assert.Equal(t, im.layer[4995:], res.body)
			var refs ocispec.Index
			require.NoError(t, json.Unmarshal(a.call("GET", "/v2/team/app/referrers/"+im.desc.Digest.String(), nil).body, &refs))
			require.Len(t, refs.Manifests, 1)
			assert.Equal(t, "text/sbom", refs.Manifests[0].ArtifactType)
			assert.JSONEq(t, `{"name":"carried","tags":["1.0","3.0"]}`, string(a.call("GET", "/v2/carried/tags/list", nil).body))

			assert.Equal(t, 404, a.call("GET", "/v2/carried/manifests/9", nil).status)
			assert.Equal(t, 404, a.call("GET", "/v2/other/manifests/1.0", nil).status)
			assert.Equal(t, 404, a.call("GET", "/v2/carried/blobs/"+digest.FromString("none").String(), nil).status)
			for _, m := range []string{http.MethodPut, http.MethodDelete} {
				assert.Equal(t, 405, a.call(m, "/v2/carried/manifests/1.0", im.raw).status)
			}
			assert.Equal(t, 405, a.call("POST", "/v2/carried/blobs/uploads/", nil).status)
			assert.Equal(t, before, tree(t, filepath.Dir(path)))
		})
	}
}

// TestLayout_G11_damage: what is no layout is refused at the start; a damaged blob
// never reaches a client with the digest of a good one.
func TestLayout_G11_damage(t *testing.T) {
	im, files := bundle(t)
	dir := layouts(t, files)["directory"]
	name := filepath.Join(dir, "blobs", "sha256", im.desc.Digest.Encoded())
	require.NoError(t, os.WriteFile(name, append([]byte(" "), im.raw[1:]...), 0o644))
	_, err := serve.Handler(t.Context(), serve.Options{Layout: dir})
	require.ErrorIs(t, err, source.ErrCorrupt)
	require.NoError(t, os.Remove(name))
	require.NoError(t, os.Symlink("/etc/passwd", name))
	_, err = serve.Handler(t.Context(), serve.Options{Layout: dir})
	require.ErrorIs(t, err, source.ErrInvalid)
	for _, bad := range []string{t.TempDir(), filepath.Join(dir, "none"), filepath.Join(dir, "index.json")} {
		_, err = serve.Handler(t.Context(), serve.Options{Layout: bad})
		require.Error(t, err, bad)
	}
}
