package local

import (
	"bytes"
	"context"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// TestALargeLayerIsCompressedWhileItIsWritten: the form is in the store when the layer is, and its bytes are those of Compress.
func TestALargeLayerIsCompressedWhileItIsWritten(t *testing.T) {
	st, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, st.Close()) }()
	w := New(Options{Store: st})
	gzip, zstd := layer.Compression{}, layer.Compression{Algorithm: layer.Zstd}
	ctx := context.WithValue(t.Context(), pressKey{}, []layer.Compression{gzip, zstd})
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
