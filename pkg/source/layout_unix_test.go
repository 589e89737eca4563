//go:build unix

package source

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/internal/testimage"
)

// TestLayoutFIFO: D11, a FIFO in the place of a blob is refused and never waited for.
func TestLayoutFIFO(t *testing.T) {
	content := testimage.Image("linux/amd64", testimage.Layer(testimage.File("f", "data")))
	dir := layoutOf(t, map[string]testimage.Content{"": content})
	file := blobFile(dir, content.Layers[0].DiffID())
	require.NoError(t, os.Remove(file))
	require.NoError(t, unix.Mkfifo(file, 0o600))
	require.ErrorIs(t, readEverything(t, "oci:"+dir), ErrInvalid)
	require.ErrorIs(t, readEverything(t, "oci-archive:"+file), ErrInvalid)
}
