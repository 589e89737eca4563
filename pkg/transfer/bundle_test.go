package transfer

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/bundle"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// noise is a layer of bytes that no compression makes smaller.
func noise(seed uint64, size int) testimage.LayerData {
	data := make([]byte, size)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return testimage.Layer(testimage.File("noise", string(data)))
}

// fleet are five images in one registry, two of them signed and with referrers, as they are carried over an air gap.
func fleet(t testing.TB, env Env, host string) []ref.Ref {
	t.Helper()
	var refs []ref.Ref
	for i, repo := range []string{"web", "db", "team/api", "team/worker", "tools"} {
		r := at(t, "%s/%s:1.%d", host, repo, i)
		if i < 2 {
			e := randomEvidence(rand.New(rand.NewPCG(uint64(i), 7)), repo)
			e.signed = append(e.signed, e.whole.Desc.Digest)
			e.put(t, env, r)
		} else {
			put(t, env, testimage.Index(image("linux/amd64", repo), testimage.Image("linux/arm64", noise(uint64(i), 20_000))), r)
		}
		refs = append(refs, r)
	}
	return refs
}

func mustSave(t testing.TB, env Env, file string, o SaveOptions, refs ...ref.Ref) Saved {
	t.Helper()
	s, err := Save(t.Context(), env, refs, file, o)
	require.NoError(t, err)
	return s
}

// place parses a place.
func place1(t testing.TB, s string) Place {
	t.Helper()
	p, err := ParsePlace(s)
	require.NoError(t, err)
	return p
}

// TestSave_G14_G15: the same images give the same bytes, with everything that refers to them, and load brings them to every
// kind of place, under their names, with their digests.
func TestSave_G14_G15(t *testing.T) {
	t.Parallel()
	host, _ := serveRegistry(t)
	far, _ := debianRegistry(t)
	near, _ := serveRegistry(t)
	env := withStore(t, newEnv(t))
	refs := fleet(t, env, host)
	var sums []digest.Digest
	for i, o := range []Options{{}, {Concurrency: 1}, {Concurrency: 7}} {
		name := fmt.Sprintf("fleet%d.tar", i)
		mustSave(t, env, name, SaveOptions{Options: o}, refs...)
		sums = append(sums, sumFile(t, filepath.Join(env.Dir, name)))
	}
	assert.Equal(t, sums[0], sums[1])
	assert.Equal(t, sums[0], sums[2])
	var stream bytes.Buffer
	out := env
	out.Stdout = &stream
	mustSave(t, out, "-", SaveOptions{}, refs...)
	assert.Equal(t, sums[0], digest.FromBytes(stream.Bytes()), "a stream has the same bytes")

	for _, to := range []string{far + "/mirror", near, "oci:loaded", "store:"} {
		t.Run(to, func(t *testing.T) {
			p := place1(t, to)
			rep, err := Load(t.Context(), env, "fleet0.tar", LoadOptions{To: p})
			require.NoError(t, err)
			assert.Len(t, rep.Roots, len(refs))
			for _, r := range refs {
				want := requireWhole(t, env, r)
				target, err := p.at(r)
				require.NoError(t, err)
				if to == "oci:loaded" {
					target = target.WithTag(r.Tag)
				}
				assert.Equal(t, want.Digest, requireWhole(t, env, target).Digest)
				seen, there := map[digest.Digest]bool{}, map[digest.Digest]bool{}
				requireNoDangling(t, env, r, want.Digest, seen)
				requireNoDangling(t, env, target, want.Digest, there)
				assert.Equal(t, seen, there, "what refers to %s", r)
				tag := cosignTag(want.Digest) + ".sig"
				if _, err := env.opener().Open(t.Context(), r.WithTag(tag)); err == nil {
					requireWhole(t, env, target.WithTag(tag))
				}
			}
			again, err := Load(t.Context(), env, "fleet0.tar", LoadOptions{To: p})
			require.NoError(t, err)
			assert.Zero(t, again.Blobs, "a second run moves nothing")
		})
	}
	t.Run("a name for one", func(t *testing.T) {
		mustSave(t, env, "one.tar", SaveOptions{}, refs[0])
		_, err := Load(t.Context(), env, "one.tar", LoadOptions{Name: at(t, "%s/other:2", near)})
		require.NoError(t, err)
		assert.Equal(t, requireWhole(t, env, refs[0]).Digest, requireWhole(t, env, at(t, "%s/other:2", near)).Digest)
		_, err = Load(t.Context(), env, "fleet0.tar", LoadOptions{Name: at(t, "%s/other:2", near)})
		require.ErrorIs(t, err, ErrInvalid)
	})
	t.Run("tags of one repository", func(t *testing.T) {
		put(t, env, image("linux/amd64", "another"), refs[0].WithTag("other"))
		mustSave(t, env, "tags.tar", SaveOptions{Options: Options{AllTags: true}}, refs[0])
		_, err := Load(t.Context(), env, "tags.tar", LoadOptions{Name: at(t, "%s/tags", near)})
		require.NoError(t, err)
		requireWhole(t, env, at(t, "%s/tags:other", near))
		requireWhole(t, env, at(t, "%s/tags:%s", near, refs[0].Tag))
	})
	t.Run("some platforms", func(t *testing.T) {
		saved := mustSave(t, env, "arm.tar", SaveOptions{Options: Options{Platforms: []platform.Platform{parsed(t, "linux/arm64")}}}, refs[2])
		_, err := Load(t.Context(), env, "arm.tar", LoadOptions{})
		require.NoError(t, err)
		assert.Less(t, len(saved.Contents.Blobs), 4)
	})
}

