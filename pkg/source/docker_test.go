package source

import (
	"archive/tar"
	"encoding/json"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// oldImage is an image as docker save wrote it before Docker 25.
func oldImage() testimage.Content {
	return testimage.Image("linux/amd64", testimage.Layer(testimage.File("a", "1")), testimage.Layer(testimage.File("b", "2")))
}

func TestDockerArchive(t *testing.T) {
	one, two := oldImage(), testimage.Image("linux/arm64", testimage.Layer(testimage.File("c", "3")))
	archive := testimage.DockerArchive(map[string]testimage.Content{"app:1.0": one, "example.com:5000/other:2.0": two})
	single := testimage.DockerArchive(map[string]testimage.Content{"app:1.0": one})
	for name, tc := range map[string]struct {
		data    []byte
		tag     string
		want    testimage.Content
		wantErr error
		text    string
	}{
		"the only one":   {data: single, want: one},
		"by tag":         {data: archive, tag: ":1.0", want: one},
		"the other":      {data: archive, tag: ":2.0", want: two},
		"gzip":           {data: gzipped(t, single), want: one},
		"zstd":           {data: zstded(t, single), want: one},
		"which":          {data: archive, wantErr: ErrAmbiguous, text: `"app:1.0", "example.com:5000/other:2.0"`},
		"no such tag":    {data: single, tag: ":2.0", wantErr: ErrNotFound, text: `"app:1.0"`},
		"a port, no tag": {data: archive, tag: ":5000", wantErr: ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			img, err := open(t, "docker-archive:"+fileOf(t, tc.data)+tc.tag)
			require.ErrorIs(t, err, tc.wantErr)
			if tc.wantErr != nil {
				require.ErrorContains(t, err, tc.text)
				return
			}
			r, err := Resolve(t.Context(), img, platform.Platform{})
			require.NoError(t, err)
			assert.Equal(t, string(tc.want.Config), string(r.Config))
			assert.Equal(t, ocispec.MediaTypeImageManifest, img.Root().MediaType)
			assert.Equal(t, img.Root().Digest, digest.FromBytes(r.Raw))
			require.Len(t, r.Manifest.Layers, len(tc.want.Layers))
			for i, l := range r.Manifest.Layers {
				assert.Equal(t, ocispec.MediaTypeImageLayer, l.MediaType)
				assert.Equal(t, r.DiffIDs[i], l.Digest)
				data, err := readAll(t.Context(), img, l)
				require.NoError(t, err)
				assert.Equal(t, tc.want.Layers[i].Tar, data)
			}
			config, err := readAll(t.Context(), img, r.Manifest.Config)
			if err == nil { // as a blob it is only there under its file's name
				assert.Equal(t, tc.want.Config, config)
			}
			_, err = Resolve(t.Context(), img, platform.Platform{OS: "linux", Arch: "s390x"})
			require.ErrorIs(t, err, ErrNotFound)
		})
	}
}

// TestDockerArchiveCompressedLayers: other tools put compressed layers into such archives.
func TestDockerArchiveCompressedLayers(t *testing.T) {
	c := oldImage()
	entry := dockerEntry{Config: "sha256:" + digest.FromBytes(c.Config).Encoded(), RepoTags: []string{"app:1"}, Layers: []string{"one.tar.gz", "two"}}
	img, err := open(t, "docker-archive:"+fileOf(t, dockerArchive(t, []dockerEntry{entry},
		file(entry.Config, string(c.Config)),
		file("one.tar.gz", string(c.Layers[0].Gzip().Blob())),
		file("two", string(c.Layers[1].Zstd().Blob())))))
	require.NoError(t, err)
	r, err := Resolve(t.Context(), img, platform.Platform{OS: "linux", Arch: "amd64"})
	require.NoError(t, err)
	assert.Equal(t, ocispec.MediaTypeImageLayerGzip, r.Manifest.Layers[0].MediaType)
	assert.Equal(t, ocispec.MediaTypeImageLayerZstd, r.Manifest.Layers[1].MediaType)
	for i, l := range []testimage.LayerData{c.Layers[0].Gzip(), c.Layers[1].Zstd()} {
		got, err := readAll(t.Context(), img, r.Manifest.Layers[i])
		require.NoError(t, err)
		assert.Equal(t, l.Blob(), got)
	}
}

// TestDockerArchiveBoth: Docker 25 and later write an OCI layout with a manifest.json beside it: the image's own
// manifest and digest are kept.
func TestDockerArchiveBoth(t *testing.T) {
	idx := three()
	var members []member
	dir := layoutOf(t, map[string]testimage.Content{"1.0": idx})
	f, err := openDir(dir)
	require.NoError(t, err)
	defer f.Close()
	for _, name := range []string{"oci-layout", "index.json"} {
		raw, err := readFile(f, name)
		require.NoError(t, err)
		members = append(members, file(name, string(raw)))
	}
	for d, data := range idx.Blobs {
		members = append(members, file("blobs/sha256/"+d.Encoded(), string(data)))
	}
	old := oldImage()
	config := digest.FromBytes(old.Config).Encoded() + ".json"
	members = append(members, file(config, string(old.Config)), file("l0", string(old.Layers[0].Tar)), file("l1", string(old.Layers[1].Tar)))
	archive := fileOf(t, dockerArchive(t, []dockerEntry{{Config: config, RepoTags: []string{"old:3.0"}, Layers: []string{"l0", "l1"}}}, members...))

	img, err := open(t, "docker-archive:"+archive+":1.0")
	require.NoError(t, err)
	assert.Equal(t, idx.Desc, img.Root())

	img, err = open(t, "docker-archive:"+archive+":3.0")
	require.NoError(t, err, "what only manifest.json knows is found as well")
	r, err := Resolve(t.Context(), img, platform.Platform{})
	require.NoError(t, err)
	assert.Equal(t, string(old.Config), string(r.Config))
}

