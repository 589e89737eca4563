package transfer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// platformsOf are the platforms under a tag, with the digests of their images.
func platformsOf(t testing.TB, env Env, tag ref.Ref) map[string]digest.Digest {
	t.Helper()
	_, raw, err := env.Registry.Manifest(t.Context(), tag)
	require.NoError(t, err)
	idx, err := index.Parse(raw)
	require.NoError(t, err)
	out := map[string]digest.Digest{}
	entries, err := idx.Entries()
	require.NoError(t, err)
	for _, e := range entries {
		require.NotContains(t, out, slotKey(e), "twice")
		out[slotKey(e)] = e.Digest
	}
	return out
}

func appendTo(t testing.TB, env Env, tag ref.Ref, o AppendOptions, images ...testimage.Content) (Appended, error) {
	t.Helper()
	var entries []index.Entry
	for _, c := range images {
		put(t, env, c, tag.WithDigest(c.Desc.Digest))
		entries = append(entries, entryOf(t, c))
	}
	return Append(t.Context(), env, tag, entries, o)
}

func TestAppend(t *testing.T) {
	t.Parallel()
	for name, start := range registries {
		t.Run(name, func(t *testing.T) {
			host, _ := start(t)
			env := newEnv(t)
			amd, arm, arm2 := image("linux/amd64", "1"), image("linux/arm64", "1"), image("linux/arm64", "2")

			t.Run("to nothing", func(t *testing.T) {
				tag := at(t, "%s/nothing:1", host)
				first, err := appendTo(t, env, tag, AppendOptions{}, arm)
				require.NoError(t, err)
				second, err := appendTo(t, env, tag, AppendOptions{}, amd)
				require.NoError(t, err)
				assert.NotEqual(t, first.Desc.Digest, second.Desc.Digest)
				assert.Equal(t, second.Desc.Digest, requireWhole(t, env, tag).Digest)
				assert.Equal(t, map[string]digest.Digest{"linux/amd64": amd.Desc.Digest, "linux/arm64": arm.Desc.Digest}, platformsOf(t, env, tag))

				other := at(t, "%s/nothing:2", host)
				_, err = appendTo(t, env, other, AppendOptions{}, amd)
				require.NoError(t, err)
				again, err := appendTo(t, env, other, AppendOptions{}, arm)
				require.NoError(t, err)
				assert.Equal(t, second.Desc.Digest, again.Desc.Digest, "the order of writers leaves no trace")
			})
			t.Run("twice the same", func(t *testing.T) {
				tag := at(t, "%s/same:1", host)
				first, err := appendTo(t, env, tag, AppendOptions{}, arm)
				require.NoError(t, err)
				second, err := appendTo(t, env, tag, AppendOptions{}, arm)
				require.NoError(t, err)
				assert.Equal(t, first.Desc, second.Desc)
			})
			t.Run("to an index", func(t *testing.T) {
				tag := at(t, "%s/index:1", host)
				put(t, env, testimage.Index(image("linux/s390x", "x"), amd), tag)
				_, err := appendTo(t, env, tag, AppendOptions{Annotations: map[string]string{"a": "b"}}, arm)
				require.NoError(t, err)
				_, raw, err := env.Registry.Manifest(t.Context(), tag)
				require.NoError(t, err)
				idx, err := index.Parse(raw)
				require.NoError(t, err)
				assert.Equal(t, "b", idx.Annotations["a"])
				require.Len(t, idx.Manifests, 3)
				assert.Equal(t, "s390x", idx.Manifests[0].Platform.Architecture, "what was there keeps its place")
				assert.Equal(t, arm.Desc.Digest, idx.Manifests[2].Digest)
			})
			t.Run("to a single image", func(t *testing.T) {
				tag := at(t, "%s/single:1", host)
				put(t, env, amd, tag)
				_, err := appendTo(t, env, tag, AppendOptions{}, arm)
				require.NoError(t, err)
				assert.Equal(t, map[string]digest.Digest{"linux/amd64": amd.Desc.Digest, "linux/arm64": arm.Desc.Digest}, platformsOf(t, env, tag))
			})
			t.Run("B11 a platform that is there", func(t *testing.T) {
				tag := at(t, "%s/there:1", host)
				_, err := appendTo(t, env, tag, AppendOptions{}, amd, arm)
				require.NoError(t, err)
				before := requireWhole(t, env, tag)
				_, err = appendTo(t, env, tag, AppendOptions{}, arm2)
				require.ErrorIs(t, err, index.ErrDuplicate)
				assert.Equal(t, before, requireWhole(t, env, tag))
				_, err = appendTo(t, env, tag, AppendOptions{Replace: true}, arm2)
				require.NoError(t, err)
				assert.Equal(t, map[string]digest.Digest{"linux/amd64": amd.Desc.Digest, "linux/arm64": arm2.Desc.Digest}, platformsOf(t, env, tag))
				_, err = appendTo(t, env, tag, AppendOptions{Replace: true}, arm)
				require.NoError(t, err)
				assert.Equal(t, map[string]digest.Digest{"linux/amd64": amd.Desc.Digest, "linux/arm64": arm.Desc.Digest}, platformsOf(t, env, tag), "and back")
			})
			t.Run("a tag that was replaced", func(t *testing.T) {
				tag := at(t, "%s/replaced:1", host)
				_, err := appendTo(t, env, tag, AppendOptions{}, amd, arm)
				require.NoError(t, err)
				put(t, env, testimage.Index(image("linux/amd64", "new")), tag)
				_, err = appendTo(t, env, tag, AppendOptions{}, image("linux/s390x", "new"))
				require.NoError(t, err)
				got := platformsOf(t, env, tag)
				assert.Len(t, got, 2)
				assert.NotContains(t, got, "linux/arm64", "its marker was for what is gone")
			})
		})
	}
}