// TestLoad_G01_flips: one flipped bit anywhere is refused before anything is written.
func TestLoad_G01_flips(t *testing.T) {
	t.Parallel()
	host, _ := serveRegistry(t)
	env := newEnv(t)
	refs := fleet(t, env, host)[:3]
	mustSave(t, env, "f.tar", SaveOptions{}, refs...)
	whole, err := os.ReadFile(filepath.Join(env.Dir, "f.tar"))
	require.NoError(t, err)
	far, c := serveRegistry(t)
	c.reset()

	path := filepath.Join(env.Dir, "flipped.tar")
	require.NoError(t, os.WriteFile(path, whole, 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	step := 101 // a prime: over many runs, and within one, every kind of place is met
	if testing.Short() {
		step = 1009
	}
	if os.Getenv("MANIFESTCTL_SOAK") != "" {
		step = 1
	}
	bit := rand.N(8)
	for n := rand.N(step); n < len(whole); n += step {
		_, err := f.WriteAt([]byte{whole[n] ^ 1<<bit}, int64(n))
		require.NoError(t, err)
		_, err = Load(t.Context(), env, "flipped.tar", LoadOptions{To: place1(t, far)})
		require.Error(t, err, "bit %d of byte %d", bit, n)
		_, err = f.WriteAt(whole[n:n+1], int64(n))
		require.NoError(t, err)
		bit = (bit + 1) % 8
	}
	assert.Empty(t, c.reset(), "no request was made")
	_, err = Load(t.Context(), env, "flipped.tar", LoadOptions{To: place1(t, far)})
	require.NoError(t, err)
	assert.NotEmpty(t, c.reset())
}

// TestLoad_G04_cuts: an archive that was cut says how much of it is there.
func TestLoad_G04_cuts(t *testing.T) {
	t.Parallel()
	host, _ := serveRegistry(t)
	env := withStore(t, newEnv(t))
	src := at(t, "%s/big:1", host)
	put(t, env, testimage.Index(testimage.Image("linux/amd64", noise(1, 400_000)), testimage.Image("linux/arm64", noise(2, 300_000))), src)
	saved := mustSave(t, env, "f.tar", SaveOptions{}, src)
	whole, err := os.ReadFile(filepath.Join(env.Dir, "f.tar"))
	require.NoError(t, err)
	require.Len(t, whole, int(saved.Size))
	for n := 0; n < len(whole); n += 64 << 10 {
		for _, at := range []int{n, n + 1, n + 511} {
			if at >= len(whole) {
				continue
			}
			require.NoError(t, os.WriteFile(filepath.Join(env.Dir, "cut.tar"), whole[:at], 0o600))
			_, err := Load(t.Context(), env, "cut.tar", LoadOptions{})
			require.ErrorIs(t, err, bundle.ErrIncomplete, "cut at %d", at)
			if at > 64<<10 {
				assert.ErrorContains(t, err, fmt.Sprintf("it has %d of its %d bytes", at, len(whole)))
			}
		}
	}
	refs, err := env.Store.Refs()
	require.NoError(t, err)
	assert.Empty(t, refs)
	require.NoError(t, os.WriteFile(filepath.Join(env.Dir, "cut.tar"), append(slices.Clone(whole), 0), 0o600))
	_, err = Load(t.Context(), env, "cut.tar", LoadOptions{})
	require.ErrorIs(t, err, bundle.ErrCorrupt, "a byte too much")
}

// TestSave_resumes: what an attempt that was cut has left of a file is not fetched again, and not believed either.
func TestSave_resumes(t *testing.T) {
	t.Parallel()
	host, c := serveRegistry(t)
	env := newEnv(t)
	src := at(t, "%s/big:1", host)
	var images []testimage.Content
	for i := range uint64(6) {
		images = append(images, testimage.Image(fmt.Sprintf("linux/arch%d", i), noise(i, 100_000)))
	}
	put(t, env, testimage.Index(images...), src)
	mustSave(t, env, "want.tar", SaveOptions{}, src)

	var blobs atomic.Int64
	c.setHook(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") && blobs.Add(1) > 5 {
			w.WriteHeader(http.StatusForbidden)
			return true
		}
		return false
	})
	_, err := Save(t.Context(), env, []ref.Ref{src}, "f.tar", SaveOptions{Options: Options{Concurrency: 2}})
	require.ErrorIs(t, err, registry.ErrDenied)
	require.NoFileExists(t, filepath.Join(env.Dir, "f.tar"))
	require.FileExists(t, filepath.Join(env.Dir, "f.tar.partial"))
	c.setHook(nil)
	c.reset()
	s := mustSave(t, env, "f.tar", SaveOptions{}, src)
	assert.Positive(t, s.Resumed)
	assert.LessOrEqual(t, countOf(c.reset(), "GET blobs"), 12-5+2, "the other blobs, and those that were under way")
	assert.Equal(t, sumFile(t, filepath.Join(env.Dir, "want.tar")), sumFile(t, filepath.Join(env.Dir, "f.tar")))
	require.NoFileExists(t, filepath.Join(env.Dir, "f.tar.partial"))

	t.Run("of something else, and damaged", func(t *testing.T) {
		other, err := os.ReadFile(filepath.Join(env.Dir, "want.tar"))
		require.NoError(t, err)
		for i := 3000; i < len(other); i += 50_000 {
			other[i] ^= 4
		}
		require.NoError(t, os.WriteFile(filepath.Join(env.Dir, "g.tar.partial"), append(other, "and more"...), 0o600))
		mustSave(t, env, "g.tar", SaveOptions{}, src)
		assert.Equal(t, sumFile(t, filepath.Join(env.Dir, "want.tar")), sumFile(t, filepath.Join(env.Dir, "g.tar")))
	})
}

