package credentials

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Podman as root makes /run/containers for itself alone.
func TestADirectoryOfAllUsersMayBeClosed(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("nothing is closed to root")
	}
	dir := filepath.Join(t.TempDir(), "closed")
	require.NoError(t, os.Mkdir(dir, 0))
	d, err := place{path: filepath.Join(dir, "1", "auth.json"), shared: true}.read()
	require.NoError(t, err)
	assert.Empty(t, d.auths)
	_, err = place{path: filepath.Join(dir, "1", "auth.json")}.read()
	require.ErrorIs(t, err, os.ErrPermission)
}
