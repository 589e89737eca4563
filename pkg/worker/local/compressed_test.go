package local

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// TestALargeLayerIsCompressedWhileItIsWritten: the form is in the store when the layer is, and its bytes are those of Compress.
func TestALargeLayerIsCompressedWhileItIsWritten(t *testing.T) {
	st, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, st.Close()) }()
	w := New(Options{Store: st})
	gzip, zstd := layer.Compression{}, layer.Compression{Algorithm: layer.Zstd}
	ctx := context.WithValue(t.Context(), pressKey{}, pressure{all: []layer.Compression{gzip, zstd}})
	for size, now := range map[int]bool{1000: false, pressFrom + 1: true, 5 << 20: true} {
		tar := testimage.Layer(testimage.File("f", string(bytes.Repeat([]byte("0123456789abcdef"), size/16+1)))).Tar
		l, err := w.commit(ctx, func(out io.Writer) error { _, err := out.Write(tar); return err })
		require.NoError(t, err)
		assert.Equal(t, digest.FromBytes(tar), l.DiffID)
		for _, c := range []layer.Compression{gzip, zstd} {
			var want bytes.Buffer
			require.NoError(t, layer.Compress(t.Context(), &want, bytes.NewReader(tar), c))
			desc, ok := w.Compressed(l.DiffID, c)
			require.Equal(t, now, ok, "%d bytes, %s", size, c)
			if !ok {
				desc, err = w.Compress(t.Context(), l, c)
				require.NoError(t, err)
			}
			assert.Equal(t, digest.FromBytes(want.Bytes()), desc.Digest, "%d bytes, %s", size, c)
			_, ok = w.Compressed(l.DiffID, c)
			assert.True(t, ok)
		}
		l, err = w.commit(notPressing(ctx), func(out io.Writer) error { _, err := out.Write(append(tar, 1)); return err })
		require.Error(t, err, "no tar: %v", l)
	}
}

// TestALayerThatNothingReadsIsKeptCompressed: a large one has no uncompressed form in the store, and everything that asks for it
// gets it all the same.
func TestALayerThatNothingReadsIsKeptCompressed(t *testing.T) {
	zstd := layer.Compression{Algorithm: layer.Zstd}
	text := string(bytes.Repeat([]byte("0123456789abcdef"), 1<<16))
	tar := testimage.Layer(testimage.Dir("d"), testimage.File("d/f", text)).Tar
	write := func(out io.Writer) error { _, err := out.Write(tar); return err }
	for name, tc := range map[string]struct {
		from   int64
		press  pressure
		packed bool
	}{
		"large":        {from: int64(len(tar)), press: pressure{[]layer.Compression{zstd}, true}, packed: true},
		"two forms":    {from: 1, press: pressure{[]layer.Compression{{}, zstd}, true}, packed: true},
		"smaller":      {from: int64(len(tar)) + 1, press: pressure{[]layer.Compression{zstd}, true}},
		"by default":   {press: pressure{[]layer.Compression{zstd}, true}},
		"read by some": {from: 1, press: pressure{[]layer.Compression{zstd}, false}},
		"no form":      {from: 1, press: pressure{nil, false}},
	} {
		t.Run(name, func(t *testing.T) {
			st, err := store.Open(t.Context(), t.TempDir(), store.Options{})
			require.NoError(t, err)
			defer func() { require.NoError(t, st.Close()) }()
			w := New(Options{Store: st, PackedFrom: tc.from})
			l, err := w.commit(context.WithValue(t.Context(), pressKey{}, tc.press), write)
			require.NoError(t, err)
			assert.Equal(t, digest.FromBytes(tar), l.DiffID)
			assert.Equal(t, int64(len(tar)), l.Size)
			assert.Equal(t, tc.packed, l.Packed != nil)
			_, err = st.Stat(l.DiffID)
			assert.Equal(t, tc.packed, errors.Is(err, store.ErrNotFound), "%v", err)
			_, err = st.Stat(l.Kept())
			require.NoError(t, err)
			if tc.packed {
				want, ok := w.Compressed(l.DiffID, tc.press.all[0])
				require.True(t, ok)
				assert.Equal(t, want, *l.Packed)
			}
			r, err := w.OpenLayer(t.Context(), l)
			require.NoError(t, err)
			got, err := io.ReadAll(r)
			require.NoError(t, errors.Join(err, r.Close()))
			assert.True(t, bytes.Equal(tar, got))
			view, err := w.View(t.Context(), []solve.Layer{l})
			require.NoError(t, err)
			f, err := view.Open("d/f")
			require.NoError(t, err)
			got, err = io.ReadAll(f)
			require.NoError(t, errors.Join(err, f.Close(), view.Close()))
			assert.True(t, text == string(got))
			_, err = st.Stat(l.DiffID)
			require.NoError(t, err, "it was unpacked for its files")
			entries, err := os.ReadDir(filepath.Join(st.Root(), "ingest"))
			require.NoError(t, err)
			assert.Empty(t, entries)
		})
	}
}
