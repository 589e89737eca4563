package edit

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/serve"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// place is a way to name images somewhere.
type place func(name string) ref.Ref

// newEnv is a registry, a store and a directory.
func newEnv(t *testing.T) (transfer.Env, map[string]place) {
	t.Helper()
	h, err := serve.Handler(t.Context(), serve.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	srv := httptest.NewServer(h)
	t.Cleanup(func() {
		srv.Close()
		require.NoError(t, h.Close())
	})
	st, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	client := registry.New(registry.Options{})
	t.Cleanup(client.Close)
	env := transfer.Env{Registry: client, Store: st, Dir: t.TempDir(), Now: time.Now}
	named := func(prefix, suffix string) place {
		return func(name string) ref.Ref { return at(t, prefix+name+suffix) }
	}
	return env, map[string]place{
		"registry":    named(strings.TrimPrefix(srv.URL, "http://")+"/app:", ""),
		"store":       named("store:app:", ""),
		"layout":      named("oci:layout:", ""),
		"oci-archive": named("oci-archive:", ".tar:1"),
	}
}

func at(t *testing.T, s string) ref.Ref {
	t.Helper()
	r, err := ref.Parse(s)
	require.NoError(t, err)
	return r
}

// memory is a source in memory.
type memory struct{ testimage.Content }

func (m memory) Ref() ref.Ref { return ref.Ref{} }

func (m memory) Manifest(_ context.Context, desc ocispec.Descriptor) ([]byte, error) {
	return m.Blobs[desc.Digest], nil
}

func (m memory) Blob(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(m.Blobs[desc.Digest])), nil
}

func put(t *testing.T, env transfer.Env, c testimage.Content, to ref.Ref) {
	t.Helper()
	desc := c.Desc
	desc.Platform = nil
	_, err := transfer.Move(t.Context(), env, []transfer.Root{{Desc: desc, From: memory{c}, Names: []ref.Ref{to}}}, transfer.Options{})
	require.NoError(t, err)
}

// rewritten is c with its own document changed as text.
func rewritten(t *testing.T, c testimage.Content, old, new string) testimage.Content {
	t.Helper()
	raw := string(c.Raw())
	require.Contains(t, raw, old)
	out := testimage.Document(c.Desc.MediaType, []byte(strings.Replace(raw, old, new, 1)))
	out.Desc.Platform = c.Desc.Platform
	for d, b := range c.Blobs {
		out.Blobs[d] = b
	}
	return out
}

// whole is an index as builders make them: images, one with fields nobody knows, an attestation by annotation and by
// subject, a nested index, an artifact.
func whole(t *testing.T) testimage.Content {
	t.Helper()
	layer := testimage.Layer(testimage.File("text", "x")).Gzip()
	amd := rewritten(t, testimage.ImageWith(testimage.ImageOptions{Edit: func(c *ocispec.Image) {
		c.Config.Env = []string{"PATH=/bin", "A=1"}
		c.Config.Entrypoint, c.Config.Cmd = []string{"/old"}, []string{"arg"}
		c.Config.Labels = map[string]string{"keep": "1", "drop": "2"}
	}}, "linux/amd64", layer), `"schemaVersion":2,`, `"x-first":[1,2.50],"schemaVersion":2,`)
	arm := testimage.Image("linux/arm64", layer)
	subject := ocispec.Descriptor{MediaType: amd.Desc.MediaType, Digest: amd.Desc.Digest, Size: amd.Desc.Size}
	attestation := testimage.ImageWith(testimage.ImageOptions{Subject: &subject}, "unknown/unknown",
		testimage.Layer(testimage.File("statement", amd.Desc.Digest.String())).Gzip())
	attestation.Desc.Annotations = map[string]string{
		index.AnnotationReferenceType: "attestation-manifest", index.AnnotationReferenceDigest: amd.Desc.Digest.String(),
	}
	nested := testimage.Index(testimage.Image("linux/s390x", layer))
	artifact := testimage.Document("application/vnd.example.thing+json", []byte(`{"mediaType":"application/vnd.example.thing+json","a":1}`))
	all := testimage.IndexWith(testimage.IndexOptions{Annotations: map[string]string{"of": "index"}}, amd, arm, attestation, nested, artifact)
	return rewritten(t, all, `"mediaType"`, `"z-unknown":{"b":1,"a":2},"mediaType"`)
}