// dockerArchive is a tar with a manifest.json.
func dockerArchive(t testing.TB, entries []dockerEntry, members ...member) []byte {
	t.Helper()
	raw, err := json.Marshal(entries)
	require.NoError(t, err)
	return tarOf(t, append([]member{file(dockerManifestFile, string(raw))}, members...)...)
}

func TestDockerArchiveDamage(t *testing.T) {
	c := oldImage()
	config := digest.FromBytes(c.Config).Encoded() + ".json"
	l0, l1 := file("l0", string(c.Layers[0].Tar)), file("l1", string(c.Layers[1].Tar))
	right := file(config, string(c.Config))
	entry := func(layers ...string) []dockerEntry {
		return []dockerEntry{{Config: config, RepoTags: []string{"a:1"}, Layers: layers}}
	}
	raw := func(manifest string, members ...member) []byte {
		return tarOf(t, append([]member{file(dockerManifestFile, manifest)}, members...)...)
	}
	for name, tc := range map[string]struct {
		data    []byte
		wantErr error
	}{
		"G10 layer outside":         {dockerArchive(t, entry("l0", "../../etc/shadow"), right, l0, l1), ErrInvalid},
		"G10 absolute layer":        {dockerArchive(t, entry("l0", "/etc/shadow"), right, l0, l1), ErrInvalid},
		"G10 config outside":        {dockerArchive(t, []dockerEntry{{Config: "../c"}}, right), ErrInvalid},
		"G10 cycle of links":        {dockerArchive(t, entry("l0", "x"), right, l0, hdr(tar.TypeSymlink, "x", "y"), hdr(tar.TypeSymlink, "y", "x")), ErrInvalid},
		"G10 two manifest.json":     {dockerArchive(t, entry("l0", "l1"), right, l0, l1, file("./manifest.json", "[]")), ErrInvalid},
		"no manifest.json":          {tarOf(t, right, l0, l1), ErrInvalid},
		"manifest.json empty":       {raw(""), ErrInvalid},
		"manifest.json null":        {raw("null"), ErrInvalid},
		"manifest.json an object":   {raw("{}"), ErrInvalid},
		"no images":                 {raw("[]"), ErrNotFound},
		"no config":                 {raw(`[{"Layers":[]}]`), ErrInvalid},
		"B10 repeated key":          {raw(`[{"Config":"a","Config":"b"}]`), ErrInvalid},
		"B10 other case":            {raw(`[{"config":"a"}]`), ErrInvalid},
		"config missing":            {dockerArchive(t, entry("l0", "l1"), l0, l1), ErrInvalid},
		"layer missing":             {dockerArchive(t, entry("l0", "l1"), right, l0), ErrInvalid},
		"A26 fewer layers":          {dockerArchive(t, entry("l0"), right, l0), ErrInvalid},
		"A26 more layers":           {dockerArchive(t, entry("l0", "l1", "l1"), right, l0, l1), ErrInvalid},
		"one layer for two diffIDs": {dockerArchive(t, entry("l0", "l0"), right, l0, l1), ErrInvalid},
		"layers swapped":            {dockerArchive(t, entry("l1", "l0"), right, l0, l1), ErrCorrupt},
		"B01 config flipped":        {dockerArchive(t, entry("l0", "l1"), file(config, string(c.Config)+" "), l0, l1), ErrCorrupt},
		"layer compressed by xz":    {dockerArchive(t, entry("l0", "l1"), right, l0, file("l1", "\xfd7zXZ\x00")), ErrInvalid},
		"B12 no platform":           {dockerArchive(t, []dockerEntry{{Config: "c", Layers: nil}}, file("c", "{}")), ErrInvalid},
		"config is no config":       {dockerArchive(t, []dockerEntry{{Config: "c", Layers: nil}}, file("c", "[]")), ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			require.ErrorIs(t, readEverything(t, "docker-archive:"+fileOf(t, tc.data)), tc.wantErr)
		})
	}
}

// TestDockerArchiveLinks: before Docker 25 a layer that two images share was a link.
func TestDockerArchiveLinks(t *testing.T) {
	c := oldImage()
	config := digest.FromBytes(c.Config).Encoded() + ".json"
	data := dockerArchive(t, []dockerEntry{{Config: config, Layers: []string{"b/layer.tar", "c/layer.tar"}}},
		file(config, string(c.Config)), file("a/layer.tar", string(c.Layers[0].Tar)),
		hdr(tar.TypeSymlink, "b/layer.tar", "../a/layer.tar"), file("c/layer.tar", string(c.Layers[1].Tar)))
	require.NoError(t, readEverything(t, "docker-archive:"+fileOf(t, data)))
}
