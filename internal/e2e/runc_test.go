package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// hostRunsContainers tells whether runc, which docker, podman and containerd have in common, can run anything here: in some
// machines of CI there are no cgroups for it. What then is left of a test says so.
func hostRunsContainers(t *testing.T) bool {
	t.Helper()
	said, err := runcHello()
	if err != nil {
		t.Logf("runc runs nothing on this machine, so nothing is run here: %v: %s", err, said)
	}
	return err == nil
}

var runcHello = sync.OnceValues(func() (said string, err error) {
	dir, err := os.MkdirTemp("", "runc-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // in the temporary directory
	if err := os.MkdirAll(filepath.Join(dir, "rootfs/bin"), 0o755); err != nil {
		return "", err
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return "", err
	}
	if out, err := exec.Command("cp", busybox, filepath.Join(dir, "rootfs/bin/busybox")).CombinedOutput(); err != nil {
		return string(out), err
	}
	spec := exec.Command("runc", "spec")
	spec.Dir = dir
	if out, err := spec.CombinedOutput(); err != nil {
		return string(out), err
	}
	file := filepath.Join(dir, "config.json")
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		return "", err
	}
	process, _ := config["process"].(map[string]any)
	process["terminal"], process["args"] = false, []string{"/bin/busybox", "echo", "hello"}
	delete(process, "rlimits")
	if text, err = json.Marshal(config); err != nil {
		return "", err
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return "", err
	}
	run := exec.Command("runc", "--root", filepath.Join(dir, "state"), "run", "manifestctl-e2e-"+filepath.Base(dir))
	run.Dir = dir
	out, err := run.CombinedOutput()
	if err == nil && strings.TrimSpace(string(out)) != "hello" {
		err = exec.ErrNotFound
	}
	return string(out), err
})

// TestContainersRunHere shows what the tests that run containers go by.
func TestContainersRunHere(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("runc wants to be root")
	}
	needs(t, "runc", "busybox")
	if !hostRunsContainers(t) {
		t.Skip("this machine runs no containers")
	}
	said, err := runcHello()
	require.NoError(t, err)
	require.Equal(t, "hello\n", said)
}
