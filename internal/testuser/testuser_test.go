//go:build unix

package testuser_test

import (
	"os"
	"os/user"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testuser"
)

func TestMain(m *testing.M) {
	code := m.Run()
	testuser.Cleanup()
	os.Exit(code)
}

func TestEach(t *testing.T) {
	ran := 0
	testuser.Each(t, func(t *testing.T) {
		ran++
		shared := testuser.Shared(t, "fixture", func(dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "by"), []byte(t.Name()), 0o644))
		})
		by, err := os.ReadFile(filepath.Join(shared, "by"))
		require.NoError(t, err)
		if filepath.Base(t.Name()) == "user" {
			return
		}
		assert.Equal(t, "TestEach/root", string(by), "built once, by the first")

		u, err := user.Current()
		require.NoError(t, err)
		want := map[string]string{"root": "root", "ranges": "mctl-ranges", "single": "mctl-single"}
		assert.Equal(t, want[filepath.Base(t.Name())], u.Username)
		if os.Geteuid() == 0 {
			return
		}
		groups, err := os.Getgroups()
		require.NoError(t, err)
		assert.Subset(t, []int{os.Getgid()}, groups)
		require.NoError(t, os.WriteFile(filepath.Join(t.TempDir(), "x"), nil, 0o600))
		home, err := os.UserHomeDir()
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(home, "x"), nil, 0o600))
	})
	assert.Equal(t, 1, ran, "once in this process")
}
