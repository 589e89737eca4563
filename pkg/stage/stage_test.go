package stage

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/internal/testregistry"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/serve"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

func mustParse(t testing.TB, s string) platform.Platform {
	t.Helper()
	p, err := platform.Parse(s)
	require.NoError(t, err)
	return p
}

func TestTag(t *testing.T) {
	for name, tc := range map[string]struct {
		id, platform string
		want         string // "": an error
	}{
		"plain":          {"4711", "linux/arm64", "_stage.4711.linux-arm64"},
		"variant":        {"a.b-c_d", "linux/arm/v7", "_stage.a.b-c_d.linux-arm-v7"},
		"normal form":    {"x", "linux/arm64/v8", "_stage.x.linux-arm64"},
		"begins so":      {"-x", "windows/amd64", "_stage.-x.windows-amd64"},
		"empty":          {"", "linux/arm64", ""},
		"a slash":        {"a/b", "linux/arm64", ""},
		"long":           {strings.Repeat("x", 81), "linux/arm64", ""},
		"with a version": {"x", "windows(10.0.17763)/amd64", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := mustParse(t, tc.platform)
			tag, err := Tag(tc.id, p)
			if tc.want == "" {
				require.ErrorIs(t, err, ErrInvalid)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tc.want, tag)
			id, back, ok := ParseTag(tag)
			require.True(t, ok)
			assert.Equal(t, tc.id, id)
			assert.Equal(t, p, back)
			assert.True(t, IsTag(tag))
		})
	}
	for _, other := range []string{"latest", "_stage.", "_stage.x", "_stage..linux-arm64", "_stage.x.linux-arm64-v8", "_stage.x.nothing-arm64", "_mctl.a.b.c"} {
		_, _, ok := ParseTag(other)
		assert.False(t, ok, other)
	}
}

func FuzzParseTag(f *testing.F) {
	for _, s := range []string{"_stage.4711.linux-arm-v7", "_stage.a.b.windows-amd64", "_stage..x", "latest", "_stage.x.linux-arm64-v8"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, tag string) {
		id, p, ok := ParseTag(tag)
		if !ok {
			return
		}
		back, err := Tag(id, p)
		if err != nil || back != tag {
			t.Errorf("%q is %q %s, which is %q, %v", tag, id, p, back, err)
		}
	})
}

func TestParseExpected(t *testing.T) {
	got, err := ParseExpected("linux/amd64, linux/arm64", "linux/arm/v7?")
	require.NoError(t, err)
	require.Len(t, got, 3)
	assert.False(t, got[1].Optional)
	assert.Equal(t, Expected{mustParse(t, "linux/arm/v7"), true}, got[2])
	for _, bad := range []string{"linux/amd64,linux/amd64?", "linux/amd64?", "linux/arm64/v8,linux/arm64"} {
		_, err := ParseExpected(bad)
		require.ErrorIs(t, err, ErrInvalid, bad)
	}
	_, err = ParseExpected("linux/amd64,")
	require.ErrorIs(t, err, platform.ErrInvalid)
}

// fixture is a registry and a clock that pauses move.
type fixture struct {
	env  transfer.Env
	repo ref.Ref
	now  time.Time
	o    Options
	hook func(n int) // at the n-th pause
}