// TestSave_G07_since: what an older archive brought is left out, and a place that lacks it is told before anything is written.
func TestSave_G07_since(t *testing.T) {
	t.Parallel()
	host, _ := serveRegistry(t)
	far, c := serveRegistry(t)
	env := withStore(t, newEnv(t))
	v1, v2 := at(t, "%s/app:1", host), at(t, "%s/app:2", host)
	shared := noise(1, 200_000)
	put(t, env, testimage.Index(testimage.Image("linux/amd64", shared)), v1)
	put(t, env, testimage.Index(testimage.Image("linux/amd64", shared, noise(2, 5_000))), v2)
	first := mustSave(t, env, "v1.tar", SaveOptions{}, v1)
	lock, err := first.Contents.Encode()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(env.Dir, "v1.lock"), lock, 0o600))
	_, err = Copy(t.Context(), env, v1, at(t, "oci-archive:plain.tar:1"), Options{})
	require.NoError(t, err)

	var sums []digest.Digest
	for _, since := range []string{"v1.tar", "v1.lock", "plain.tar"} {
		have, err := ReadSince(t.Context(), env, since)
		require.NoError(t, err)
		s := mustSave(t, env, "v2.tar", SaveOptions{Since: []bundle.Contents{have}}, v2)
		assert.Len(t, s.Contents.Base, 1)
		assert.Less(t, s.Size, int64(50_000))
		sums = append(sums, sumFile(t, filepath.Join(env.Dir, "v2.tar")))
	}
	assert.Equal(t, sums[0], sums[1])
	assert.Equal(t, sums[0], sums[2])

	for _, p := range []Place{place1(t, far), place1(t, "oci:far"), {}} {
		t.Run("G06 to "+p.String(), func(t *testing.T) {
			c.reset()
			_, err := Load(t.Context(), env, "v2.tar", LoadOptions{To: p})
			require.ErrorIs(t, err, ErrIncomplete)
			assert.ErrorContains(t, err, first.Contents.Blobs[0].Digest.Algorithm().String())
			for _, l := range c.reset() {
				assert.True(t, strings.HasPrefix(l, "HEAD"), l)
			}
			_, err = Load(t.Context(), env, "v1.tar", LoadOptions{To: p})
			require.NoError(t, err)
			_, err = Load(t.Context(), env, "v2.tar", LoadOptions{To: p})
			require.NoError(t, err)
			target, err := p.at(v2)
			require.NoError(t, err)
			if p.Kind == ref.OCILayout {
				target.Tag = "2"
			}
			assert.Equal(t, requireWhole(t, env, v2).Digest, requireWhole(t, env, target).Digest)
		})
	}
	t.Run("G06 a base that was changed", func(t *testing.T) {
		base := mustSave(t, env, "x.tar", SaveOptions{Since: []bundle.Contents{first.Contents}}, v2).Contents.Base[0]
		require.NoError(t, os.Chmod(env.Store.Path(base.Digest), 0o600))
		data, err := os.ReadFile(env.Store.Path(base.Digest))
		require.NoError(t, err)
		data[100] ^= 1
		require.NoError(t, os.WriteFile(env.Store.Path(base.Digest), data, 0o600))
		_, err = Load(t.Context(), env, "v2.tar", LoadOptions{})
		require.ErrorIs(t, err, ErrIncomplete)
		assert.ErrorContains(t, err, base.Digest.String())
	})
}

