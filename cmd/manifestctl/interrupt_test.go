//go:build unix

package main

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const sleepingSpec = `version: 1
from: scratch
steps:
  - files:
      - {path: /bin/busybox, source: busybox, mode: "0755"}
      - {path: /bin/sh, type: symlink, target: busybox}
  - run: |
      /bin/busybox echo asleep
      /bin/busybox sleep 600
`

// TestD19_Interrupt ends builds in the middle of a step, as Ctrl-C and a CI runner's time limit do.
func TestD19_Interrupt(t *testing.T) {
	busybox, err := staticBusybox()
	if err != nil || !canRunSteps() {
		t.Skipf("this host cannot run the step: user namespaces %v, busybox %v", canRunSteps(), err)
	}
	for name, tc := range map[string]struct {
		signal syscall.Signal
		code   int
	}{
		"Ctrl-C":     {syscall.SIGINT, exitInterrupted},
		"time limit": {syscall.SIGTERM, exitTerminated},
		"hang-up":    {syscall.SIGHUP, exitTerminated},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			data, err := os.ReadFile(busybox)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, "busybox"), data, 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "rootfs.yaml"), []byte(sleepingSpec), 0o600))
			root := filepath.Join(dir, "store")
			path, err := exec.LookPath("manifestctl")
			require.NoError(t, err)

			cmd := exec.Command(path, "--root", root, "build", "--progress", "plain", "-t", "never:1", dir)
			stderr, err := cmd.StderrPipe()
			require.NoError(t, err)
			var stdout strings.Builder
			cmd.Stdout = &stdout
			require.NoError(t, cmd.Start())
			var talk strings.Builder
			signalled := false
			for lines := bufio.NewScanner(stderr); lines.Scan(); {
				talk.WriteString(lines.Text() + "\n")
				if !signalled && strings.HasSuffix(lines.Text(), " asleep") {
					require.NoError(t, cmd.Process.Signal(tc.signal))
					signalled = true
				}
			}
			start := time.Now()
			err = cmd.Wait()
			require.True(t, signalled, "%s", talk.String())
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, "%s", talk.String())
			assert.Equal(t, tc.code, exit.ExitCode(), "%s", talk.String())
			assert.Less(t, time.Since(start), 5*time.Minute, "the step sleeps for ten")
			assert.Empty(t, stdout.String())
			assert.Contains(t, talk.String(), "CANCELED")

			check, err := exec.Command(path, "--root", root, "store", "check", "--read-data").CombinedOutput()
			require.NoError(t, err, "%s", check)
			names, err := exec.Command(path, "--root", root, "store", "ls").Output()
			require.NoError(t, err)
			assert.NotContains(t, string(names), "never:1")
			assertNoUploads(t, filepath.Join(root, "ingest"))
		})
	}
}

// assertNoUploads holds the store to leaving no unfinished blobs behind.
func assertNoUploads(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(t, err)
	}
	assert.Empty(t, entries)
}