func newFixture(t *testing.T, expect string) *fixture {
	t.Helper()
	h, err := serve.Handler(t.Context(), serve.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	srv := httptest.NewServer(h)
	client := registry.New(registry.Options{})
	t.Cleanup(func() {
		client.Close()
		srv.Close()
		require.NoError(t, h.Close())
	})
	f := &fixture{now: time.Unix(1e9, 0)}
	f.repo, err = ref.Parse(strings.TrimPrefix(srv.URL, "http://") + "/app")
	require.NoError(t, err)
	f.repo.Tag = ""
	f.env = transfer.Env{Registry: client, Now: func() time.Time { return f.now }}
	f.o.Expect, err = ParseExpected(expect)
	require.NoError(t, err)
	f.o.Pause = func(ctx context.Context, n int) error {
		f.now = f.now.Add(time.Second)
		if f.hook != nil {
			f.hook(n)
		}
		return ctx.Err()
	}
	return f
}

// stage leaves an image as a build does.
func (f *fixture) stage(t *testing.T, p string, set map[string]string) testimage.Content {
	t.Helper()
	c := testimage.Image(p, testimage.Layer(testimage.File("a", p)).Gzip())
	desc, raw, err := Record("1", []ocispec.Descriptor{c.Desc}, set, f.now)
	require.NoError(t, err)
	tag, err := Tag("1", mustParse(t, p))
	require.NoError(t, err)
	f.push(t, c)
	_, err = f.env.Registry.PushManifest(t.Context(), f.repo.WithTag(tag), desc.MediaType, raw)
	require.NoError(t, err)
	return c
}

func (f *fixture) push(t *testing.T, c testimage.Content) {
	t.Helper()
	dir := t.TempDir()
	testimage.WriteLayout(t, dir, map[string]testimage.Content{"x": c})
	src, err := ref.Parse("oci:" + dir + ":x")
	require.NoError(t, err)
	_, err = transfer.Copy(t.Context(), f.env, src, f.repo.WithDigest(c.Desc.Digest), transfer.Options{})
	require.NoError(t, err)
}

func (f *fixture) merge(t *testing.T) (Merged, error) {
	t.Helper()
	return Merge(t.Context(), f.env, f.repo, "1", []ref.Ref{f.repo.WithTag("v1")}, nil, f.o)
}

func TestMerge_waits(t *testing.T) {
	f := newFixture(t, "linux/amd64,linux/arm64,linux/s390x?")
	f.o.Wait = time.Minute
	var told []int
	f.o.Waiting = func(missing []Expected) { told = append(told, len(missing)) }
	amd := f.stage(t, "linux/amd64", map[string]string{"k": "first"})
	var arm testimage.Content
	f.hook = func(n int) {
		_, err := f.env.Registry.Resolve(t.Context(), f.repo.WithTag("v1"))
		require.ErrorIs(t, err, registry.ErrNotFound, "an incomplete index")
		if n == 3 {
			arm = f.stage(t, "linux/arm64", map[string]string{"k": "second", "other": "x"})
		}
	}
	done, err := f.merge(t)
	require.NoError(t, err)
	assert.Equal(t, []int{2}, told)
	assert.Equal(t, []platform.Platform{mustParse(t, "linux/s390x")}, done.Missing)
	idx, err := index.Parse(done.Raw)
	require.NoError(t, err)
	require.Len(t, idx.Manifests, 2)
	assert.Equal(t, amd.Desc.Digest, idx.Manifests[0].Digest)
	assert.Equal(t, arm.Desc.Digest, idx.Manifests[1].Digest)
	assert.Equal(t, map[string]string{"k": "first", "other": "x", AnnotationMissing: "linux/s390x"}, idx.Annotations)

	// Again: the same. And with the optional one, all of it.
	f.hook = nil
	again, err := f.merge(t)
	require.NoError(t, err)
	assert.Equal(t, done.Desc.Digest, again.Desc.Digest)
	f.stage(t, "linux/s390x", nil)
	all, err := f.merge(t)
	require.NoError(t, err)
	idx, err = index.Parse(all.Raw)
	require.NoError(t, err)
	assert.Len(t, idx.Manifests, 3)
	assert.NotContains(t, idx.Annotations, AnnotationMissing)
}

func TestMerge_ends(t *testing.T) {
	f := newFixture(t, "linux/amd64,linux/arm64")
	f.o.Wait = 10 * time.Second
	f.stage(t, "linux/amd64", nil)
	start := f.now
	_, err := f.merge(t)
	require.ErrorIs(t, err, ErrMissing)
	require.ErrorContains(t, err, "_stage.1.linux-arm64")
	assert.Equal(t, 10*time.Second, f.now.Sub(start))

	// One who is interrupted leaves nothing.
	stop := errors.New("stop")
	f.o.Pause = func(context.Context, int) error { return stop }
	_, err = f.merge(t)
	require.ErrorIs(t, err, stop)

	// Optional ones are waited for as long as it is asked for.
	f = newFixture(t, "linux/amd64,linux/arm64?")
	f.o.Grace = 5 * time.Second
	f.stage(t, "linux/amd64", nil)
	start = f.now
	done, err := f.merge(t)
	require.NoError(t, err)
	assert.Equal(t, 5*time.Second, f.now.Sub(start))
	assert.Len(t, done.Missing, 1)
	f.hook = func(int) {
		if f.now.Sub(start) == 7*time.Second {
			f.stage(t, "linux/arm64", nil)
		}
	}
	done, err = f.merge(t)
	require.NoError(t, err)
	assert.Empty(t, done.Missing)
}

func TestList(t *testing.T) {
	f := newFixture(t, "linux/amd64,linux/arm64")
	client := f.env.Registry
	f.stage(t, "linux/amd64", nil)
	f.now = f.now.Add(time.Hour)
	f.stage(t, "linux/arm64", nil)
	// What another program pushed: a single image, which another tag names as well.
	other := testimage.Image("linux/s390x", testimage.Layer(testimage.File("a", "s")).Gzip())
	f.push(t, other)
	for _, tag := range []string{"_stage.1.linux-s390x", "keep"} {
		_, err := client.PushManifest(t.Context(), f.repo.WithTag(tag), other.Desc.MediaType, other.Raw())
		require.NoError(t, err)
	}
	done, err := f.merge(t)
	require.NoError(t, err)
	list, err := List(t.Context(), client, f.repo, "1")
	require.NoError(t, err)
	require.Len(t, list, 3)
	assert.Equal(t, "linux/amd64", list[0].Platform.String())
	assert.Equal(t, time.Hour, list[1].Created.Sub(list[0].Created))
	assert.True(t, list[2].Created.IsZero())
	assert.Equal(t, done.Found[1].Desc.Digest, list[1].Image.Digest)
	none, err := List(t.Context(), client, f.repo, "2")
	require.NoError(t, err)
	assert.Empty(t, none)

	require.NoError(t, Remove(t.Context(), client, f.repo, list))
	require.NoError(t, Remove(t.Context(), client, f.repo, list), "again")
	tags, err := client.Tags(t.Context(), f.repo)
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{"v1", "keep"}, tags)
	for _, img := range done.Found {
		has, err := client.HasManifest(t.Context(), f.repo.WithDigest(img.Desc.Digest))
		require.NoError(t, err)
		assert.True(t, has)
	}
}

