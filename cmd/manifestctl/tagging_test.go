package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
)

// TestBuildAppend_processes: processes add platforms to one name in the store at the same time, and none is lost.
func TestBuildAppend_processes(t *testing.T) {
	path, err := exec.LookPath("manifestctl")
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "rootfs.yaml"),
		[]byte("version: 1\nfrom: scratch\nsteps:\n  - files: [{path: /a, content: \"${TARGETARCH}\", expand: true}]\n"), 0o600))
	run := func(args ...string) (string, error) {
		cmd := exec.Command(path, append([]string{"--root", filepath.Join(dir, "store")}, args...)...)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, stderr.String())
		}
		return string(out), err
	}
	platforms := stagePlatforms[:6]
	var g errgroup.Group
	for _, p := range platforms {
		g.Go(func() error {
			_, err := run("build", "-q", "--append", "--platform", p, "-t", "app", dir)
			return err
		})
	}
	require.NoError(t, g.Wait())
	out, err := run("inspect", "--raw", "store:app")
	require.NoError(t, err)
	var idx ocispec.Index
	require.NoError(t, json.Unmarshal([]byte(out), &idx))
	assert.Len(t, idx.Manifests, len(platforms))
}
