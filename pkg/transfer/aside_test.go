package transfer

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/internal/testregistry"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// large is an image with a layer that is sent aside, and that layer's bytes.
func large() (testimage.Content, testimage.LayerData) {
	var text strings.Builder
	for i := range 60_000 {
		fmt.Fprintf(&text, "line %d\n", i)
	}
	l := testimage.Layer(testimage.File("text", text.String()))
	return testimage.Image("linux/amd64", l), l
}

// TestCopy_D11_aside: of a layout's blob that is damaged no registry gets the last bytes, whatever it checks itself.
func TestCopy_D11_aside(t *testing.T) {
	t.Parallel()
	c, l := large()
	for name, damage := range map[string]int{"whole": -1, "the first byte": 0, "the last byte": len(l.Blob()) - 1} {
		t.Run(name, func(t *testing.T) {
			env := newEnv(t)
			there := testregistry.New(t, testregistry.Options{})
			testimage.WriteLayout(t, filepath.Join(env.Dir, "l"), map[string]testimage.Content{"1": withDamage(c, l, damage)})
			_, err := Copy(t.Context(), env, at(t, "oci:l:1"), at(t, "%s/app:1", there.Host), Options{})
			if damage < 0 {
				require.NoError(t, err)
				got, ok := there.Blob("app", l.DiffID())
				assert.True(t, ok && bytes.Equal(got, l.Blob()))
				return
			}
			require.ErrorIs(t, err, source.ErrCorrupt)
			for _, put := range there.Of("PUT", testregistry.Uploads) {
				if strings.Contains(put.Query, l.DiffID().Encoded()) {
					assert.Less(t, put.Received, int64(len(l.Blob())))
				}
			}
			_, ok := there.Manifest("app", "1")
			assert.False(t, ok)
		})
	}
}

// withDamage flips a bit of the layer.
func withDamage(c testimage.Content, l testimage.LayerData, at int) testimage.Content {
	out := testimage.Content{Desc: c.Desc, Blobs: map[digest.Digest][]byte{}}
	for d, b := range c.Blobs {
		out.Blobs[d] = b
		if d == l.DiffID() && at >= 0 {
			b = bytes.Clone(b)
			b[at] ^= 1
			out.Blobs[d] = b
		}
	}
	return out
}

// TestStream_aside: the wrapper passes it on, but not where somebody counts the bytes.
func TestStream_aside(t *testing.T) {
	c, l := large()
	dir := filepath.Join(t.TempDir(), "l")
	testimage.WriteLayout(t, dir, map[string]testimage.Content{"1": c})
	img, err := newEnv(t).opener().Open(t.Context(), at(t, "oci:%s:1", dir))
	require.NoError(t, err)
	defer img.Close()
	m, _, err := source.ReadManifest(t.Context(), img, img.Root())
	require.NoError(t, err)
	require.Equal(t, l.DiffID(), m.Layers[0].Digest)
	for name, pace := range map[string]func(context.Context, int64) error{
		"free":  nil,
		"paced": func(context.Context, int64) error { return nil },
	} {
		rc, err := img.Blob(t.Context(), m.Layers[0])
		require.NoError(t, err)
		file, _ := (&stream{ReadCloser: rc, pace: pace}).Aside()
		assert.Equal(t, pace == nil, file != nil, name)
		require.NoError(t, rc.Close())
	}
}
