package output

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// blobs is content in memory. Some of it can be made to fail.
type blobs struct {
	data map[digest.Digest][]byte
	fail map[digest.Digest]error // after half of the bytes
}

func (b blobs) Open(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	data, ok := b.data[desc.Digest]
	if !ok {
		return nil, store.ErrNotFound
	}
	if err := b.fail[desc.Digest]; err != nil {
		return io.NopCloser(io.MultiReader(bytes.NewReader(data[:len(data)/2]), failing{err})), nil
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// productOf is what a build of these images is, an index when there are several.
func productOf(t testing.TB, names []string, images ...testimage.Content) Product {
	t.Helper()
	all := blobs{data: map[digest.Digest][]byte{}, fail: map[digest.Digest]error{}}
	p := Product{Content: all, Mounts: map[digest.Digest][]ref.Ref{}}
	byPlatform := map[platform.Platform]testimage.Content{}
	for _, c := range images {
		m, err := index.ParseManifest(c.Raw())
		require.NoError(t, err)
		pl, err := platform.FromOCI(*c.Desc.Platform)
		require.NoError(t, err)
		byPlatform[pl] = c
		img := image.Image{Platform: pl, Desc: c.Desc, Manifest: c.Raw(), Config: c.Config, CfgDesc: m.Config, Layers: m.Layers}
		for _, l := range c.Layers {
			img.DiffIDs = append(img.DiffIDs, l.DiffID())
		}
		p.Images = append(p.Images, img)
	}
	root := images[0]
	if len(images) > 1 {
		root = testimage.Index(images...)
	}
	p.Root, p.Raw = root.Desc, root.Raw()
	for d, data := range root.Blobs {
		all.data[d] = data
	}
	for _, n := range names {
		r, err := ref.ParseTag(n)
		require.NoError(t, err)
		p.Names = append(p.Names, r)
	}
	p.View = func(ctx context.Context, img image.Image) (*layer.View, error) {
		var sources []layer.Source
		for _, l := range byPlatform[img.Platform].Layers {
			toc, err := layer.ReadTOC(ctx, bytes.NewReader(l.Tar), layer.Limits{})
			if err != nil {
				return nil, err
			}
			sources = append(sources, layer.Source{TOC: toc, Open: func() (layer.ReaderAtCloser, error) {
				return readerAt{bytes.NewReader(l.Tar)}, nil
			}})
		}
		return layer.NewView(sources)
	}
	return p
}

type readerAt struct{ *bytes.Reader }

func (readerAt) Close() error { return nil }

// breakContent makes a layer fail halfway: of an image's content, and of its view.
func breakContent(p *Product, err error) {
	content, _ := p.Content.(blobs)
	layers := p.Images[len(p.Images)-1].Layers
	content.fail[layers[len(layers)-1].Digest] = err
	view := p.View
	p.View = func(ctx context.Context, img image.Image) (*layer.View, error) {
		if img.Desc.Digest == p.Images[len(p.Images)-1].Desc.Digest {
			return nil, err
		}
		return view(ctx, img)
	}
}

var errBroken = errors.New("broken")

// base is a small root file system.
func base(text string) testimage.LayerData {
	return testimage.Layer(
		testimage.Dir("etc"),
		testimage.File("etc/motd", text),
		testimage.Dir("usr"),
		testimage.Dir("usr/bin"),
		testimage.Exec("usr/bin/hello", "#!/bin/sh\necho hello\n"),
		testimage.Symlink("bin", "usr/bin"),
		testimage.Hardlink("usr/bin/hi", "usr/bin/hello"),
	)
}

func amd64() testimage.Content { return testimage.Image("linux/amd64", base("amd64\n").Gzip()) }

func arm() testimage.Content {
	return testimage.Image("linux/arm/v7", base("arm\n").Gzip(), testimage.Layer(testimage.Whiteout("etc/motd"), testimage.File("new", "x")).Gzip())
}

func openStore(t testing.TB) *store.Store {
	t.Helper()
	st, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	return st
}

// open opens the destination of an -o argument.
func open(t testing.TB, env Env, arg string) Destination {
	t.Helper()
	s, err := Parse(arg)
	require.NoError(t, err)
	d, err := Open(s, env)
	require.NoError(t, err)
	return d
}

// untar reads an archive whole: directories end in "/".
func untar(t testing.TB, data []byte) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	tr := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		require.NotContains(t, out, h.Name, "twice in the archive")
		body, err := io.ReadAll(tr)
		require.NoError(t, err)
		out[h.Name] = body
	}
}

// files lists the names in a directory, not those below.
func files(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	out := []string{}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// requireBlobs holds a layout's files to what p reaches: no more, no less, and every one what its name says.
func requireBlobs(t testing.TB, got map[string][]byte, p Product) {
	t.Helper()
	c, err := closureOf(t.Context(), p)
	require.NoError(t, err)
	want := map[string]bool{}
	for _, desc := range c.all() {
		name := blobPath(desc)
		want[name] = true
		require.Contains(t, got, name)
		require.Equal(t, desc.Digest, digest.FromBytes(got[name]))
	}
	for name := range got {
		if path.Dir(path.Dir(name)) == ocispec.ImageBlobsDir && !strings.HasSuffix(name, "/") {
			require.Contains(t, want, name)
		}
	}
}

// testimageOther is an image of which nothing is in the others.
func testimageOther() testimage.Content {
	return testimage.Image("linux/amd64", testimage.Layer(testimage.File("other", "other content")).Gzip())
}
