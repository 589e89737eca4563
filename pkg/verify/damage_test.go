package verify_test

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testexe"
	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/verify"
)

// TestRunDamaged: what a plain layer says is kept only when its digest was right to the last byte, whichever byte is not:
// it is hashed on another goroutine than the one that looks at it.
func TestRunDamaged(t *testing.T) {
	text := bytes.Repeat([]byte("text\n"), 400_000) // some buffers
	l := testimage.Layer(testimage.Exec("app", testexe.Exec("amd64")), testimage.File("text", string(text)))
	for name, at := range map[string]int{
		"in an executable": 600, "in a text": len(l.Tar) / 2, "in what follows the archive's end": len(l.Tar) - 1,
	} {
		t.Run(name, func(t *testing.T) {
			r := reader(t)
			c := starts("linux/amd64", l)
			good := c.Blobs[l.DiffID()]
			c.Blobs[l.DiffID()] = bytes.Clone(good)
			c.Blobs[l.DiffID()][at] ^= 1
			for range 2 { // nothing of the first look is kept
				report, err := r.Run(t.Context(), open(t, c), verify.Options{})
				require.NoError(t, err)
				assert.Equal(t, []string{"linux/amd64 broken-image", "linux/amd64 unread-layer"}, rules(report))
			}
			c.Blobs[l.DiffID()] = good
			img := open(t, c)
			report, err := r.Run(t.Context(), img, verify.Options{})
			require.NoError(t, err)
			assert.Empty(t, report.Findings)
			assert.Equal(t, 1, img.blobs)
		})
	}
	cut := starts("linux/amd64", l)
	cut.Blobs[l.DiffID()] = cut.Blobs[l.DiffID()][:len(l.Tar)-512]
	report, err := reader(t).Run(t.Context(), open(t, cut), verify.Options{})
	require.NoError(t, err)
	assert.Equal(t, []string{"linux/amd64 broken-image", "linux/amd64 unread-layer"}, rules(report))
}
