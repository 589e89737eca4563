package source

import (
	"bytes"
	"compress/gzip"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

func zstded(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	return w.EncodeAll(data, nil)
}

// TestEveryPlace reads the same index from every kind of place.
func TestEveryPlace(t *testing.T) {
	idx := three()
	named := map[string]testimage.Content{"1.0": idx}
	archive := testimage.OCIArchive(named)
	relative := layoutOf(t, named)
	reg, regRef, _ := serve(t, idx)
	st := openStoreWith(t, map[string]testimage.Content{"app:1.0": idx})

	for name, tc := range map[string]struct {
		o   *Opener
		ref string
	}{
		"registry":             {reg, regRef},
		"registry by digest":   {reg, strings.TrimSuffix(regRef, ":latest") + "@" + idx.Desc.Digest.String()},
		"store":                {&Opener{Store: st}, "store:app:1.0"},
		"store by digest":      {&Opener{Store: st}, "store:app@" + idx.Desc.Digest.String()},
		"layout":               {&Opener{}, "oci:" + layoutOf(t, named)},
		"layout by tag":        {&Opener{}, "oci:" + layoutOf(t, named) + ":1.0"},
		"layout by digest":     {&Opener{}, "oci:" + layoutOf(t, named) + "@" + idx.Desc.Digest.String()},
		"archive":              {&Opener{}, "oci-archive:" + fileOf(t, archive)},
		"archive by tag":       {&Opener{}, "oci-archive:" + fileOf(t, archive) + ":1.0"},
		"archive, gzip":        {&Opener{Spool: t.TempDir()}, "oci-archive:" + fileOf(t, gzipped(t, archive))},
		"archive, zstd":        {&Opener{}, "oci-archive:" + fileOf(t, zstded(t, archive))},
		"as a docker archive":  {&Opener{}, "docker-archive:" + fileOf(t, archive) + ":1.0"},
		"relative to Dir":      {&Opener{Dir: filepath.Dir(relative)}, "oci:" + filepath.Base(relative)},
		"layout without a tag": {&Opener{}, "oci:" + layoutOf(t, map[string]testimage.Content{"": idx})},
	} {
		t.Run(name, func(t *testing.T) {
			r := asRef(t, tc.ref)
			img, err := tc.o.Open(t.Context(), r)
			require.NoError(t, err)
			defer func() { require.NoError(t, img.Close()) }()
			assert.Equal(t, idx.Desc, img.Root())
			assert.Equal(t, r, img.Ref())
			raw, err := img.Manifest(t.Context(), img.Root())
			require.NoError(t, err)
			assert.Equal(t, string(idx.Raw()), string(raw))

			for p, arch := range map[string]string{"linux/amd64": "amd64", "linux/arm64": "arm64", "linux/arm/v7": "arm"} {
				want, err := platform.Parse(p)
				require.NoError(t, err)
				got, err := Resolve(t.Context(), img, want)
				require.NoError(t, err)
				assert.Equal(t, want, got.Platform)
				assert.Equal(t, idx.Blobs[got.Desc.Digest], got.Raw)
				assert.Equal(t, idx.Blobs[got.Manifest.Config.Digest], got.Config)
				require.Len(t, got.DiffIDs, 2)
				require.Len(t, got.Manifest.Layers, 2)
				assert.Equal(t, testimage.Layer(testimage.File("arch", arch)).DiffID(), got.DiffIDs[1])
				for _, l := range got.Manifest.Layers {
					data, err := readAll(t.Context(), img, l)
					require.NoError(t, err)
					assert.Equal(t, l.Digest, digest.FromBytes(data))
				}
			}
			_, err = Resolve(t.Context(), img, platform.Platform{OS: "linux", Arch: "s390x"})
			require.ErrorIs(t, err, ErrNotFound)
			require.ErrorContains(t, err, "linux/amd64, linux/arm64, linux/arm/v7", "it lists what there is")

			_, err = readAll(t.Context(), img, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("absent"), Size: 6})
			require.ErrorIs(t, err, ErrNotFound)
			_, err = img.Manifest(t.Context(), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("absent"), Size: 6})
			require.ErrorIs(t, err, ErrNotFound)
		})
	}
}

// TestDigestsThatArePaths: B15, no digest becomes a path or a URL before it is checked.
func TestDigestsThatArePaths(t *testing.T) {
	idx := three()
	reg, regRef, fakeReg := serve(t, idx)
	layout := layoutOf(t, map[string]testimage.Content{"": idx})
	secret := filepath.Join(filepath.Dir(layout), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("secret"), 0o600))
	st := openStoreWith(t, map[string]testimage.Content{"app:1": idx})
	for name, tc := range map[string]struct {
		o   *Opener
		ref string
	}{
		"registry": {reg, regRef},
		"layout":   {&Opener{}, "oci:" + layout},
		"store":    {&Opener{Store: st}, "store:app:1"},
	} {
		t.Run(name, func(t *testing.T) {
			img, err := tc.o.Open(t.Context(), asRef(t, tc.ref))
			require.NoError(t, err)
			defer img.Close()
			before := fakeReg.requests.Load()
			for _, d := range []digest.Digest{"sha256:../../../secret", "../secret:x", "sha256:", ":", "", "sha256:" + digest.Digest(strings.Repeat("A", 64)), "blake3:../../../secret"} {
				_, err := img.Blob(t.Context(), ocispec.Descriptor{Digest: d})
				require.ErrorIs(t, err, ErrInvalid, "%q", d)
				_, err = img.Manifest(t.Context(), ocispec.Descriptor{Digest: d})
				require.ErrorIs(t, err, ErrInvalid, "%q", d)
			}
			assert.Equal(t, before, fakeReg.requests.Load())
			_, err = readAll(t.Context(), img, ocispec.Descriptor{Digest: digest.Digest("blake3:" + strings.Repeat("0", 64)), Size: 3})
			require.Error(t, err, "B16: nothing can be verified against it")
		})
	}
}

