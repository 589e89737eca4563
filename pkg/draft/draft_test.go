package draft_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/draft"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/serve"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// world is a store, a directory for layouts, and a registry that is another store.
type world struct {
	*draft.Drafts
	t      *testing.T
	dir    string
	remote *store.Store
	host   string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	w.remote = openStore(t, filepath.Join(w.dir, "remote"))
	w.host = serveStore(t, w.remote)
	w.Drafts = open(t, filepath.Join(w.dir, "store"), w.dir)
	return w
}

func openStore(t *testing.T, root string) *store.Store {
	t.Helper()
	st, err := store.Open(t.Context(), root, store.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = st.Close() })
	return st
}

func open(t *testing.T, root, dir string) *draft.Drafts {
	t.Helper()
	st := openStore(t, root)
	client := registry.New(registry.Options{Keychain: registry.DefaultKeychain(func(string) string { return "" })})
	t.Cleanup(client.Close)
	return &draft.Drafts{Store: st, Opener: &source.Opener{Store: st, Registry: client, Dir: dir}}
}

// serveStore offers a store as a registry until the test ends.
func serveStore(t *testing.T, st *store.Store) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, done := make(chan string, 1), make(chan error, 1)
	go func() {
		done <- serve.Run(ctx, serve.Options{Store: st, Listen: "127.0.0.1:0", Ready: func(addr string) { ready <- addr }})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	select {
	case addr := <-ready:
		return addr
	case err := <-done:
		t.Fatal(err)
		return ""
	}
}

func (w *world) ref(s string) ref.Ref {
	w.t.Helper()
	r, err := ref.Parse(s)
	require.NoError(w.t, err)
	return r
}

// push puts content into the registry.
func (w *world) push(name string, c testimage.Content) ref.Ref {
	w.t.Helper()
	testimage.WriteStore(w.t, w.remote, w.ref(w.host+"/"+name).Familiar(), c)
	return w.ref(w.host + "/" + name)
}

func (w *world) take(o draft.TakeOptions, refs ...ref.Ref) []draft.Source {
	w.t.Helper()
	s, err := w.Take(w.t.Context(), refs, o)
	require.NoError(w.t, err)
	return s
}

func (w *world) create(name string, refs ...ref.Ref) *draft.Draft {
	w.t.Helper()
	d, _, err := w.Create(w.t.Context(), w.ref(name), w.take(draft.TakeOptions{}, refs...), draft.CreateOptions{})
	require.NoError(w.t, err)
	return d
}

func platforms(d *draft.Draft) (out []string) {
	for _, m := range d.Index.Manifests {
		p := m.Platform
		if p == nil {
			out = append(out, "-")
			continue
		}
		s := p.OS + "/" + p.Architecture
		if p.Variant != "" {
			s += "/" + p.Variant
		}
		out = append(out, s)
	}
	return out
}

func layer(text string) testimage.LayerData {
	return testimage.Layer(testimage.File("a", text))
}

func attestation(of digest.Digest) testimage.Content {
	c := testimage.Image("unknown/unknown", layer("sbom"))
	c.Desc.Annotations = map[string]string{index.AnnotationReferenceType: "attestation-manifest", index.AnnotationReferenceDigest: of.String()}
	return c
}

