//go:build unix

package source

import (
	"archive/tar"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

func TestSpecialFiles(t *testing.T) {
	dir := plant(t, map[string]string{"f": ""})
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	l, err := net.Listen("unix", filepath.Join(dir, "socket"))
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	f := openFiles(t, dir, FilesOptions{}, nil)
	assert.Equal(t, []string{"f", "pipe"}, names(f), "sockets are left out")
	assert.EqualValues(t, tar.TypeFifo, f.TOC.Entries[1].Type)

	// A file that became a fifo meanwhile is not waited for.
	require.NoError(t, os.Remove(filepath.Join(dir, "f")))
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "f"), 0o600))
	_, err = f.Source().OpenEntry(&f.TOC.Entries[0])
	require.ErrorIs(t, err, layer.ErrChanged)
}