// TestAppend_markersEnd: an hour later markers do not count, and are removed.
func TestAppend_markersEnd(t *testing.T) {
	t.Parallel()
	for name, start := range registries {
		t.Run(name, func(t *testing.T) {
			host, _ := start(t)
			env := newEnv(t)
			now := time.Unix(1_700_000_000, 0)
			env.Now = func() time.Time { return now }
			tag := at(t, "%s/app:1", host)
			amd, arm := image("linux/amd64", "1"), image("linux/arm64", "1")
			_, err := appendTo(t, env, tag, AppendOptions{}, amd)
			require.NoError(t, err)
			tags, err := env.Registry.Tags(t.Context(), tag)
			require.NoError(t, err)
			require.Len(t, tags, 2)
			marker := tags[1]
			if !IsMarker(marker) {
				marker = tags[0]
			}
			assert.LessOrEqual(t, len(marker), 128)

			now = now.Add(2 * time.Hour)
			_, err = appendTo(t, env, tag, AppendOptions{}, arm)
			require.NoError(t, err)
			assert.Len(t, platformsOf(t, env, tag), 2)
			tags, err = env.Registry.Tags(t.Context(), tag)
			require.NoError(t, err)
			if name == "serve" { // distribution 2.8 lists the tags of manifests that are gone
				assert.NotContains(t, tags, marker)
			}
			_, err = env.Registry.Resolve(t.Context(), tag.WithTag(marker))
			require.ErrorIs(t, err, registry.ErrNotFound)

			now = now.Add(2 * time.Hour)
			before := requireWhole(t, env, tag)
			_, err = appendTo(t, env, tag, AppendOptions{}, arm)
			require.NoError(t, err)
			assert.Equal(t, before, requireWhole(t, env, tag), "what is there is left alone")
		})
	}
}

// TestAppend_conflict: of two writers of one platform at the same time one is told.
func TestAppend_conflict(t *testing.T) {
	t.Parallel()
	host, _ := serveRegistry(t)
	env := newEnv(t)
	tag := at(t, "%s/app:1", host)
	for round := range 5 {
		name := tag.WithTag(fmt.Sprintf("r%d", round))
		var won, told atomic.Int32
		g, ctx := errgroup.WithContext(t.Context())
		var digests sync.Map
		for i := range 8 {
			c := image("linux/amd64", strconv.Itoa(i))
			put(t, env, c, name.WithDigest(c.Desc.Digest))
			e := entryOf(t, c)
			g.Go(func() error {
				_, err := Append(ctx, env, name, []index.Entry{e}, AppendOptions{})
				switch {
				case err == nil:
					won.Add(1)
					digests.Store(e.Digest, true)
				case errors.Is(err, ErrConflict), errors.Is(err, index.ErrDuplicate):
					told.Add(1)
				default:
					return err
				}
				return nil
			})
		}
		require.NoError(t, g.Wait())
		assert.EqualValues(t, 8, won.Load()+told.Load())
		got := platformsOf(t, env, name)
		require.Len(t, got, 1)
		_, ok := digests.Load(got["linux/amd64"])
		assert.True(t, ok, "what is there is of a writer that was told so")
	}
}

// slowly delays requests that read and write, each by its own time, so that others come between. What was asked for is done, also when
// who asked was killed meanwhile.
func (c *counter) slowly(most time.Duration) {
	c.setHook(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/manifests/") || strings.Contains(r.URL.Path, "/tags/") {
			time.Sleep(rand.N(most))
		}
		c.Handler.ServeHTTP(w, r.WithContext(context.WithoutCancel(r.Context())))
		return true
	})
}