// remake writes an archive's members anew, as edit has them.
func remake(t *testing.T, whole []byte, edit func(h *tar.Header, data []byte) (*tar.Header, []byte), more ...*tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	r := tar.NewReader(bytes.NewReader(whole))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		data, err := io.ReadAll(r)
		require.NoError(t, err)
		if h, data = edit(h, data); h == nil {
			continue
		}
		h.Size = int64(len(data))
		require.NoError(t, w.WriteHeader(h))
		_, err = w.Write(data)
		require.NoError(t, err)
	}
	for _, h := range more {
		require.NoError(t, w.WriteHeader(h))
		_, err := w.Write(make([]byte, h.Size))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

func asIs(h *tar.Header, data []byte) (*tar.Header, []byte) { return h, data }

// TestLoad_G02_G03: what an archive lacks is told in whole, what it has too much is refused.
func TestLoad_G02_G03(t *testing.T) {
	t.Parallel()
	host, _ := serveRegistry(t)
	env := withStore(t, newEnv(t))
	refs := fleet(t, env, host)
	mustSave(t, env, "f.tar", SaveOptions{}, refs...)
	whole, err := os.ReadFile(filepath.Join(env.Dir, "f.tar"))
	require.NoError(t, err)
	require.Equal(t, whole, remake(t, whole, asIs), "this program's members are as any tar writer makes them")
	load := func(data []byte) error {
		require.NoError(t, os.WriteFile(filepath.Join(env.Dir, "bad.tar"), data, 0o600))
		_, err := Load(t.Context(), env, "bad.tar", LoadOptions{})
		return err
	}

	t.Run("G02 blobs are missing", func(t *testing.T) {
		f, err := bundle.OpenFile(t.Context(), filepath.Join(env.Dir, "f.tar"), nil, "")
		require.NoError(t, err)
		defer f.Close()
		a, err := bundle.Read(f)
		require.NoError(t, err)
		var lost []digest.Digest
		for i, b := range a.Contents.Blobs {
			if i%5 == 2 {
				lost = append(lost, b.Digest)
			}
		}
		data := remake(t, whole, func(h *tar.Header, data []byte) (*tar.Header, []byte) {
			if slices.ContainsFunc(lost, func(d digest.Digest) bool { return strings.HasSuffix(h.Name, d.Encoded()) }) {
				return nil, nil
			}
			return h, data
		})
		data = append(data, make([]byte, len(whole)-len(data))...) // not cut, but without them
		err = load(data)
		require.ErrorIs(t, err, bundle.ErrIncomplete)
		for _, d := range lost {
			assert.ErrorContains(t, err, d.String())
		}
		assert.ErrorContains(t, err, "(of "+host+"/")
	})
	for what, extra := range map[string]*tar.Header{
		"a file":        {Name: "README", Typeflag: tar.TypeReg, Mode: 0o644, Size: 4},
		"a blob":        {Name: "blobs/sha256/" + strings.Repeat("a", 64), Typeflag: tar.TypeReg, Mode: 0o644, Size: 4},
		"../":           {Name: "../../etc/cron.d/x", Typeflag: tar.TypeReg, Mode: 0o644, Size: 4},
		"a link":        {Name: "blobs/sha256/" + strings.Repeat("b", 64), Typeflag: tar.TypeSymlink, Linkname: "/etc/shadow"},
		"a hard link":   {Name: "blobs/sha256/" + strings.Repeat("c", 64), Typeflag: tar.TypeLink, Linkname: "index.json"},
		"a device":      {Name: "dev", Typeflag: tar.TypeChar},
		"a FIFO":        {Name: "pipe", Typeflag: tar.TypeFifo},
		"a second name": {Name: "index.json", Typeflag: tar.TypeReg, Mode: 0o644, Size: 4},
	} {
		t.Run("G03 "+what, func(t *testing.T) {
			err := load(remake(t, whole, asIs, extra))
			require.Error(t, err)
			assert.True(t, errors.Is(err, bundle.ErrInvalid) || errors.Is(err, bundle.ErrCorrupt), err)
		})
	}
	t.Run("G01 members in another order, or with another time", func(t *testing.T) {
		var held *tar.Header
		require.ErrorIs(t, load(remake(t, whole, func(h *tar.Header, data []byte) (*tar.Header, []byte) {
			if h.Name == "oci-layout" {
				held = h
				h.ModTime = time.Unix(1, 0)
			}
			return h, data
		})), bundle.ErrCorrupt)
		require.NotNil(t, held)
	})
	before, err := env.Store.Refs()
	require.NoError(t, err)
	assert.Empty(t, before, "nothing got a name")
	require.NoError(t, load(whole))
	refsIn, err := env.Store.Refs()
	require.NoError(t, err)
	assert.NotEmpty(t, refsIn)
}

// TestLoad_G10_G11: docker's archives and layouts that lie.
func TestLoad_G10_G11(t *testing.T) {
	t.Parallel()
	env := withStore(t, newEnv(t))
	img := image("linux/amd64", "x")
	write := func(name string, data []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(env.Dir, name), data, 0o600))
	}
	load := func(data []byte) error {
		write("a.tar", data)
		_, err := Load(t.Context(), env, "a.tar", LoadOptions{})
		return err
	}
	files := func(pairs ...string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i := 0; i < len(pairs); i += 2 {
			require.NoError(t, w.WriteHeader(&tar.Header{Name: pairs[i], Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(pairs[i+1]))}))
			_, err := io.WriteString(w, pairs[i+1])
			require.NoError(t, err)
		}
		require.NoError(t, w.Close())
		return b.Bytes()
	}
	docker := testimage.DockerArchive(map[string]testimage.Content{"app:1": img, "other:2": image("linux/amd64", "y")})
	t.Run("docker save", func(t *testing.T) {
		require.NoError(t, load(docker))
		requireWhole(t, env, at(t, "store:app:1"))
		requireWhole(t, env, at(t, "store:other:2"))
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		_, err := w.Write(docker)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		_, err = Load(t.Context(), env, "-", LoadOptions{Stdin: &z, Spool: t.TempDir()})
		require.NoError(t, err)
	})
	t.Run("OCI archive", func(t *testing.T) {
		require.NoError(t, load(testimage.OCIArchive(map[string]testimage.Content{"docker.io/library/named:1": app()})))
		requireWhole(t, env, at(t, "store:named:1"))
		err := load(testimage.OCIArchive(map[string]testimage.Content{"1.0": app()}))
		require.ErrorIs(t, err, ErrInvalid, "only a tag: where to is not known")
		_, err = Load(t.Context(), env, "a.tar", LoadOptions{Name: at(t, "store:called:2")})
		require.NoError(t, err)
		requireWhole(t, env, at(t, "store:called:2"))
	})
	before, err := env.Store.Refs()
	require.NoError(t, err)

	bad := map[string][]byte{
		"G10 layers outside":         files("manifest.json", `[{"Config":"c.json","RepoTags":["a:1"],"Layers":["../../etc/shadow"]}]`, "c.json", "{}"),
		"G10 an absolute layer":      files("manifest.json", `[{"Config":"/etc/passwd","RepoTags":["a:1"],"Layers":[]}]`),
		"G10 two manifest.json":      append(docker[:len(docker)-1024:len(docker)-1024], files("manifest.json", `[]`)...),
		"G10 a name with ESC":        bytes.ReplaceAll(docker, []byte(`"app:1"`), []byte("\"a\x1bp:1\"")),
		"G10 a name with ESC in it":  files("manifest.json", `[{"Config":"c.json","RepoTags":["a\u001b[2J:1"],"Layers":[]}]`, "c.json", `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`),
		"G11 no oci-layout":          files("index.json", `{"schemaVersion":2,"manifests":[]}`),
		"G11 a wrong version":        files("oci-layout", `{"imageLayoutVersion":"9.0.0"}`, "index.json", `{"schemaVersion":2,"manifests":[]}`),
		"G11 nothing in it":          files("oci-layout", `{"imageLayoutVersion":"1.0.0"}`, "index.json", `{"schemaVersion":2,"manifests":[]}`),
		"G16 a bomb around it":       zeros(t, 2<<30),
		"text":                       []byte("this is no archive of anything"),
		"nothing":                    nil,
		"G11 index.json is a folder": files("oci-layout", `{"imageLayoutVersion":"1.0.0"}`, "index.json/x", `{}`),
	}
	flipped := app()
	for d, data := range flipped.Blobs {
		if len(data) > 20 && data[0] == 0x1f {
			data = slices.Clone(data)
			data[len(data)/2] ^= 1
			flipped.Blobs[d] = data
			break
		}
	}
	bad["G11 a blob that is another"] = testimage.OCIArchive(map[string]testimage.Content{"reg.example/flipped:1": flipped})
	missing := app()
	gone := digest.FromBytes(image("linux/arm64", "app").Layers[0].Blob())
	delete(missing.Blobs, gone)
	bad["G02 a blob that is missing"] = testimage.OCIArchive(map[string]testimage.Content{"reg.example/missing:1": missing})
	for what, data := range bad {
		t.Run(what, func(t *testing.T) {
			err := load(data)
			require.Error(t, err)
			assert.NotContains(t, err.Error(), "\x1b")
			if strings.HasPrefix(what, "G02") {
				require.ErrorIs(t, err, bundle.ErrIncomplete)
				assert.ErrorContains(t, err, gone.String())
				assert.ErrorContains(t, err, "reg.example/missing:1")
			}
		})
	}
	t.Run("G10 link cycles", func(t *testing.T) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for a, to := range map[string]string{"manifest.json": "b", "b": "c", "c": "manifest.json"} {
			require.NoError(t, w.WriteHeader(&tar.Header{Name: a, Typeflag: tar.TypeSymlink, Linkname: to}))
		}
		require.NoError(t, w.Close())
		require.Error(t, load(b.Bytes()))
	})
	t.Run("G11 index.json is a symlink out of a layout", func(t *testing.T) {
		testimage.WriteLayout(t, filepath.Join(env.Dir, "layout"), map[string]testimage.Content{"1": img})
		index := filepath.Join(env.Dir, "layout", "index.json")
		require.NoError(t, os.Rename(index, filepath.Join(env.Dir, "outside.json")))
		require.NoError(t, os.Symlink("../outside.json", index))
		_, err := Copy(t.Context(), env, at(t, "oci:layout:1"), at(t, "store:x:1"), Options{})
		require.ErrorIs(t, err, source.ErrInvalid)
	})
	t.Run("G11 one tag twice", func(t *testing.T) {
		testimage.WriteLayout(t, filepath.Join(env.Dir, "twice"), map[string]testimage.Content{"a": img, "b": image("linux/amd64", "y")})
		index := filepath.Join(env.Dir, "twice", "index.json")
		data, err := os.ReadFile(index)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(index, bytes.ReplaceAll(data, []byte(`"b"`), []byte(`"a"`)), 0o600))
		_, err = Copy(t.Context(), env, at(t, "oci:twice:a"), at(t, "store:x:1"), Options{})
		require.ErrorIs(t, err, source.ErrAmbiguous)
	})
	after, err := env.Store.Refs()
	require.NoError(t, err)
	assert.Equal(t, before, after, "nothing got a name")
}