// TestMerge_denied: a registry that denies what it does not have is waited for; at the end that is said.
func TestMerge_denied(t *testing.T) {
	reg := testregistry.New(t, testregistry.Options{})
	reg.When("HEAD", testregistry.Manifests, 0, testregistry.Status(403, "DENIED"))
	reg.When("GET", testregistry.Manifests, 0, testregistry.Status(403, "DENIED"))
	f := newFixture(t, "linux/amd64")
	f.repo.Host = reg.Host
	f.o.Wait = 3 * time.Second
	start := f.now
	_, err := f.merge(t)
	require.ErrorIs(t, err, ErrMissing)
	require.ErrorIs(t, err, registry.ErrDenied)
	assert.Equal(t, 3*time.Second, f.now.Sub(start))
}

// mirrored leads pulls from a registry to a mirror first.
type mirrored struct{ host, mirror string }

func (m mirrored) Places(r ref.Ref, pull bool) ([]registry.Place, error) {
	places := []registry.Place{{Ref: r}}
	if pull && r.Host == m.host {
		to := r
		to.Host = m.mirror
		places = append([]registry.Place{{Ref: to, Mirror: true}}, places...)
	}
	return places, nil
}

// TestMerge_mirror: what a mirror has kept of an earlier record does not count.
func TestMerge_mirror(t *testing.T) {
	f, old := newFixture(t, "linux/amd64"), newFixture(t, "linux/amd64")
	c := f.stage(t, "linux/amd64", map[string]string{"k": "new"})
	old.stage(t, "linux/amd64", map[string]string{"k": "old"})
	f.env.Registry = registry.New(registry.Options{Places: mirrored{f.repo.Host, old.repo.Host}, CertDirs: []string{}})
	defer f.env.Registry.Close()
	done, err := f.merge(t)
	require.NoError(t, err)
	idx, err := index.Parse(done.Raw)
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"k": "new"}, idx.Annotations)
	assert.Equal(t, c.Desc.Digest, idx.Manifests[0].Digest)
}