func read(t *testing.T, env transfer.Env, r ref.Ref) (source.Image, *index.Index) {
	t.Helper()
	img, err := env.Opener().Open(t.Context(), r)
	require.NoError(t, err)
	t.Cleanup(func() { img.Close() })
	idx, err := source.ReadIndex(t.Context(), img, img.Root())
	require.NoError(t, err)
	return img, idx
}

// TestMutate: an edit of all images of an index, from every kind of place to every other.
func TestMutate(t *testing.T) {
	env, places := newEnv(t)
	c := whole(t)
	user := "1000"
	change := image.Edit{
		ConfigPatch: graph.ConfigPatch{
			User: &user, Env: []string{"A=2", "B=3"}, Entrypoint: []string{"/new"}, Labels: map[string]string{"new": "3"},
		},
		UnsetLabels: []string{"drop"},
	}
	annotations, err := transfer.ParseAnnotation("manifest[linux/arm64]:m=n")
	require.NoError(t, err)
	var first digest.Digest
	for from, src := range places {
		put(t, env, c, src(from+"-in"))
		for to, dst := range places {
			name := dst(from + "-" + to)
			res, err := Mutate(t.Context(), env, src(from+"-in"), []ref.Ref{name}, change, Options{Annotations: annotations})
			require.NoError(t, err, "%s to %s", from, to)
			if first == "" {
				first = res.Desc.Digest
			}
			assert.Equal(t, first, res.Desc.Digest, "%s to %s", from, to)
			img, idx := read(t, env, name)
			require.Equal(t, first, img.Root().Digest)
			requireEdited(t, img, idx, c)
		}
	}
}

// requireEdited holds the result of TestMutate to what was asked for.
func requireEdited(t *testing.T, img source.Image, idx *index.Index, was testimage.Content) {
	t.Helper()
	old, err := index.Parse(was.Raw())
	require.NoError(t, err)
	assert.Contains(t, string(idx.Raw), `{"schemaVersion":2,"z-unknown":{"b":1,"a":2},"mediaType"`)
	require.Len(t, idx.Manifests, len(old.Manifests))
	for i, m := range idx.Manifests {
		assert.Equal(t, old.Manifests[i].MediaType, m.MediaType)
		assert.Equal(t, old.Manifests[i].Platform, m.Platform)
	}
	amd, arm, attestation, nested, artifact := idx.Manifests[0], idx.Manifests[1], idx.Manifests[2], idx.Manifests[3], idx.Manifests[4]
	assert.Equal(t, old.Manifests[4], artifact)
	ctx := t.Context()

	m, raw, err := source.ReadManifest(ctx, img, amd)
	require.NoError(t, err)
	assert.Contains(t, string(raw), `{"x-first":[1,2.50],"schemaVersion":2`)
	assert.Empty(t, m.Annotations)
	cfg, err := source.ReadConfig(ctx, img, m)
	require.NoError(t, err)
	assert.Equal(t, ocispec.ImageConfig{
		User: "1000", Env: []string{"PATH=/bin", "A=2", "B=3"}, Entrypoint: []string{"/new"},
		Labels: map[string]string{"keep": "1", "new": "3"},
	}, cfg.Image.Config)
	rc, err := img.Blob(ctx, m.Layers[0])
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, rc)
	require.NoError(t, err)
	require.NoError(t, rc.Close())

	m, _, err = source.ReadManifest(ctx, img, arm)
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"m": "n"}, m.Annotations)

	assert.Equal(t, amd.Digest, index.Attests(attestation))
	m, _, err = source.ReadManifest(ctx, img, attestation)
	require.NoError(t, err)
	require.NotNil(t, m.Subject)
	assert.Equal(t, amd.Digest, m.Subject.Digest)
	assert.Equal(t, amd.Size, m.Subject.Size)

	inner, err := source.ReadIndex(ctx, img, nested)
	require.NoError(t, err)
	m, _, err = source.ReadManifest(ctx, img, inner.Manifests[0])
	require.NoError(t, err)
	cfg, err = source.ReadConfig(ctx, img, m)
	require.NoError(t, err)
	assert.Equal(t, "1000", cfg.Image.Config.User)
}

