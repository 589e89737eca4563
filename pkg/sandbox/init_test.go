//go:build linux

package sandbox

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestInitDies: an init that is killed before it says that it is ready is not waited for.
func TestInitDies(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: an init is started outside of an agent's user namespace")
	}
	dead, err := exec.LookPath("true")
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() {
		_, err := startInitFrom(dead)
		ended <- err
	}()
	select {
	case err := <-ended:
		require.ErrorIs(t, err, errInit)
	case <-time.After(time.Minute):
		t.Fatal("waits for an init that is dead")
	}
}
