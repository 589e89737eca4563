//go:build linux

package e2e

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// killedInPlace kills the processes of a build while a step has the root file system of its container. Whichever is left gives it back; where
// none is, the next one that is started does.
func killedInPlace(t *testing.T, docker func(args ...string) *exec.Cmd, dir string) {
	const name = "inplace"
	args := []string{"run", "-d", "--name", name, "--network", "none", "-v", dir + ":/ctx:ro", "-v", t.TempDir() + ":/store"}
	for _, c := range containers {
		if c.runs == "" && len(c.inplace) == 0 {
			args = append(args, c.args...)
			break
		}
	}
	must(t, docker(append(args, "manifestctl", "/bin/busybox", "sleep", "3211")...))
	t.Cleanup(func() { assert.NoError(t, docker("rm", "-f", name).Run()) })
	look := func() string {
		out, err := docker("exec", name, "/bin/busybox", "ls", "-lAR", "/bin", "/usr", "/etc", "/tmp").CombinedOutput()
		if err != nil {
			return err.Error() + string(out)
		}
		return string(out)
	}
	before := look()
	require.Contains(t, before, "qemu-aarch64-static")
	// pid is that of a process of the container, 0 for none.
	pid := func(t *testing.T, what string) int {
		t.Helper()
		out, err := output(docker("top", name, "-o", "pid,args"))
		require.NoError(t, err)
		for line := range strings.Lines(string(out)) {
			if f := strings.Fields(line); len(f) > 1 && strings.Contains(line, what) {
				n, err := strconv.Atoi(f[0])
				require.NoError(t, err)
				return n
			}
		}
		return 0
	}
	const step, build, agent = "sleep 3210", "build --executor inplace", "manifestctl-sandbox-agent"
	for _, victims := range [][]string{{build}, {agent}, {build, agent}} {
		t.Run(strings.Join(victims, " and "), func(t *testing.T) {
			must(t, docker("exec", "-d", name, "/bin/manifestctl", "--root", "/store", "build", "--executor", "inplace", "-o", "type=oci,dest=/work/killed.tar", "-f", "/ctx/Sleep", "/ctx"))
			require.Eventually(t, func() bool { return pid(t, step) != 0 }, 3*time.Minute, 50*time.Millisecond)
			assert.NotEqual(t, before, look(), "the step has the root")
			var pids []int
			for _, v := range victims {
				pids = append(pids, pid(t, v))
				require.NotZero(t, pids[len(pids)-1], v)
			}
			for _, p := range pids { // at once, so that none of two sees the other's end
				require.NoError(t, syscall.Kill(p, syscall.SIGKILL))
			}
			require.Eventually(t, func() bool { return pid(t, step) == 0 && pid(t, "manifestctl") == 0 }, 3*time.Minute, 50*time.Millisecond)
			if len(victims) == 2 {
				out, err := output(docker("exec", name, "/.manifestctl-inplace/manifestctl", "doctor", "--executor", "inplace"))
				require.NoError(t, err, "%s", out)
				assert.Contains(t, string(out), "a build that was killed had left a step's files here")
			}
			assert.Equal(t, before, look())
			out, err := docker("exec", name, "/bin/busybox", "ls", "-d", "/.manifestctl-inplace").CombinedOutput()
			require.Error(t, err, "%s", out)
		})
	}
	t.Run("a mount", func(t *testing.T) {
		out, err := docker("exec", name, "/bin/manifestctl", "--root", "/store", "build", "--executor", "inplace", "--progress", "plain", "-f", "/ctx/Mounts", "/ctx").CombinedOutput()
		require.Error(t, err)
		assert.Contains(t, string(out), "permission denied (are you root?)")
		assert.Equal(t, before, look())
	})
	t.Run("what it reaches", func(t *testing.T) {
		out, err := docker("exec", name, "/bin/manifestctl", "--root", "/store", "build", "--executor", "inplace", "--progress", "plain", "-f", "/ctx/Reach", "/ctx").CombinedOutput()
		require.Error(t, err)
		assert.Contains(t, string(out), "can't open '/proc/1/environ': Permission denied")
		assert.Equal(t, before, look())
	}) // The last: what it does cannot be undone.
	t.Run("mounts that are moved", func(t *testing.T) {
		out, err := docker("exec", name, "/bin/manifestctl", "--root", "/store", "build", "--executor", "inplace", "--progress", "plain", "-f", "/ctx/Moves", "/ctx").CombinedOutput()
		require.Error(t, err)
		assert.Contains(t, string(out), "away, a mount of this container, which cannot be brought back: start it anew")
		assert.Contains(t, look(), "qemu-aarch64-static", "all else is back")
	})
}