func TestCreate(t *testing.T) {
	w := newWorld(t)
	amd64, arm64, arm := testimage.Image("linux/amd64", layer("1")), testimage.Image("linux/arm64/v8", layer("2")), testimage.Image("linux/arm/v7", layer("3"))
	a, b := w.push("app:amd64", amd64), w.push("other/app:arm64", arm64)
	testimage.WriteLayout(t, filepath.Join(w.dir, "layout"), map[string]testimage.Content{"arm": arm})

	d := w.create("app:1.0", a, b, w.ref("oci:layout:arm"))
	assert.Equal(t, []string{"linux/amd64", "linux/arm64/v8", "linux/arm/v7"}, platforms(d), "from the configs, as they spell them")
	assert.Equal(t, ocispec.MediaTypeImageIndex, d.Desc.MediaType)

	t.Run("a tag that moves later changes nothing", func(t *testing.T) {
		w.push("app:amd64", testimage.Image("linux/s390x"))
		got, err := w.Get(t.Context(), w.ref("store:app:1.0"))
		require.NoError(t, err)
		assert.Equal(t, d.Raw, got.Raw)
	})
	t.Run("layers of a registry stay there", func(t *testing.T) {
		m := mustManifest(t, amd64)
		_, err := w.Store.Stat(m.Layers[0].Digest)
		require.ErrorIs(t, err, store.ErrNotFound)
		_, err = w.Store.Stat(m.Config.Digest)
		require.NoError(t, err)
		_, err = w.Store.Stat(mustManifest(t, arm).Layers[0].Digest)
		require.NoError(t, err, "and those of a layout are taken over")
	})
	t.Run("and can be read and are not missed", func(t *testing.T) {
		img, err := w.Opener.Open(t.Context(), w.ref("store:app:1.0"))
		require.NoError(t, err)
		m, _, err := source.ReadManifest(t.Context(), img, amd64.Desc)
		require.NoError(t, err)
		rc, err := img.Blob(t.Context(), m.Layers[0])
		require.NoError(t, err)
		require.NoError(t, rc.Close())
		placed, ok := img.(source.Placed)
		require.True(t, ok)
		assert.Equal(t, []ref.Ref{a.WithDigest(m.Layers[0].Digest)}, placed.Places(m.Layers[0].Digest))
		found, err := w.Store.Check(t.Context(), store.CheckOptions{})
		require.NoError(t, err)
		assert.Empty(t, found)
	})
	t.Run("exists", func(t *testing.T) {
		_, _, err := w.Create(t.Context(), w.ref("app:1.0"), nil, draft.CreateOptions{})
		require.ErrorIs(t, err, draft.ErrExists)
	})
	t.Run("amend, and B11", func(t *testing.T) {
		s390x := w.take(draft.TakeOptions{}, w.ref(w.host+"/app:amd64"))
		got, _, err := w.Create(t.Context(), w.ref("app:1.0"), s390x, draft.CreateOptions{Amend: true})
		require.NoError(t, err)
		assert.Len(t, got.Index.Manifests, 4)
		more := w.take(draft.TakeOptions{}, w.push("app:new", testimage.Image("linux/s390x", layer("new"))))
		_, _, err = w.Create(t.Context(), w.ref("app:1.0"), more, draft.CreateOptions{Amend: true})
		require.ErrorIs(t, err, index.ErrDuplicate)
		got, _, err = w.Create(t.Context(), w.ref("app:1.0"), more, draft.CreateOptions{Amend: true, ReplacePlatform: true})
		require.NoError(t, err)
		assert.Len(t, got.Index.Manifests, 4)
	})
	t.Run("replace", func(t *testing.T) {
		got, _, err := w.Create(t.Context(), w.ref("app:1.0"), nil, draft.CreateOptions{Replace: true})
		require.NoError(t, err)
		assert.Empty(t, got.Index.Manifests)
	})
}

func mustManifest(t *testing.T, c testimage.Content) ocispec.Manifest {
	t.Helper()
	m, err := index.ParseManifest(c.Raw())
	require.NoError(t, err)
	return m
}

func TestTakeIndexes(t *testing.T) {
	w := newWorld(t)
	amd64, arm64 := testimage.Image("linux/amd64", layer("1")), testimage.Image("linux/arm64", layer("2"))
	att := attestation(arm64.Desc.Digest)
	list := testimage.Index(amd64, testimage.Index(arm64, att))
	r := w.push("list:1", list)

	s := w.take(draft.TakeOptions{}, r)
	assert.Len(t, s[0].Entries, 3, "taken apart")
	s = w.take(draft.TakeOptions{Nested: true}, r)
	require.Len(t, s[0].Entries, 1)
	assert.Equal(t, list.Desc.Digest, s[0].Entries[0].Digest)
	for d := range list.Blobs {
		if d != amd64.Layers[0].DiffID() {
			continue
		}
		_, err := w.Store.Stat(d)
		require.ErrorIs(t, err, store.ErrNotFound)
	}
	s = w.take(draft.TakeOptions{Platforms: []string{"*/arm64"}}, r)
	require.Len(t, s[0].Entries, 2, "B13: with its attestation")
	arch := "amd64"
	s = w.take(draft.TakeOptions{Platform: index.PlatformPatch{Arch: &arch}}, r)
	require.Len(t, s[0].Entries, 1)
	assert.Equal(t, amd64.Desc.Digest, s[0].Entries[0].Digest)

	_, err := w.Take(t.Context(), []ref.Ref{r}, draft.TakeOptions{Platforms: []string{"linux/s390x"}})
	require.ErrorIs(t, err, source.ErrNotFound)
	_, err = w.Take(t.Context(), []ref.Ref{w.ref(w.host + "/none:1")}, draft.TakeOptions{})
	require.ErrorIs(t, err, source.ErrNotFound)
}

func TestTake_B12_Contradictions(t *testing.T) {
	w := newWorld(t)
	wrong := testimage.Image("linux/amd64", layer("1"))
	wrong.Desc.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64"}
	r := w.push("wrong:1", testimage.Index(wrong))
	_, err := w.Take(t.Context(), []ref.Ref{r}, draft.TakeOptions{})
	require.ErrorIs(t, err, source.ErrInvalid)
	assert.Contains(t, err.Error(), "linux/arm64")
	assert.Contains(t, err.Error(), "linux/amd64")

	single := w.push("single:1", wrong)
	arch := "arm64"
	s := w.take(draft.TakeOptions{Platform: index.PlatformPatch{Arch: &arch}}, single)
	assert.Equal(t, "arm64", s[0].Entries[0].Platform.Architecture, "who says it gets it")
	assert.Len(t, s[0].Notes, 1, "and a warning")

	none := testimage.ImageWith(testimage.ImageOptions{Edit: func(c *ocispec.Image) { c.Platform = ocispec.Platform{} }}, "linux/amd64")
	none.Desc.Platform = nil
	r = w.push("none:1", none)
	_, err = w.Take(t.Context(), []ref.Ref{r}, draft.TakeOptions{})
	require.ErrorIs(t, err, source.ErrInvalid, "never assumed")
	s = w.take(draft.TakeOptions{Platform: index.PlatformPatch{Arch: &arch}}, r)
	assert.Equal(t, "arm64", s[0].Entries[0].Platform.Architecture)
}

