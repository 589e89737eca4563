package e2e

import (
	"bytes"
	"errors"
	"io/fs"
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

// busybox makes a context of w's with amd64.tar and arm64.tar, static busybox each, and a spec.
func busybox(t *testing.T, w who, name, spec string) string {
	t.Helper()
	tool(t, "mmdebstrap")
	tars := filepath.Join(shared.dir, "busybox")
	require.NoError(t, os.MkdirAll(tars, 0o755))
	must(t, exec.Command("../../scripts/busybox.sh", tars, "amd64", "arm64"))
	dir := w.copyTree(t, tars, name)
	head := "version: 1\nplatforms: [linux/amd64, linux/arm64]\nfrom: scratch\nsteps:\n" +
		"  - archive: {source: \"${DEB_ARCH}.tar\", path: /}\n  - files:\n"
	for _, applet := range []string{"sh", "cat", "chown", "sleep", "uname", "touch", "id"} {
		head += "      - {path: /bin/" + applet + ", type: symlink, target: busybox}\n"
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "rootfs.yaml"), []byte(head+spec), 0o644))
	return dir
}

func TestFailingRun(t *testing.T) {
	for _, w := range everybody(t) {
		t.Run(w.name, func(t *testing.T) {
			dir := busybox(t, w, "failing", "  - run: uname -m > /machine\n  - run: echo about to fail >&2; [ $(uname -m) = x86_64 ] || exit 9\n  - run: cat /machine\n")
			r := do(t, w.command(nil, "build", "--progress", "plain", "--keep-going", dir))
			assert.Equal(t, 3, r.code, r.stderr)
			assert.Empty(t, r.stdout)
			assert.Contains(t, r.stderr, "rootfs.yaml:15: [linux/arm64] RUN echo about to fail")
			assert.Contains(t, r.stderr, "exit code 9")
			assert.Contains(t, r.stderr, "about to fail")

			again := do(t, w.command(nil, "build", "--progress", "plain", "--keep-going", dir))
			assert.Equal(t, 3, again.code)
			assert.Equal(t, strings.Count(again.stderr, "RUN uname -m > /machine"), 2)
			assert.GreaterOrEqual(t, strings.Count(again.stderr, "CACHED"), 6, "finished work of both stays cached:\n%s", again.stderr)
		})
	}
}

// E29: said before anything is run.
func TestE29NoEmulator(t *testing.T) {
	w := everybody(t)[0]
	dir := busybox(t, w, "none", "  - run: uname -m\n")
	r := do(t, w.command([]string{"PATH=/nowhere"}, "build", "--progress", "plain", dir))
	assert.Equal(t, 8, r.code, r.stderr)
	assert.Contains(t, r.stderr, "no emulator for linux/arm64: install qemu-user-static")
	assert.NotContains(t, r.stderr, "ARCHIVE", "nothing was begun")
}

// E25: a host without user namespaces runs no steps, says why, and still builds what has none.
func TestE25NoUserNamespaces(t *testing.T) {
	w := ordinary(t, "single")
	without := func(args ...string) *exec.Cmd {
		c := w.command(nil, args...)
		script := `echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"`
		c.Args = append([]string{"unshare", "--user", "--map-root-user", "sh", "-c", script, "sh"}, c.Args...)
		c.Path = tool(t, "unshare")
		return c
	}
	dir := busybox(t, w, "no-userns", "  - run: uname -m\n")
	r := do(t, without("build", "--platform", "linux/amd64", dir))
	assert.Equal(t, 8, r.code, r.stderr)
	assert.Contains(t, r.stderr, "user.max_user_namespaces")
	doctor := do(t, without("doctor"))
	assert.Contains(t, doctor.stdout+doctor.stderr, "user.max_user_namespaces")

	dir = busybox(t, w, "files-only", "")
	ok(t, without("build", dir))
}

