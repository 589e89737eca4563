package source

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
)

// memoryFiles are files in memory, which note names that are none.
type memoryFiles struct {
	t     testing.TB
	files map[string][]byte
}

func (m memoryFiles) Close() error { return nil }

func (m memoryFiles) open(name string) (io.ReadCloser, int64, error) {
	require.True(m.t, fs.ValidPath(name), "%q leaves its place", name)
	data, ok := m.files[name]
	if !ok {
		return nil, 0, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return io.NopCloser(bytes.NewReader(data)), int64(len(data)), nil
}

// filesBelow are the files of a directory, by name.
func filesBelow(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	require.NoError(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		files[filepath.ToSlash(rel)], err = os.ReadFile(name)
		return err
	}))
	return files
}

// FuzzLayout: oci-layout, index.json and one more blob are anything. No file outside is asked for, and what is read is
// what its digest says.
func FuzzLayout(f *testing.F) {
	files := filesBelow(f, layoutOf(f, map[string]testimage.Content{"1.0": three()}))
	f.Add(files["oci-layout"], files["index.json"], []byte("{}"), "1.0")
	f.Add([]byte(`{"imageLayoutVersion":"1.0.0","x":1}`), []byte(`{"schemaVersion":2,"manifests":[]}`), []byte(`{"schemaVersion":2,"layers":[]}`), "")
	f.Add([]byte(`{"imageLayoutVersion":"1.0.1"}`), []byte(`{"schemaVersion":2,"manifests":[{"digest":"sha256:../x"}]}`), []byte(``), "x")
	f.Fuzz(func(t *testing.T, layout, index, blob []byte, tag string) {
		m := memoryFiles{t, map[string][]byte{"oci-layout": layout, "index.json": index}}
		for name, data := range files {
			if strings.HasPrefix(name, "blobs/") {
				m.files[name] = data
			}
		}
		d := digest.FromBytes(blob)
		m.files["blobs/sha256/"+d.Encoded()] = blob
		for _, r := range []ref.Ref{{Kind: ref.OCILayout, Path: "x", Tag: tag}, {Kind: ref.OCILayout, Path: "x", Digest: d}} {
			img, err := openLayout(m, r)
			if err != nil {
				continue
			}
			raw, err := img.Manifest(t.Context(), img.Root())
			if err != nil {
				continue
			}
			require.Equal(t, img.Root().Digest, img.Root().Digest.Algorithm().FromBytes(raw))
			_, _ = Resolve(t.Context(), img, platform.Platform{OS: "linux", Arch: "amd64"})
		}
	})
}

// FuzzDockerManifest: manifest.json and a config are anything.
func FuzzDockerManifest(f *testing.F) {
	c := testimage.Image("linux/amd64", testimage.Layer(testimage.File("f", "1")))
	f.Add([]byte(`[{"Config":"c","RepoTags":["a:1"],"Layers":["l"]}]`), c.Config, c.Layers[0].Tar, "1")
	f.Add([]byte(`[{"Config":"c","RepoTags":null,"Layers":["../l","/l"]}]`), []byte("{}"), []byte("\x1f\x8b\x08"), "")
	f.Add([]byte(`[{"Config":"./c","Layers":[]},{"Config":"c","Layers":null}]`), []byte(`{"os":"linux","architecture":"arm"}`), []byte{}, "")
	f.Fuzz(func(t *testing.T, manifest, config, layer []byte, tag string) {
		m := memoryFiles{t, map[string][]byte{"manifest.json": manifest, "c": config, "l": layer}}
		img, err := openDocker(t.Context(), m, ref.Ref{Kind: ref.DockerArchive, Path: "x", Tag: tag})
		if err != nil {
			return
		}
		r, err := Resolve(t.Context(), img, platform.Platform{})
		require.NoError(t, err, "the manifest that was made is right")
		require.Equal(t, config, r.Config)
		for _, l := range r.Manifest.Layers {
			if data, err := readAll(t.Context(), img, l); err == nil {
				require.Equal(t, l.Digest, digest.FromBytes(data))
			}
		}
	})
}

// FuzzTar: an archive is anything. Members lie inside of it.
func FuzzTar(f *testing.F) {
	f.Add(tarOf(f, file("a", "1"), file("b/c", "22")))
	f.Add(tarOf(f, hdr('2', "a", "b"), hdr('1', "b", "a"), file(strings.Repeat("d/", 80)+"f", "")))
	f.Add(gzipped(f, tarOf(f, file("a", "1"))))
	f.Add([]byte("\x28\xb5\x2f\xfd"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		name := filepath.Join(dir, "archive")
		require.NoError(t, os.WriteFile(name, data, 0o600))
		f, err := openTar(t.Context(), name, dir)
		if err != nil {
			return
		}
		defer f.Close()
		for name := range f.(*tarFiles).members {
			require.True(t, fs.ValidPath(name), "%q", name)
			rc, size, err := f.open(name)
			if err != nil {
				continue
			}
			n, err := io.Copy(io.Discard, rc)
			require.NoError(t, err)
			require.Equal(t, size, n, "nothing is cut")
		}
	})
}