// zeros is a gzip of that many zeros.
func zeros(t *testing.T, n int64) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	require.NoError(t, err)
	_, err = io.CopyN(w, zeroReader{}, n)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestLoad_G13: a load that is refused at any request, and loads beside one another, leave no name before its closure, and
// the next run goes on.
func TestLoad_G13(t *testing.T) {
	t.Parallel()
	host, _ := serveRegistry(t)
	env := newEnv(t)
	refs := fleet(t, env, host)
	mustSave(t, env, "f.tar", SaveOptions{}, refs...)
	far, c := serveRegistry(t)
	to := place1(t, far+"/m")
	for n := 1; ; n += 7 {
		var left atomic.Int64
		left.Store(int64(n))
		c.setHook(func(w http.ResponseWriter, r *http.Request) bool {
			if left.Add(-1) < 0 {
				w.WriteHeader(http.StatusForbidden)
				return true
			}
			return false
		})
		_, err := Load(t.Context(), env, "f.tar", LoadOptions{To: to})
		c.setHook(nil)
		for _, r := range refs {
			target, terr := to.at(r)
			require.NoError(t, terr)
			if _, rerr := env.Registry.Resolve(t.Context(), target); rerr == nil {
				requireWhole(t, env, target)
			}
		}
		if err == nil {
			break
		}
		require.Less(t, n, 2000)
	}
	t.Run("beside one another", func(t *testing.T) {
		st := withStore(t, env)
		done := make(chan error)
		for range 3 {
			go func() {
				_, err := Load(context.WithoutCancel(t.Context()), st, "f.tar", LoadOptions{})
				done <- err
			}()
		}
		for range 3 {
			require.NoError(t, <-done)
		}
		found, err := st.Store.Check(t.Context(), store.CheckOptions{ReadData: true})
		require.NoError(t, err)
		for _, f := range found {
			assert.True(t, f.Harmless, f.String())
		}
		all, err := st.Store.Refs()
		require.NoError(t, err)
		assert.GreaterOrEqual(t, len(all), len(refs))
	})
}