func TestOpenNothing(t *testing.T) {
	dir := t.TempDir()
	file := fileOf(t, []byte("no tar"))
	st := openStoreWith(t, map[string]testimage.Content{"app:1": three(), "other:2": three()})
	for name, tc := range map[string]struct {
		o       Opener
		ref     string
		wantErr error
		text    string
	}{
		"no directory":       {ref: "oci:" + dir + "/absent", wantErr: ErrNotFound},
		"no file":            {ref: "oci-archive:" + dir + "/absent", wantErr: ErrNotFound},
		"no docker file":     {ref: "docker-archive:" + dir + "/absent", wantErr: ErrNotFound},
		"not in the store":   {o: Opener{Store: st}, ref: "store:app:2", wantErr: ErrNotFound, text: "app:1, other:2"},
		"digest not there":   {o: Opener{Store: st}, ref: "store:app@" + digest.FromString("x").String(), wantErr: ErrNotFound},
		"a file as a layout": {ref: "oci:" + file, wantErr: ErrInvalid, text: "oci-archive:"},
		"a layout as a file": {ref: "oci-archive:" + dir, wantErr: ErrInvalid, text: "oci:"},
		"an empty directory": {ref: "oci:" + dir, wantErr: ErrInvalid, text: "oci-layout"},
		"no tar":             {ref: "oci-archive:" + file, wantErr: ErrInvalid},
		"an empty file":      {ref: "docker-archive:" + fileOf(t, nil), wantErr: ErrInvalid, text: "manifest.json"},
		"no registry here":   {ref: "example.com/app", wantErr: errors.ErrUnsupported},
		"no store here":      {ref: "store:app", wantErr: errors.ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tc.o.Open(t.Context(), asRef(t, tc.ref))
			require.ErrorIs(t, err, tc.wantErr)
			require.ErrorContains(t, err, tc.text)
			require.ErrorContains(t, err, asRef(t, tc.ref).String(), "it names the reference")
		})
	}
	_, err := (&Opener{}).Open(t.Context(), ref.Ref{Kind: "x"})
	require.ErrorIs(t, err, errors.ErrUnsupported)
}

// TestRegistryRequests: everything is fetched once, and by digest after the tag (B23).
func TestRegistryRequests(t *testing.T) {
	idx := three()
	o, name, reg := serve(t, idx)
	byTag := 0
	reg.change = func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/latest") {
			byTag++
		}
		return false
	}
	img, err := o.Open(t.Context(), asRef(t, name))
	require.NoError(t, err)
	assert.Equal(t, int64(1), reg.requests.Load())
	for range 3 {
		for _, p := range []string{"amd64", "arm64"} {
			_, err = Resolve(t.Context(), img, platform.Platform{OS: "linux", Arch: p})
			require.NoError(t, err)
		}
	}
	assert.Equal(t, int64(1+2*2), reg.requests.Load(), "the index, and manifest and config of two platforms")
	assert.Equal(t, 1, byTag)
}

func TestRegistryFaults(t *testing.T) {
	idx := three()
	o, name, reg := serve(t, idx)
	img, err := o.Open(t.Context(), asRef(t, name))
	require.NoError(t, err)
	amd64 := platform.Platform{OS: "linux", Arch: "amd64"}

	reg.change = func(w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(http.StatusForbidden)
		return true
	}
	_, err = Resolve(t.Context(), img, amd64)
	require.ErrorIs(t, err, registry.ErrDenied, "kinds of errors come through")
	require.NotErrorIs(t, err, ErrNotFound)

	reg.change = nil
	delete(idx.Blobs, idx.Desc.Digest)
	_, err = o.Open(t.Context(), asRef(t, name))
	require.ErrorIs(t, err, ErrNotFound)
	require.ErrorIs(t, err, registry.ErrNotFound)

	// B02: the size in the descriptor is not the document's.
	resolved, err := Resolve(t.Context(), img, amd64)
	require.NoError(t, err)
	resolved.Desc.Size++
	_, err = img.Manifest(t.Context(), resolved.Desc)
	require.ErrorIs(t, err, ErrCorrupt)
	_, err = img.Manifest(t.Context(), ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("x"), Size: 5 << 20})
	require.ErrorIs(t, err, ErrInvalid, "B09: too big to be read")
}

// TestRegistryOpaque: a manifest of a type not known here is among the manifests (B05).
func TestRegistryOpaque(t *testing.T) {
	c := testimage.Image("linux/amd64")
	o, name, _ := serve(t, c)
	img, err := o.Open(t.Context(), asRef(t, name))
	require.NoError(t, err)
	other := testimage.Document("application/vnd.new+json", []byte(`{"schemaVersion":2,"new":1}`))
	c.Blobs[other.Desc.Digest] = other.Raw()
	raw, err := img.Manifest(t.Context(), other.Desc)
	require.NoError(t, err)
	assert.Equal(t, string(other.Raw()), string(raw))
}
