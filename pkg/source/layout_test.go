package source

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// blobFile is where a layout has a blob.
func blobFile(dir string, d digest.Digest) string {
	return filepath.Join(dir, "blobs", d.Algorithm().String(), d.Encoded())
}

// entriesOf is an index.json.
func entriesOf(t testing.TB, entries ...ocispec.Descriptor) []byte {
	t.Helper()
	if entries == nil {
		entries = []ocispec.Descriptor{}
	}
	raw, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": entries})
	require.NoError(t, err)
	return raw
}

func named(d ocispec.Descriptor, annotations ...string) ocispec.Descriptor {
	d.Annotations = map[string]string{}
	for i := 0; i < len(annotations); i += 2 {
		d.Annotations[annotations[i]] = annotations[i+1]
	}
	return d
}

func TestChoose(t *testing.T) {
	const refName, full = ocispec.AnnotationRefName, annotationContainerdName
	a, b := testimage.Image("linux/amd64"), testimage.Image("linux/arm64")
	for name, tc := range map[string]struct {
		entries []ocispec.Descriptor
		suffix  string
		want    digest.Digest
		wantErr error
		text    string
	}{
		"the only one":                 {entries: []ocispec.Descriptor{a.Desc}, want: a.Desc.Digest},
		"the only one, named":          {entries: []ocispec.Descriptor{named(a.Desc, refName, "x")}, want: a.Desc.Digest},
		"one under two names":          {entries: []ocispec.Descriptor{named(a.Desc, refName, "x"), named(a.Desc, refName, "y")}, want: a.Desc.Digest},
		"none":                         {wantErr: ErrNotFound},
		"none with this tag":           {entries: []ocispec.Descriptor{named(a.Desc, refName, "x"), b.Desc}, suffix: ":z", wantErr: ErrNotFound, text: `"x", "@` + b.Desc.Digest.String()},
		"two":                          {entries: []ocispec.Descriptor{named(a.Desc, refName, "x"), named(b.Desc, refName, "y")}, wantErr: ErrAmbiguous, text: `"x", "y"`},
		"by tag":                       {entries: []ocispec.Descriptor{named(a.Desc, refName, "x"), named(b.Desc, refName, "y")}, suffix: ":y", want: b.Desc.Digest},
		"by the tag of a full name":    {entries: []ocispec.Descriptor{named(a.Desc, refName, "example.com:5000/app:x"), named(b.Desc, refName, "y")}, suffix: ":x", want: a.Desc.Digest},
		"by containerd's name":         {entries: []ocispec.Descriptor{named(a.Desc, full, "docker.io/library/app:x"), b.Desc}, suffix: ":x", want: a.Desc.Digest},
		"the exact name comes first":   {entries: []ocispec.Descriptor{named(a.Desc, refName, "app:x"), named(b.Desc, refName, "x")}, suffix: ":x", want: b.Desc.Digest},
		"a port is no tag":             {entries: []ocispec.Descriptor{named(a.Desc, refName, "example.com:5000/app")}, suffix: ":5000", wantErr: ErrNotFound},
		"G11 two of one name":          {entries: []ocispec.Descriptor{named(a.Desc, refName, "x"), named(b.Desc, refName, "x")}, suffix: ":x", wantErr: ErrAmbiguous},
		"by digest":                    {entries: []ocispec.Descriptor{a.Desc, b.Desc}, suffix: "@" + b.Desc.Digest.String(), want: b.Desc.Digest},
		"by the digest of a blob":      {entries: []ocispec.Descriptor{a.Desc}, suffix: "@" + b.Desc.Digest.String(), want: b.Desc.Digest},
		"by a digest that is absent":   {entries: []ocispec.Descriptor{a.Desc}, suffix: "@" + digest.FromString("x").String(), wantErr: ErrNotFound, text: a.Desc.Digest.String()},
		"by the digest of no image":    {entries: []ocispec.Descriptor{a.Desc}, suffix: "@" + digest.FromBytes(a.Config).String(), wantErr: ErrInvalid},
		"B17 an escape in a name":      {entries: []ocispec.Descriptor{named(a.Desc, refName, "\x1b[31m")}, suffix: ":z", wantErr: ErrNotFound, text: `\x1b[31m`},
		"the tag stands with a digest": {entries: []ocispec.Descriptor{named(a.Desc, refName, "x"), b.Desc}, suffix: ":x@" + b.Desc.Digest.String(), want: b.Desc.Digest},
	} {
		t.Run(name, func(t *testing.T) {
			dir := layoutOf(t, map[string]testimage.Content{"a": a, "b": b})
			require.NoError(t, os.WriteFile(filepath.Join(dir, "index.json"), entriesOf(t, tc.entries...), 0o600))
			img, err := open(t, "oci:"+dir+tc.suffix)
			require.ErrorIs(t, err, tc.wantErr)
			if tc.wantErr != nil {
				require.ErrorContains(t, err, tc.text)
				return
			}
			assert.Equal(t, tc.want, img.Root().Digest)
			assert.Equal(t, ocispec.MediaTypeImageManifest, img.Root().MediaType)
			assert.Empty(t, img.Root().Annotations)
		})
	}
}