// TestSave_unfinished: whoever writes the same file is told, and a stream that breaks is an error.
func TestSave_unfinished(t *testing.T) {
	t.Parallel()
	env := newEnv(t)
	testimage.WriteLayout(t, filepath.Join(env.Dir, "l"), map[string]testimage.Content{"1": app()})
	out := env
	out.Stdout = failing{}
	_, err := Save(t.Context(), out, []ref.Ref{at(t, "oci:l:1")}, "-", SaveOptions{})
	require.ErrorIs(t, err, fs.ErrClosed)
	_, err = Save(t.Context(), env, nil, "x.tar", SaveOptions{})
	require.ErrorIs(t, err, ErrInvalid)
	_, err = Save(t.Context(), env, []ref.Ref{at(t, "oci:l:2")}, "x.tar", SaveOptions{})
	require.ErrorIs(t, err, source.ErrNotFound)
	require.NoFileExists(t, filepath.Join(env.Dir, "x.tar.partial"))
	broken := app()
	for d, data := range broken.Blobs {
		if len(data) > 20 && data[0] == 0x1f {
			broken.Blobs[d] = append(slices.Clone(data[:len(data)-1]), data[len(data)-1]^1)
			break
		}
	}
	testimage.WriteLayout(t, filepath.Join(env.Dir, "b"), map[string]testimage.Content{"1": broken})
	_, err = Save(t.Context(), env, []ref.Ref{at(t, "oci:b:1")}, "x.tar", SaveOptions{})
	require.ErrorIs(t, err, source.ErrCorrupt)
	require.NoFileExists(t, filepath.Join(env.Dir, "x.tar"))
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, fs.ErrClosed }

func TestParsePlace(t *testing.T) {
	for in, want := range map[string]string{
		"store:": "store:", "": "store:", "oci:some/dir": "oci:some/dir", "registry.example": "registry.example",
		"registry.example:5000/a/b/": "registry.example:5000/a/b", "docker://localhost:1/x": "localhost:1/x",
	} {
		p, err := ParsePlace(in)
		require.NoError(t, err, in)
		assert.Equal(t, want, p.String(), in)
	}
	for _, in := range []string{"store:app", "oci:dir:tag", "oci-archive:x.tar", "team", "reg.example/UPPER", "reg.example/../x", "http://reg.example"} {
		_, err := ParsePlace(in)
		require.Error(t, err, in)
	}
	p, err := ParsePlace("mirror.example:5000/m")
	require.NoError(t, err)
	p.Scoped = true
	got, err := p.at(at(t, "registry.example:444/team/app:1"))
	require.NoError(t, err)
	assert.Equal(t, "mirror.example:5000/m/registry.example_444/team/app:1", got.String())
}