// TestAppend_C24 has many writers append different platforms to one tag: nobody is lost, and whatever a reader sees is whole.
func TestAppend_C24(t *testing.T) {
	t.Parallel()
	writers, rounds := 16, 2
	if testing.Short() {
		writers, rounds = 8, 1
	}
	if n := soakRounds(); n > 0 {
		writers, rounds = 50, n
	}
	for name, start := range registries {
		t.Run(name, func(t *testing.T) {
			host, c := start(t)
			c.slowly(20 * time.Millisecond)
			for round := range rounds {
				tag := at(t, "%s/app:r%d", host, round)
				raceOnce(t, c, tag, writers, 0)
			}
		})
	}
}

// TestAppend_C29 kills writers at any point and runs them again.
func TestAppend_C29(t *testing.T) {
	t.Parallel()
	writers, rounds := 12, 2
	if testing.Short() {
		writers, rounds = 6, 1
	}
	if n := soakRounds(); n > 0 {
		writers, rounds = 50, n
	}
	for name, start := range registries {
		t.Run(name, func(t *testing.T) {
			host, c := start(t)
			c.slowly(20 * time.Millisecond)
			for round := range rounds {
				raceOnce(t, c, at(t, "%s/app:k%d", host, round), writers, 60*time.Millisecond)
			}
		})
	}
}

// raceOnce lets writers append to one tag at the same time. With kill, each is ended after a random time up to that, a
// few times, and run again. What a killed writer wrote may arrive after its next run, and is then mended by an append of anybody.
func raceOnce(t *testing.T, c *counter, tag ref.Ref, writers int, kill time.Duration) {
	t.Helper()
	env := newEnv(t)
	defer env.Registry.Close() // connections are counted, in the next round too
	images := make([]testimage.Content, writers)
	for i := range images {
		images[i] = image(fmt.Sprintf("linux/arch%02d", i), tag.Tag)
		put(t, env, images[i], tag.WithDigest(images[i].Desc.Digest))
	}
	seen, stop := readAll(t, env, tag)
	g, ctx := errgroup.WithContext(t.Context())
	for _, img := range images {
		e := entryOf(t, img)
		g.Go(func() error {
			own := newEnv(t)           // as a process of its own
			defer own.Registry.Close() // its connections end with it: there are a thousand in the long form
			for range 3 {
				if kill == 0 {
					break
				}
				brief, cancel := context.WithTimeout(ctx, rand.N(kill))
				_, err := Append(brief, own, tag, []index.Entry{e}, AppendOptions{})
				cancel()
				if err == nil {
					return nil
				}
			}
			_, err := Append(ctx, own, tag, []index.Entry{e}, AppendOptions{})
			return err
		})
	}
	require.NoError(t, g.Wait())
	stop()
	if kill > 0 {
		env.Registry.Close()
		c.conns.Gone(t)
		_, err := Append(t.Context(), env, tag, []index.Entry{entryOf(t, images[0])}, AppendOptions{})
		require.NoError(t, err)
	}
	got := platformsOf(t, env, tag)
	for _, img := range images {
		p := "linux/" + img.Desc.Platform.Architecture
		assert.Equal(t, img.Desc.Digest, got[p], p)
	}
	assert.Len(t, got, writers)
	requireSeenWhole(t, env, tag, seen)
}

// readAll reads a tag all the time, until stop; seen are the digests that it had.
func readAll(t *testing.T, env Env, tag ref.Ref) (seen map[digest.Digest]bool, stop func()) {
	t.Helper()
	seen = map[digest.Digest]bool{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if desc, err := env.Registry.Resolve(ctx, tag); err == nil {
				seen[desc.Digest] = true
			}
		}
	}()
	return seen, func() {
		cancel()
		<-done
		if desc, err := env.Registry.Resolve(t.Context(), tag); assert.NoError(t, err) {
			seen[desc.Digest] = true
		}
	}
}

// requireSeenWhole holds every index that was under a tag to being complete.
func requireSeenWhole(t *testing.T, env Env, tag ref.Ref, seen map[digest.Digest]bool) {
	t.Helper()
	require.NotEmpty(t, seen)
	for d := range seen {
		requireWhole(t, env, tag.WithDigest(d))
	}
}

// soakRounds is how many rounds MANIFESTCTL_SOAK asks for: 20, or as many as it says; 0 is the short form.
func soakRounds() int {
	n, err := strconv.Atoi(os.Getenv("MANIFESTCTL_SOAK"))
	switch {
	case err != nil:
		return 0
	case n == 1:
		return 20
	}
	return n
}