// TestLayoutDamage breaks a layout of one image. Each break is found when the image is opened, resolved or read.
func TestLayoutDamage(t *testing.T) {
	content := testimage.Image("linux/amd64", testimage.Layer(testimage.File("f", "data")))
	config := digest.FromBytes(content.Config)
	layer := content.Layers[0].DiffID()
	write := func(name, data string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600))
		}
	}
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, name))) }
	}
	blob := func(d digest.Digest, change func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			data, err := os.ReadFile(blobFile(dir, d))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(blobFile(dir, d), change(data), 0o600))
		}
	}
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	cut := func(b []byte) []byte { return b[:len(b)-1] }
	grow := func(b []byte) []byte { return append(b, ' ') }
	empty := func([]byte) []byte { return nil }

	for name, tc := range map[string]struct {
		damage  func(t *testing.T, dir string)
		wantErr error
	}{
		"G11 oci-layout missing":       {remove("oci-layout"), ErrInvalid},
		"G11 oci-layout of the future": {write("oci-layout", `{"imageLayoutVersion":"2.0.0"}`), ErrInvalid},
		"oci-layout without version":   {write("oci-layout", `{}`), ErrInvalid},
		"oci-layout in other case":     {write("oci-layout", `{"ImageLayoutVersion":"1.0.0"}`), ErrInvalid},
		"oci-layout is no JSON":        {write("oci-layout", ``), ErrInvalid},
		"index.json missing":           {remove("index.json"), ErrInvalid},
		"index.json empty":             {write("index.json", ``), ErrInvalid},
		"B10 index.json repeats":       {write("index.json", `{"schemaVersion":2,"manifests":[],"manifests":[]}`), ErrInvalid},
		"B09 index.json too big":       {write("index.json", strings.Repeat(" ", 5<<20)+`{}`), ErrInvalid},
		"B01 manifest flipped":         {blob(content.Desc.Digest, flip), ErrCorrupt},
		"B01 config flipped":           {blob(config, flip), ErrCorrupt},
		"D11 layer flipped":            {blob(layer, flip), ErrCorrupt},
		"D11 layer cut":                {blob(layer, cut), ErrCorrupt},
		"D11 layer empty":              {blob(layer, empty), ErrCorrupt},
		"B02 layer too long":           {blob(layer, grow), ErrCorrupt},
		"B02 manifest too long":        {blob(content.Desc.Digest, grow), ErrCorrupt},
		"manifest missing":             {remove("blobs/sha256/" + content.Desc.Digest.Encoded()), ErrNotFound},
		"config missing":               {remove("blobs/sha256/" + config.Encoded()), ErrNotFound},
		"layer missing":                {remove("blobs/sha256/" + layer.Encoded()), ErrNotFound},
		"D11 layer a directory": {func(t *testing.T, dir string) {
			require.NoError(t, os.Remove(blobFile(dir, layer)))
			require.NoError(t, os.Mkdir(blobFile(dir, layer), 0o755))
		}, ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			dir := layoutOf(t, map[string]testimage.Content{"": content})
			tc.damage(t, dir)
			require.ErrorIs(t, readEverything(t, "oci:"+dir), tc.wantErr)
		})
	}
}

// TestBlobOfOtherSize: B02, a blob of another size is refused before a byte of it is read.
func TestBlobOfOtherSize(t *testing.T) {
	content := testimage.Image("linux/amd64")
	img, err := open(t, "oci:"+layoutOf(t, map[string]testimage.Content{"": content}))
	require.NoError(t, err)
	for _, change := range []int64{-1, 1} {
		desc := content.Desc
		desc.Size += change
		_, err = img.Blob(t.Context(), desc)
		require.ErrorIs(t, err, ErrCorrupt)
	}
}

// TestBlobTooBigToBeAManifest: B09, also where no descriptor gave a size.
func TestBlobTooBigToBeAManifest(t *testing.T) {
	big := make([]byte, 5<<20)
	dir := layoutOf(t, map[string]testimage.Content{"": testimage.Image("linux/amd64")})
	require.NoError(t, os.WriteFile(blobFile(dir, digest.FromBytes(big)), big, 0o600))
	_, err := open(t, "oci:"+dir+"@"+digest.FromBytes(big).String())
	require.ErrorIs(t, err, ErrInvalid)
}

// readEverything opens an image for linux/amd64 and reads all of it.
func readEverything(t testing.TB, name string) error {
	t.Helper()
	img, err := (&Opener{}).Open(t.Context(), asRef(t, name))
	if err != nil {
		return err
	}
	defer img.Close()
	r, err := Resolve(t.Context(), img, platform.Platform{OS: "linux", Arch: "amd64"})
	if err != nil {
		return err
	}
	for _, l := range r.Manifest.Layers {
		if _, err := readAll(t.Context(), img, l); err != nil {
			return err
		}
	}
	return nil
}

// TestLayoutLinks: what a link in a layout leads to is not part of it, wherever that is.
func TestLayoutLinks(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("links need a privilege on Windows")
	}
	content := testimage.Image("linux/amd64", testimage.Layer(testimage.File("f", "data")))
	layer := "blobs/sha256/" + content.Layers[0].DiffID().Encoded()
	for name, tc := range map[string]struct {
		file   string // what becomes a link
		inside bool   // to a place in the layout
	}{
		"G11 index.json":           {file: "index.json"},
		"G11 index.json, inside":   {file: "index.json", inside: true},
		"oci-layout":               {file: "oci-layout"},
		"D11 a blob":               {file: layer},
		"D11 a blob, inside":       {file: layer, inside: true},
		"the directory of blobs":   {file: "blobs"},
		"an algorithm's directory": {file: "blobs/sha256", inside: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := layoutOf(t, map[string]testimage.Content{"": content})
			file := filepath.Join(dir, tc.file)
			target := filepath.Join(t.TempDir(), "target")
			if tc.inside {
				target = filepath.Join(dir, "target")
			}
			require.NoError(t, os.Rename(file, target))
			if tc.inside {
				rel, err := filepath.Rel(filepath.Dir(file), target)
				require.NoError(t, err)
				target = rel
			}
			require.NoError(t, os.Symlink(target, file))
			require.ErrorIs(t, readEverything(t, "oci:"+dir), ErrInvalid)
		})
	}
}
