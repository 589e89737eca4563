//go:build linux

package sandbox

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testuser"
)

// TestOwnership: a chown that cannot be kept is an error that says so, whatever the step makes of it.
func TestOwnership(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		b := newBox(t)
		archs := []string{runtime.GOARCH, "arm64"}
		if runtime.GOARCH == "amd64" {
			archs = append(archs, "386")
		}
		for _, arch := range archs {
			b.install(arch, "bin/probe-"+arch)
			for _, call := range []string{"chown", "lchown", "fchown", "fchownat"} {
				for _, file := range []string{"/file", "file", "dir/../file"} {
					t.Run(arch+" "+call+" "+file, func(t *testing.T) {
						b.tree("root", "file=x", "dir/")
						s := b.step(call, file, "33", "34")
						s.Args[0] = "probe-" + arch
						r := b.run(s)
						if b.pool.Mode() != ModeSingle {
							require.NoError(t, r.failure, r.err)
							assert.Equal(t, "/file 100644 33:34 1 0\n", b.ok("chown", "/file", "33", "34", "--", "stat", "/file"))
							return
						}
						require.ErrorIs(t, r.failure, ErrOwnership)
						var exit *ExitError
						require.ErrorAs(t, r.failure, &exit)
						assert.Equal(t, 1, exit.Code)
						assert.Contains(t, r.err, "operation not permitted")
						assert.Contains(t, r.failure.Error(), "file to 33:34")
						assert.Contains(t, r.failure.Error(), "/etc/subuid")
					})
				}
			}
		}
		t.Run("what root may keep", func(t *testing.T) {
			b.tree("root", "file=x")
			assert.Equal(t, "/file 100644 0:0 1 0\n",
				b.ok("chown", "/file", "0", "0", "--", "chown", "/file", "-1", "-1", "--", "chown", "/file", "0", "-1", "--", "stat", "/file"))
		})
		if b.pool.Mode() != ModeSingle {
			return
		}
		t.Run("ignored by the step", func(t *testing.T) {
			b.tree("root", "file=x")
			s := b.step("exec", "/bin/probe", "self", "chown", "/file", "33", "-1")
			s.Args = append(s.Args, "--", "true")
			r := b.run(s)
			require.ErrorIs(t, r.failure, ErrOwnership)
			s = b.step("daemon", "chown", "/file", "-1", "34", "--", "sleep", "300")
			r = b.run(s)
			require.ErrorIs(t, r.failure, ErrOwnership, "with exit code 0")
			var exit *ExitError
			assert.NotErrorAs(t, r.failure, &exit)
			assert.Contains(t, r.failure.Error(), "/file to -1:34")
		})
		t.Run("not in the layer", func(t *testing.T) {
			r := b.run(b.step("write", "/dev/shm/x", "--", "chown", "/dev/shm/x", "33", "33"))
			var exit *ExitError
			require.ErrorAs(t, r.failure, &exit, "the kernel refuses it")
			require.NotErrorIs(t, r.failure, ErrOwnership, "but no layer is wrong for it")
			r = b.run(b.step("chown", "/absent", "33", "33"))
			require.ErrorAs(t, r.failure, &exit)
			require.NotErrorIs(t, r.failure, ErrOwnership)
			assert.Contains(t, r.err, "no such file")
		})
		t.Run("other ids", func(t *testing.T) {
			for _, verb := range [][]string{{"setuid", "33"}, {"setgid", "33"}, {"setgroups", "33"}} {
				var exit *ExitError
				require.ErrorAs(t, b.run(b.step(verb...)).failure, &exit, verb)
			}
		})
		t.Run("the owner of a mount", func(t *testing.T) {
			s := b.step("true")
			s.Mounts = []Mount{{Kind: MountData, Target: "/run/secret", Data: []byte("x"), UID: 1000}}
			require.ErrorIs(t, b.run(s).failure, ErrOwnership)
		})
	})
}
