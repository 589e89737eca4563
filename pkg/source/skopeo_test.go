package source

import (
	"archive/tar"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// skopeo runs the peer, or skips where it is not installed.
func skopeo(t *testing.T, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath("skopeo")
	if err != nil {
		t.Skip("skopeo is not installed: apt-get install --no-install-recommends skopeo")
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = t.TempDir()
	out, err := cmd.Output()
	if err != nil {
		var stderr []byte
		if exit, ok := err.(*exec.ExitError); ok {
			stderr = exit.Stderr
		}
		require.NoError(t, err, "skopeo %v: %s", args, stderr)
	}
	return out
}

// archiveOf is a layout as a tar with its directories: without them the peer wants to be root.
func archiveOf(t *testing.T, dir string) []byte {
	t.Helper()
	members := []member{hdr(tar.TypeDir, "blobs/", ""), hdr(tar.TypeDir, "blobs/sha256/", "")}
	for i := range members {
		members[i].Mode = 0o755
	}
	files := filesBelow(t, dir)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		members = append(members, file(name, string(files[name])))
	}
	return tarOf(t, members...)
}

// TestSkopeoRaw: the peer reads the same bytes from a layout and from an archive.
func TestSkopeoRaw(t *testing.T) {
	idx, single := three(), testimage.Image("linux/amd64", testimage.Layer(testimage.File("f", "1")).Gzip())
	contents := map[string]testimage.Content{"multi": idx, "single": single}
	dir := layoutOf(t, contents)
	archive := archiveOf(t, dir)
	for name, ref := range map[string]string{
		"index in a layout":   "oci:" + dir + ":multi",
		"image in a layout":   "oci:" + dir + ":single",
		"image in an archive": "oci-archive:" + fileOf(t, archive) + ":single",
		"index in an archive": "oci-archive:" + fileOf(t, archive) + ":multi",
		"image, gzipped":      "oci-archive:" + fileOf(t, gzipped(t, archive)) + ":single",
	} {
		t.Run(name, func(t *testing.T) {
			want := skopeo(t, "inspect", "--raw", ref)
			img, err := open(t, ref)
			require.NoError(t, err)
			raw, err := img.Manifest(t.Context(), img.Root())
			require.NoError(t, err)
			assert.Equal(t, string(want), string(raw))
		})
	}
}

// TestSkopeoDockerArchive: what the peer writes as a docker archive is read: config and layers are the same.
func TestSkopeoDockerArchive(t *testing.T) {
	c := testimage.Image("linux/amd64", testimage.Layer(testimage.File("f", "1")).Gzip(), testimage.Layer(testimage.File("g", "2")).Gzip())
	dir := layoutOf(t, map[string]testimage.Content{"1.0": c})
	archive := filepath.Join(t.TempDir(), "docker.tar")
	skopeo(t, "--insecure-policy", "copy", "oci:"+dir+":1.0", "docker-archive:"+archive+":example.com/app:1.0")

	img, err := open(t, "docker-archive:"+archive+":1.0")
	require.NoError(t, err)
	r, err := Resolve(t.Context(), img, platform.Platform{OS: "linux", Arch: "amd64"})
	require.NoError(t, err)
	assert.Equal(t, string(c.Config), string(r.Config))
	require.Len(t, r.Manifest.Layers, 2)
	for i, l := range r.Manifest.Layers {
		data, err := readAll(t.Context(), img, l)
		require.NoError(t, err)
		assert.Equal(t, c.Layers[i].Tar, data)
	}
}