func TestMutate_nothing(t *testing.T) {
	env, places := newEnv(t)
	c := whole(t)
	put(t, env, c, places["registry"]("in"))
	res, err := Mutate(t.Context(), env, places["registry"]("in"), []ref.Ref{places["registry"]("out")}, image.Edit{}, Options{})
	require.NoError(t, err)
	assert.Equal(t, c.Desc.Digest, res.Desc.Digest)
	assert.Empty(t, res.Changed)
}

// TestMutate_platform: the others stay as they are, to the byte.
func TestMutate_platform(t *testing.T) {
	env, places := newEnv(t)
	c := whole(t)
	put(t, env, c, places["registry"]("in"))
	arm, err := platform.Parse("linux/arm64")
	require.NoError(t, err)
	riscv, os, none := "riscv64", "linux", ""
	o := Options{}
	o.Platforms = []platform.Platform{arm}
	change := image.Edit{Platform: index.PlatformPatch{OS: &os, Arch: &riscv, Variant: &none}}
	res, err := Mutate(t.Context(), env, places["registry"]("in"), []ref.Ref{places["layout"]("out")}, change, o)
	require.NoError(t, err)
	img, idx := read(t, env, places["layout"]("out"))
	old, err := index.Parse(c.Raw())
	require.NoError(t, err)
	for _, i := range []int{0, 2, 3, 4} {
		assert.Equal(t, old.Manifests[i], idx.Manifests[i])
	}
	assert.Equal(t, &ocispec.Platform{OS: "linux", Architecture: "riscv64"}, idx.Manifests[1].Platform)
	m, _, err := source.ReadManifest(t.Context(), img, idx.Manifests[1])
	require.NoError(t, err)
	cfg, err := source.ReadConfig(t.Context(), img, m)
	require.NoError(t, err)
	assert.Equal(t, "riscv64", cfg.Image.Architecture)
	assert.Len(t, res.Changed, 2) // the image and the index

	_, err = Mutate(t.Context(), env, places["registry"]("in"), []ref.Ref{places["layout"]("no")}, change, Options{})
	require.ErrorIs(t, err, index.ErrDuplicate)
	o.Platforms = []platform.Platform{{OS: "linux", Arch: "ppc64le"}}
	_, err = Mutate(t.Context(), env, places["registry"]("in"), []ref.Ref{places["layout"]("no")}, change, o)
	require.ErrorIs(t, err, source.ErrNotFound)
}

// TestMutate_docker: annotations of Docker's manifests make them, and their list, OCI's, with a note.
func TestMutate_docker(t *testing.T) {
	env, places := newEnv(t)
	o := testimage.ImageOptions{Docker: true}
	layer := testimage.Layer(testimage.File("text", "x")).Gzip()
	c := testimage.IndexWith(testimage.IndexOptions{Docker: true}, testimage.ImageWith(o, "linux/amd64", layer), testimage.ImageWith(o, "linux/arm64", layer))
	put(t, env, c, places["registry"]("in"))
	user := "1"
	res, err := Mutate(t.Context(), env, places["registry"]("in"), []ref.Ref{places["registry"]("docker")}, image.Edit{ConfigPatch: graph.ConfigPatch{User: &user}}, Options{})
	require.NoError(t, err)
	assert.Equal(t, index.MediaTypeDockerList, res.Desc.MediaType)

	annotations, err := transfer.ParseAnnotation("manifest[linux/arm64]:m=n")
	require.NoError(t, err)
	res, err = Mutate(t.Context(), env, places["registry"]("in"), []ref.Ref{places["registry"]("oci")}, image.Edit{}, Options{Annotations: annotations})
	require.NoError(t, err)
	assert.Equal(t, ocispec.MediaTypeImageIndex, res.Desc.MediaType)
	assert.Len(t, res.Notes, 2)
	img, idx := read(t, env, places["registry"]("oci"))
	assert.Equal(t, index.MediaTypeDockerManifest, idx.Manifests[0].MediaType)
	m, _, err := source.ReadManifest(t.Context(), img, idx.Manifests[1])
	require.NoError(t, err)
	assert.Equal(t, ocispec.MediaTypeImageConfig, m.Config.MediaType)
	assert.Equal(t, ocispec.MediaTypeImageLayerGzip, m.Layers[0].MediaType)

	_, err = Mutate(t.Context(), env, places["registry"]("oci"), []ref.Ref{places["registry"]("back")}, image.Edit{}, Options{Form: Docker})
	require.Error(t, err) // the annotation
	res, err = Mutate(t.Context(), env, places["registry"]("in"), []ref.Ref{places["registry"]("all")}, image.Edit{}, Options{Form: OCI})
	require.NoError(t, err)
	back, err := Mutate(t.Context(), env, places["registry"]("all"), []ref.Ref{places["registry"]("back")}, image.Edit{}, Options{Form: Docker})
	require.NoError(t, err)
	assert.Equal(t, index.MediaTypeDockerList, back.Desc.MediaType)
	assert.NotEqual(t, res.Desc.Digest, back.Desc.Digest)
}

