package testimage

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// layoutFiles is an OCI layout by path, slash separated.
func layoutFiles(named map[string]Content) map[string][]byte {
	files := map[string][]byte{ocispec.ImageLayoutFile: encode(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})}
	idx := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{},
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		c := named[name]
		for d, data := range c.Blobs {
			files[path.Join(ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded())] = data
		}
		desc := c.Desc
		if name != "" {
			desc.Annotations = map[string]string{ocispec.AnnotationRefName: name}
		}
		idx.Manifests = append(idx.Manifests, desc)
	}
	files[ocispec.ImageIndexFile] = encode(idx)
	return files
}

// WriteLayout writes contents by ref name as an OCI image layout into dir, which
// is made when missing. The name "" gives an entry without a name.
func WriteLayout(t testing.TB, dir string, named map[string]Content) {
	t.Helper()
	for name, data := range layoutFiles(named) {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// OCIArchive is the same as a tar.
func OCIArchive(named map[string]Content) []byte { return tarOf(layoutFiles(named)) }

// DockerArchive is what docker save writes for images (no indexes) by tag
// ("hello:1.0"): uncompressed layers and a manifest.json.
func DockerArchive(named map[string]Content) []byte {
	type item struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	files := map[string][]byte{}
	items := []item{}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		c := named[name]
		if c.Config == nil {
			panic("testimage: a docker archive holds images only, " + name + " is none")
		}
		it := item{Config: digest.FromBytes(c.Config).Encoded() + ".json", RepoTags: []string{name}, Layers: []string{}}
		files[it.Config] = c.Config
		for _, l := range c.Layers {
			file := l.DiffID().Encoded() + "/layer.tar"
			files[file] = l.Tar
			it.Layers = append(it.Layers, file)
		}
		items = append(items, it)
	}
	files["manifest.json"] = encode(items)
	return tarOf(files)
}

// tarOf has entries for directories, too: skopeo 1.9 makes none of its own that an ordinary user could write to.
func tarOf(files map[string][]byte) []byte {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	made := map[string]bool{".": true}
	var directory func(dir string)
	directory = func(dir string) {
		if made[dir] {
			return
		}
		directory(path.Dir(dir))
		made[dir] = true
		must(w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: Epoch}), "%s", dir)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		directory(path.Dir(name))
		must(w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name])), ModTime: Epoch}), "%s", name)
		_, err := w.Write(files[name])
		must(err, "%s", name)
	}
	must(w.Close(), "archive")
	return buf.Bytes()
}

// Store is the part of *store.Store that WriteStore needs. It is an interface so
// that package store's own tests can use this package.
type Store interface {
	PutExpected(ctx context.Context, desc ocispec.Descriptor, r io.Reader) error
	SetRef(ctx context.Context, name string, desc ocispec.Descriptor) error
}

// WriteStore puts content into a store, and under name unless that is "".
func WriteStore(t testing.TB, s Store, name string, c Content) {
	t.Helper()
	for _, d := range slices.Sorted(maps.Keys(c.Blobs)) {
		desc := ocispec.Descriptor{MediaType: "test content", Digest: d, Size: int64(len(c.Blobs[d]))}
		if err := s.PutExpected(t.Context(), desc, bytes.NewReader(c.Blobs[d])); err != nil {
			t.Fatal(err)
		}
	}
	if name == "" {
		return
	}
	if err := s.SetRef(t.Context(), name, c.Desc); err != nil {
		t.Fatal(err)
	}
}