// E16: a secret is in no layer, no config, no record and no message.
func TestE16SecretsLeaveNoTrace(t *testing.T) {
	const canary = "canary-6b1f1c8a"
	for _, w := range everybody(t) {
		t.Run(w.name, func(t *testing.T) {
			dir := busybox(t, w, "secret", "  - run: '[ \"$(cat /run/secrets/token)\" = \"$TOKEN\" ] && [ ${#TOKEN} = 15 ]'\n"+
				"    mounts: [{type: secret, id: token}, {type: secret, id: token, env: TOKEN}]\n")
			file := filepath.Join(w.home, "token")
			require.NoError(t, os.WriteFile(file, []byte(canary), 0o644))
			r := ok(t, w.command(nil, "build", "--progress", "plain", "-t", "secret", "--secret", "id=token,src="+file, dir))
			assert.NotContains(t, r.stdout+r.stderr, canary)
			require.NoError(t, filepath.WalkDir(filepath.Join(w.home, "store"), func(p string, d fs.DirEntry, err error) error {
				if os.Getuid() != 0 && errors.Is(err, fs.ErrPermission) {
					return fs.SkipDir // a subordinate id's: root, who reads all, runs this test as well
				}
				if err != nil || !d.Type().IsRegular() {
					return err
				}
				data, err := os.ReadFile(p)
				assert.False(t, bytes.Contains(data, []byte(canary)), p)
				return err
			}))
		})
	}
}

// A build that is killed in the middle of a step leaves no process, and a store that is right and works.
func TestKilledBuild(t *testing.T) {
	for _, w := range everybody(t) {
		t.Run(w.name, func(t *testing.T) {
			dir := busybox(t, w, "killed", "  - run: uname -m && sleep 300.125\n")
			var log bytes.Buffer
			c := w.command(nil, "build", "--progress", "plain", "--platform", "linux/amd64", dir)
			c.Stderr = &log
			require.NoError(t, c.Start())
			require.Eventually(t, func() bool { return len(sleepers(t)) > 0 }, 2*time.Minute, 10*time.Millisecond)
			require.NoError(t, c.Process.Signal(syscall.SIGKILL))
			_ = c.Wait()
			assert.Eventually(t, func() bool { return len(sleepers(t)) == 0 }, time.Minute, 10*time.Millisecond)

			ok(t, w.command(nil, "store", "check", "--read-data"))
			spec, err := os.ReadFile(filepath.Join(dir, "rootfs.yaml"))
			require.NoError(t, err)
			fixed := strings.Replace(string(spec), " && sleep 300.125", "", 1)
			require.NoError(t, os.WriteFile(filepath.Join(dir, "rootfs.yaml"), []byte(fixed), 0o644))
			ok(t, w.command(nil, "build", "--platform", "linux/amd64", dir))
			left, err := filepath.Glob(filepath.Join(w.home, "store/snapshots/*/tmp-*"))
			require.NoError(t, err)
			assert.Empty(t, left, "scratch of the killed build was removed by the next")
		})
	}
}

// sleepers are the processes of TestKilledBuild's step.
func sleepers(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	var found []string
	for _, f := range files {
		if line, err := os.ReadFile(f); err == nil && bytes.Contains(line, []byte("\x00300.125\x00")) {
			found = append(found, f)
		}
	}
	return found
}

// Several builds share a store at the same time, while another collects.
func TestBuildsBesideEachOther(t *testing.T) {
	for _, w := range everybody(t) {
		t.Run(w.name, func(t *testing.T) {
			dir := busybox(t, w, "beside", "  - run: uname -m > /machine\n  - run: touch /b\n")
			ok(t, w.command(epoch, "build", "-t", "first", "--platform", "linux/amd64", dir)) // makes the store
			type outcome struct {
				digest, log string
				err         error
			}
			outcomes := make(chan outcome)
			const builds = 4
			for i := range builds {
				go func() {
					var stdout, stderr bytes.Buffer
					c := w.command(epoch, "build", "--progress", "plain", "--no-cache", "-t", "beside:"+string(rune('a'+i)), dir)
					c.Stdout, c.Stderr = &stdout, &stderr
					err := c.Run()
					outcomes <- outcome{digestLine.FindString(stdout.String()), stderr.String(), err}
				}()
			}
			gc := do(t, w.command(nil, "store", "gc"))
			assert.Zero(t, gc.code, gc.stderr)
			digests := map[string]bool{}
			for range builds {
				o := <-outcomes
				assert.NoError(t, o.err, o.log)
				digests[o.digest] = true
			}
			assert.Len(t, digests, 1, "all made the same image")
			ok(t, w.command(nil, "store", "check", "--read-data"))
		})
	}
}