// TestMutate_referrers: what refers to an image is made to refer to what it becomes; a signature is left and told of.
func TestMutate_referrers(t *testing.T) {
	env, places := newEnv(t)
	in := places["registry"]("in")
	c := testimage.Index(testimage.Image("linux/amd64", testimage.Layer(testimage.File("a", "b")).Gzip()))
	put(t, env, c, in)
	idx, err := index.Parse(c.Raw())
	require.NoError(t, err)
	child := idx.Manifests[0]
	for _, kind := range []string{"application/spdx+json", "application/vnd.dev.cosign.artifact.sig.v1+json"} {
		subject := ocispec.Descriptor{MediaType: child.MediaType, Digest: child.Digest, Size: child.Size}
		r := rewritten(t, testimage.ImageWith(testimage.ImageOptions{Subject: &subject}, "linux/amd64"), `"config"`, `"artifactType":"`+kind+`","config"`)
		put(t, env, r, in.WithDigest(r.Desc.Digest))
	}
	user := "1"
	res, err := Mutate(t.Context(), env, in, []ref.Ref{places["registry"]("out")}, image.Edit{ConfigPatch: graph.ConfigPatch{User: &user}}, Options{})
	require.NoError(t, err)
	now := res.Changed[child.Digest]
	require.NotEmpty(t, now)
	list, _, err := env.Registry.Referrers(t.Context(), in, now)
	require.NoError(t, err)
	require.Len(t, list, 1)
	assert.Equal(t, "application/spdx+json", list[0].ArtifactType)
	assert.Contains(t, strings.Join(res.Notes, "\n"), "1 signatures of "+child.Digest.String())
}

// files lists what a single image shows.
func files(t *testing.T, env transfer.Env, r ref.Ref, p string) map[string]string {
	t.Helper()
	img, err := env.Opener().Open(t.Context(), r)
	require.NoError(t, err)
	defer img.Close()
	want, err := platform.Parse(p)
	require.NoError(t, err)
	found, err := source.Resolve(t.Context(), img, want)
	require.NoError(t, err)
	tree, err := source.View(t.Context(), img, found.Manifest.Layers, found.DiffIDs, t.TempDir())
	require.NoError(t, err)
	out := map[string]string{}
	require.NoError(t, tree.Walk("/", func(e layer.Entry, open func() (io.ReadCloser, error)) error {
		if e.Type != tar.TypeReg {
			return nil
		}
		rc, err := open()
		if err != nil {
			return err
		}
		defer rc.Close()
		data, err := io.ReadAll(rc)
		out[e.Name] = string(data)
		return err
	}))
	require.NoError(t, tree.Close())
	return out
}