func TestTake_B25_MissingChild(t *testing.T) {
	w := newWorld(t)
	amd64, arm64 := testimage.Image("linux/amd64", layer("1")), testimage.Image("linux/arm64", layer("2"))
	list := testimage.Index(amd64, arm64)
	delete(list.Blobs, arm64.Desc.Digest)
	r := w.push("list:1", list)
	_, err := w.Take(t.Context(), []ref.Ref{r}, draft.TakeOptions{})
	require.ErrorIs(t, err, source.ErrNotFound)
}

func TestFind(t *testing.T) {
	w := newWorld(t)
	amd64, arm64 := testimage.Image("linux/amd64", layer("1")), testimage.Image("linux/arm64", layer("2"))
	a := w.push("app:amd64", amd64)
	testimage.WriteStore(t, w.Store, "local:arm64", arm64)
	w.create("app:1.0", a, w.ref("store:local:arm64"))
	for name, tc := range map[string]struct {
		want    []int
		wantErr error
	}{
		"linux/amd64":                  {want: []int{0}},
		"linux/arm64/v8":               {want: []int{1}},
		arm64.Desc.Digest.String():     {want: []int{1}},
		a.String():                     {want: []int{0}},
		"store:local:arm64":            {want: []int{1}},
		"linux/s390x":                  {wantErr: source.ErrNotFound},
		digest.FromString("").String(): {wantErr: source.ErrNotFound},
		w.host + "/other:1":            {wantErr: source.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			target, err := draft.ParseTarget(name)
			require.NoError(t, err)
			var at []int
			_, _, err = w.Update(t.Context(), w.ref("app:1.0"), func(x *index.Editor) (err error) {
				at, err = w.Find(t.Context(), x, target)
				return err
			})
			require.ErrorIs(t, err, tc.wantErr)
			assert.Equal(t, tc.want, at)
		})
	}
	_, err := draft.ParseTarget("not a target!")
	require.ErrorIs(t, err, ref.ErrInvalid)
}

func TestNames(t *testing.T) {
	w := newWorld(t)
	for _, s := range []string{"oci:dir:x", "app@" + digest.FromString("").String()} {
		_, err := draft.Name(w.ref(s))
		require.ErrorIs(t, err, draft.ErrInvalid)
	}
	_, _, err := w.Update(t.Context(), w.ref("none"), func(*index.Editor) error { return nil })
	require.ErrorIs(t, err, store.ErrNotFound)
	require.ErrorIs(t, w.Remove(t.Context(), w.ref("none")), store.ErrNotFound)

	testimage.WriteStore(t, w.Store, "single:1", testimage.Image("linux/amd64"))
	_, err = w.Get(t.Context(), w.ref("single:1"))
	require.ErrorIs(t, err, draft.ErrNotIndex)
	_, _, err = w.Create(t.Context(), w.ref("single:1"), nil, draft.CreateOptions{Amend: true})
	require.ErrorIs(t, err, draft.ErrNotIndex)
	w.create("a")
	drafts, bad, err := w.List(t.Context())
	require.NoError(t, err)
	assert.Empty(t, bad)
	require.Len(t, drafts, 1)
	assert.Equal(t, "a:latest", drafts[0].Name)
	require.NoError(t, w.Remove(t.Context(), w.ref("store:a")))
}

// TestB26_Concurrent has many handles add a platform each: none is lost.
func TestB26_Concurrent(t *testing.T) {
	w := newWorld(t)
	const writers = 12
	w.create("app")
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for i := range writers {
		other := open(t, w.Store.Root(), w.dir)
		c := testimage.Image("linux/arm/v7", layer(fmt.Sprint(i)))
		e, err := index.NewEntry(c.Desc)
		require.NoError(t, err)
		version := fmt.Sprint(i)
		e, err = e.SetPlatform(index.PlatformPatch{OSVersion: &version})
		require.NoError(t, err)
		wg.Go(func() {
			_, _, errs[i] = other.Update(t.Context(), w.ref("app"), func(x *index.Editor) error { return x.Add(e, false) })
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	d, err := w.Get(t.Context(), w.ref("app"))
	require.NoError(t, err)
	assert.Len(t, d.Index.Manifests, writers)
}
