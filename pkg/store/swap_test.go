package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSwapRef(t *testing.T) {
	ctx := t.Context()
	s, err := Open(ctx, t.TempDir(), Options{})
	require.NoError(t, err)
	defer s.Close()
	put := func(text string) ocispec.Descriptor {
		d, err := s.PutBytes(ctx, "text/plain", []byte(text))
		require.NoError(t, err)
		return d
	}
	a, b := put("a"), put("b")

	require.ErrorIs(t, s.SwapRef(ctx, "x", a.Digest, b), ErrConflict, "there is none")
	require.NoError(t, s.SwapRef(ctx, "x", "", a))
	require.ErrorIs(t, s.SwapRef(ctx, "x", "", b), ErrConflict, "there is one")
	require.ErrorIs(t, s.SwapRef(ctx, "x", b.Digest, b), ErrConflict, "there is another")
	require.NoError(t, s.SwapRef(ctx, "x", a.Digest, b))
	require.ErrorIs(t, s.RemoveRef(ctx, "x", a.Digest), ErrConflict)
	require.NoError(t, s.RemoveRef(ctx, "x", b.Digest))
	require.ErrorIs(t, s.RemoveRef(ctx, "x", b.Digest), ErrConflict)
	require.ErrorIs(t, s.SwapRef(ctx, "x", "", ocispec.Descriptor{Digest: digest.FromString("absent")}), ErrNotFound)
}

// TestB26 has many handles add to one value: nothing is lost.
func TestB26_SwapRefLosesNothing(t *testing.T) {
	ctx, root := t.Context(), t.TempDir()
	const writers, rounds = 8, 5
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for w := range writers {
		wg.Go(func() { errs[w] = addLines(ctx, root, w, rounds) })
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))

	s, err := Open(ctx, root, Options{})
	require.NoError(t, err)
	defer s.Close()
	d, err := s.GetRef("x")
	require.NoError(t, err)
	data, err := s.ReadAll(ctx, d, 1<<20)
	require.NoError(t, err)
	assert.Equal(t, writers*rounds, strings.Count(string(data), "\n"))
}

func addLines(ctx context.Context, root string, writer, rounds int) error {
	s, err := Open(ctx, root, Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	for round := 0; round < rounds; {
		old, err := s.GetRef("x")
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		var data []byte
		if old.Digest != "" {
			if data, err = s.ReadAll(ctx, old, 1<<20); err != nil {
				return err
			}
		}
		next, err := s.PutBytes(ctx, "text/plain", fmt.Appendf(data, "%d %d\n", writer, round))
		if err != nil {
			return err
		}
		switch err := s.SwapRef(ctx, "x", old.Digest, next); {
		case err == nil:
			round++
		case !errors.Is(err, ErrConflict):
			return err
		}
	}
	return nil
}

func TestOrigins(t *testing.T) {
	ctx := t.Context()
	root := t.TempDir()
	s, err := Open(ctx, root, Options{})
	require.NoError(t, err)
	absent := digest.FromString("a layer")
	manifest, err := s.PutBytes(ctx, ocispec.MediaTypeImageManifest, fmt.Appendf(nil, `{"schemaVersion":2,"config":{"mediaType":"c","digest":%q,"size":1},"layers":[]}`, absent))
	require.NoError(t, err)

	got, err := s.Origins(manifest.Digest)
	require.NoError(t, err)
	assert.Empty(t, got)
	require.NoError(t, s.SetRef(ctx, "x", manifest))
	found, err := s.Check(ctx, CheckOptions{})
	require.NoError(t, err)
	assert.Len(t, found, 1, "a blob is missing")

	require.NoError(t, s.AddOrigin(ctx, manifest.Digest, "here"))
	require.NoError(t, s.AddOrigin(ctx, manifest.Digest, "there", "here"))
	got, err = s.Origins(manifest.Digest)
	require.NoError(t, err)
	assert.Equal(t, []string{"there", "here"}, got)
	for i := range 2 * maxOrigins {
		require.NoError(t, s.AddOrigin(ctx, manifest.Digest, fmt.Sprint(i)))
	}
	got, err = s.Origins(manifest.Digest)
	require.NoError(t, err)
	assert.Len(t, got, maxOrigins)
	require.Error(t, s.AddOrigin(ctx, "sha256:../x", "here"))

	found, err = s.Check(ctx, CheckOptions{})
	require.NoError(t, err)
	assert.Empty(t, found, "a blob that lies elsewhere is not missing")

	require.NoError(t, s.Close())
	s, err = Open(ctx, root, Options{})
	require.NoError(t, err)
	defer s.Close()
	_, err = s.GC(ctx, GCOptions{Cache: true})
	require.NoError(t, err)
	got, err = s.Origins(manifest.Digest)
	require.NoError(t, err)
	assert.NotEmpty(t, got, "it is no cache")

	require.NoError(t, s.DeleteRef(ctx, "x"))
	_, err = s.GC(ctx, GCOptions{})
	require.NoError(t, err)
	got, err = s.Origins(manifest.Digest)
	require.NoError(t, err)
	assert.Empty(t, got, "it goes with its manifest")
}
