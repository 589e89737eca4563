//go:build linux

package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testuser"
	"github.com/manifestctl/manifestctl/pkg/sandbox/ownview"
)

// TestView: a view shows the file that was opened, however its directory is called, and no other one.
func TestView(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		open := lockedView
		if os.Geteuid() == 0 { // both ways
			open = func(src *os.File) (*os.File, error) {
				view, err := sentView(src)
				require.NoError(t, err)
				require.NoError(t, view.Close())
				return ownview.Open(src)
			}
		}
		data, err := os.ReadFile(agentProgram(t))
		require.NoError(t, err)
		dir := filepath.Join(t.TempDir(), `a:b,c\d=e f`)
		require.NoError(t, os.Mkdir(dir, 0o700))
		file := filepath.Join(dir, "program")
		require.NoError(t, os.WriteFile(file, data, 0o700))
		src, err := os.Open(file)
		require.NoError(t, err)
		defer src.Close()
		view, err := open(src)
		require.NoError(t, err)
		defer view.Close()
		got, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", view.Fd()))
		require.NoError(t, err)
		assert.Equal(t, len(data), len(got))

		other := filepath.Join(dir, "other")
		require.NoError(t, os.WriteFile(other, data, 0o700))
		require.NoError(t, os.Rename(other, file))
		_, err = lockedView(src)
		require.Error(t, err, "it was replaced: its directory has another one")
	})
}