func layerFile(t *testing.T, l testimage.LayerData, blob bool) string {
	t.Helper()
	data := l.Tar
	if blob {
		data = l.Blob()
	}
	path := filepath.Join(t.TempDir(), "layer")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

func TestAppendAndFlatten(t *testing.T) {
	env, places := newEnv(t)
	base := testimage.Layer(testimage.File("a", "1"), testimage.File("b", "2")).Gzip()
	c := testimage.Index(testimage.Image("linux/amd64", base), testimage.Image("linux/arm64", base, testimage.Layer(testimage.File("arm", "x")).Zstd()))
	put(t, env, c, places["registry"]("in"))
	top := testimage.Layer(testimage.Whiteout("a"), testimage.File("c", "3"))
	for name, dst := range places {
		res, err := Append(t.Context(), env, places["registry"]("in"), []ref.Ref{dst("appended")}, []string{layerFile(t, top, false)}, AppendOptions{})
		require.NoError(t, err, name)
		assert.Equal(t, map[string]string{"b": "2", "c": "3", "arm": "x"}, files(t, env, dst("appended"), "linux/arm64"), name)
		zipped, err := Append(t.Context(), env, places["registry"]("in"), []ref.Ref{dst("zipped")}, []string{layerFile(t, top.Zstd(), true)}, AppendOptions{})
		require.NoError(t, err, name)
		assert.NotEqual(t, res.Desc.Digest, zipped.Desc.Digest)

		_, err = Flatten(t.Context(), env, dst("appended"), []ref.Ref{dst("flat")}, FlattenOptions{Options: Options{Spool: t.TempDir()}})
		require.NoError(t, err, name)
		assert.Equal(t, map[string]string{"b": "2", "c": "3", "arm": "x"}, files(t, env, dst("flat"), "linux/arm64"), name)
		img, err := env.Opener().Open(t.Context(), dst("flat"))
		require.NoError(t, err)
		found, err := source.Resolve(t.Context(), img, platform.Platform{OS: "linux", Arch: "arm64"})
		require.NoError(t, err)
		assert.Len(t, found.Manifest.Layers, 1)
		require.NoError(t, img.Close())
	}
	_, err := Append(t.Context(), env, places["registry"]("in"), []ref.Ref{places["layout"]("no")}, []string{layerFile(t, testimage.RawLayer([]byte("no tar")), false)}, AppendOptions{})
	require.Error(t, err)
	_, err = Append(t.Context(), env, places["registry"]("in"), []ref.Ref{places["layout"]("no")}, nil, AppendOptions{})
	require.ErrorIs(t, err, ErrInvalid)
}

func TestRebase(t *testing.T) {
	env, places := newEnv(t)
	lower := func(text string) testimage.LayerData { return testimage.Layer(testimage.File("base", text)).Gzip() }
	top := testimage.Layer(testimage.File("top", "x")).Gzip()
	both := func(layers ...testimage.LayerData) testimage.Content {
		return testimage.Index(testimage.Image("linux/amd64", layers...), testimage.Image("linux/arm64", layers...))
	}
	r, l := places["registry"], places["layout"]
	put(t, env, both(lower("old")), r("old"))
	put(t, env, both(lower("new"), testimage.Layer(testimage.File("more", "y")).Gzip()), l("new"))
	put(t, env, both(lower("old"), top), r("on"))
	old, base := r("old"), l("new")
	_, err := Rebase(t.Context(), env, r("on"), []ref.Ref{r("moved")}, RebaseOptions{Old: &old, New: &base})
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"base": "new", "more": "y", "top": "x"}, files(t, env, r("moved"), "linux/arm64"))

	_, err = Rebase(t.Context(), env, r("moved"), []ref.Ref{r("no")}, RebaseOptions{Old: &old, New: &base})
	require.ErrorIs(t, err, ErrNotBase)
	_, err = Rebase(t.Context(), env, r("on"), []ref.Ref{r("no")}, RebaseOptions{})
	require.ErrorIs(t, err, ErrInvalid)

	// What an image says of its base is enough, and is kept true.
	next := r("next")
	put(t, env, both(lower("next")), next)
	_, err = Rebase(t.Context(), env, r("on"), []ref.Ref{r("told")}, RebaseOptions{Old: &old, New: &old})
	require.NoError(t, err)
	put(t, env, both(lower("next")), old) // the tag moves
	_, err = Rebase(t.Context(), env, r("told"), []ref.Ref{r("followed")}, RebaseOptions{})
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"base": "next", "top": "x"}, files(t, env, r("followed"), "linux/arm64"))
}

// TestEdit_requests: what is there already is not asked for, moved or uploaded again.
func TestEdit_requests(t *testing.T) {
	env, places := newEnv(t)
	c := whole(t)
	put(t, env, c, places["registry"]("in"))
	user := "1"
	res, err := Mutate(t.Context(), env, places["registry"]("in"), []ref.Ref{places["registry"]("out")}, image.Edit{ConfigPatch: graph.ConfigPatch{User: &user}}, Options{NoReferrers: true})
	require.NoError(t, err)
	assert.Equal(t, 3, res.Blobs) // the configs
}
