package source

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// three is an index of three platforms whose layers are compressed in three ways, and one is shared.
func three() testimage.Content {
	shared := testimage.Layer(testimage.File("etc/motd", "hi\n"))
	own := func(p string) testimage.LayerData { return testimage.Layer(testimage.File("arch", p)) }
	return testimage.Index(
		testimage.Image("linux/amd64", shared.Gzip(), own("amd64")),
		testimage.Image("linux/arm64/v8", shared.Gzip(), own("arm64").Zstd()),
		testimage.Image("linux/arm/v7", shared.Gzip(), own("arm").Gzip()),
	)
}

// asRef parses a reference.
func asRef(t testing.TB, s string) ref.Ref {
	t.Helper()
	r, err := ref.Parse(s)
	require.NoError(t, err)
	return r
}

// open opens a reference without a registry or store.
func open(t testing.TB, s string) (Image, error) {
	t.Helper()
	img, err := (&Opener{}).Open(t.Context(), asRef(t, s))
	if err == nil {
		t.Cleanup(func() { require.NoError(t, img.Close()) })
	}
	return img, err
}

// layoutOf writes contents as a layout and returns its directory.
func layoutOf(t testing.TB, named map[string]testimage.Content) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	testimage.WriteLayout(t, dir, named)
	return dir
}

// fileOf writes bytes to a file.
func fileOf(t testing.TB, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "archive.tar")
	require.NoError(t, os.WriteFile(name, data, 0o600))
	return name
}

// openStoreWith opens a new store that holds contents by name.
func openStoreWith(t testing.TB, named map[string]testimage.Content) *store.Store {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "store"), store.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	for name, c := range named {
		testimage.WriteStore(t, st, name, c)
	}
	return st
}

// fakeRegistry serves one repository, "app", read only.
type fakeRegistry struct {
	content  testimage.Content
	requests atomic.Int64
	change   func(w http.ResponseWriter, r *http.Request) (done bool)
}

func (f *fakeRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.requests.Add(1)
	if f.change != nil && f.change(w, r) {
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/v2/app/")
	kind, name, _ := strings.Cut(path, "/")
	d := digest.Digest(name)
	if name == "latest" {
		d = f.content.Desc.Digest
	}
	data, ok := f.content.Blobs[d]
	manifest := strings.Contains(string(data), `"schemaVersion":2`)
	if !ok || manifest != (kind == "manifests") {
		http.Error(w, `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`, http.StatusNotFound)
		return
	}
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Content-Type", "application/octet-stream")
	if manifest {
		var mt string
		switch {
		case strings.Contains(string(data), `"manifests":`):
			mt = ocispec.MediaTypeImageIndex
		default:
			mt = ocispec.MediaTypeImageManifest
		}
		w.Header().Set("Content-Type", mt)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(data)))
	_, _ = w.Write(data)
}

// serve starts a registry and returns an opener and the reference of its image.
func serve(t testing.TB, c testimage.Content) (*Opener, string, *fakeRegistry) {
	t.Helper()
	f := &fakeRegistry{content: c}
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return &Opener{Registry: registry.New(registry.Options{})}, strings.TrimPrefix(s.URL, "http://") + "/app:latest", f
}

// readAll reads a blob to its end.
func readAll(ctx context.Context, img Image, desc ocispec.Descriptor) ([]byte, error) {
	rc, err := img.Blob(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}

// member is one member of a hostile tar.
type member struct {
	tar.Header
	data string
}

// tarOf writes members as they are.
func tarOf(t testing.TB, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := m.Header
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(m.data))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		require.NoError(t, w.WriteHeader(&h))
		_, err := io.WriteString(w, m.data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

// fakeImage is an Image in memory that verifies nothing.
type fakeImage struct {
	root  ocispec.Descriptor
	blobs map[digest.Digest][]byte
	err   error
}

func (f *fakeImage) Root() ocispec.Descriptor { return f.root }
func (f *fakeImage) Ref() ref.Ref             { return ref.Ref{Kind: ref.OCILayout, Path: "fake"} }
func (f *fakeImage) Close() error             { return nil }

func (f *fakeImage) Manifest(_ context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if raw, ok := f.blobs[desc.Digest]; ok {
		return raw, nil
	}
	if f.err != nil {
		return nil, f.err
	}
	return nil, ErrNotFound
}

func (f *fakeImage) Blob(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	raw, err := f.Manifest(ctx, desc)
	return io.NopCloser(bytes.NewReader(raw)), err
}

func fake(c testimage.Content) *fakeImage { return &fakeImage{root: c.Desc, blobs: c.Blobs} }
