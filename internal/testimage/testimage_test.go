package testimage_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/store"
)

func hello() (amd, arm, idx testimage.Content) {
	base := testimage.Layer(testimage.Dir("etc"), testimage.File("etc/motd", "hi\n").Owner(5, 6).Xattr("user.x", "y"), testimage.Symlink("l", "etc/motd"))
	top := testimage.Layer(testimage.Whiteout("etc/motd"), testimage.Opaque("etc"))
	amd = testimage.Image("linux/amd64", base.Gzip(), top)
	arm = testimage.ImageWith(testimage.ImageOptions{Docker: true}, "linux/arm/v7", base.Zstd(), top.Gzip())
	return amd, arm, testimage.Index(amd, arm)
}

func TestContent(t *testing.T) {
	amd, arm, idx := hello()
	again, _, _ := hello()
	assert.Equal(t, again, amd, "equal calls give equal bytes")
	for d, data := range idx.Blobs {
		assert.Equal(t, d, digest.FromBytes(data))
	}
	var m ocispec.Manifest
	require.NoError(t, json.Unmarshal(arm.Raw(), &m))
	assert.Equal(t, testimage.DockerManifest, m.MediaType)
	assert.Equal(t, testimage.DockerLayer+".zstd", m.Layers[0].MediaType)
	assert.Equal(t, "v7", arm.Desc.Platform.Variant)
	var config ocispec.Image
	require.NoError(t, json.Unmarshal(amd.Config, &config))
	assert.Len(t, config.RootFS.DiffIDs, 2)

	h, err := tar.NewReader(bytes.NewReader(amd.Layers[1].Tar)).Next()
	require.NoError(t, err)
	assert.Equal(t, "etc/.wh.motd", h.Name)
}

func TestWriters(t *testing.T) {
	amd, _, idx := hello()
	dir := t.TempDir()
	layout := filepath.Join(dir, "layout")
	testimage.WriteLayout(t, layout, map[string]testimage.Content{"hello": idx})
	assert.FileExists(t, filepath.Join(layout, "blobs/sha256", amd.Desc.Digest.Encoded()))

	s, err := store.Open(t.Context(), filepath.Join(dir, "store"), store.Options{})
	require.NoError(t, err)
	defer s.Close()
	testimage.WriteStore(t, s, "hello:1.0", idx)
	got, err := s.GetRef("hello:1.0")
	require.NoError(t, err)
	assert.Equal(t, idx.Desc, got)

	tr := tar.NewReader(bytes.NewReader(testimage.DockerArchive(map[string]testimage.Content{"hello:1.0": amd})))
	var names []string
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		names = append(names, h.Name)
	}
	assert.Contains(t, names, "manifest.json")
}

// Another implementation understands what is written.
func TestSkopeoReads(t *testing.T) {
	skopeo, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed: apt-get install skopeo")
	}
	amd, _, idx := hello()
	dir := t.TempDir()
	named := map[string]testimage.Content{"hello:1.0": amd}
	testimage.WriteLayout(t, filepath.Join(dir, "one"), named)
	testimage.WriteLayout(t, filepath.Join(dir, "idx"), map[string]testimage.Content{"hello:1.0": idx})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "oci.tar"), testimage.OCIArchive(named), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "docker.tar"), testimage.DockerArchive(named), 0o644))
	for _, args := range [][]string{
		{"inspect", "oci:" + dir + "/one:hello:1.0"},
		{"inspect", "--override-os=linux", "--override-arch=amd64", "oci:" + dir + "/idx:hello:1.0"},
		{"inspect", "oci-archive:" + dir + "/oci.tar:hello:1.0"},
		{"inspect", "docker-archive:" + dir + "/docker.tar"},
		{"copy", "--insecure-policy", "oci:" + dir + "/one:hello:1.0", "dir:" + dir + "/copied"},
	} {
		out, err := exec.Command(skopeo, args...).CombinedOutput()
		assert.NoError(t, err, "%v: %s", args, out)
	}
}
