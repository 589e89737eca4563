//go:build linux

package sandbox

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/internal/testuser"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

// TestOwnership: a chown that cannot be kept is an error that says so, whatever the step makes of it.
func TestOwnership(t *testing.T) {
	archs := []string{runtime.GOARCH, "arm64"}
	if runtime.GOARCH == "amd64" {
		archs = append(archs, "386") // another table of system calls
	}
	for _, arch := range archs {
		probe(t, arch)
	}
	testuser.Each(t, func(t *testing.T) {
		b := newBox(t)
		b.tree("root", "file=x", "dir/")
		for _, arch := range archs {
			b.install(arch, "bin/probe-"+arch)
		}
		if b.pool.Mode() != ModeSingle {
			assert.Equal(t, "/file 100644 33:34 1 0\n", b.ok("chown", "/file", "33", "34", "--", "stat", "/file"))
		} else {
			for _, arch := range archs {
				for _, call := range []string{"chown", "lchown", "fchown", "fchownat"} {
					files := []string{"/file", "file", "dir/../file"}
					if arch != runtime.GOARCH {
						files = files[:1]
					}
					for _, file := range files {
						t.Run(arch+" "+call+" "+file, func(t *testing.T) {
							s := b.step(call, file, "33", "34")
							s.Args[0] = "probe-" + arch
							r := b.run(s)
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
		t.Run("recorded owners", func(t *testing.T) {
			lower := b.tree("recorded", "all=x", "user=x", "group=x", "target=x", "null=", "same=x", "folder/", "ln -> target")
			for name, o := range map[string]layer.Owner{
				"all": {}, "user": {}, "group": {}, "target": {}, "same": {}, "folder": {}, "null": {Type: unix.S_IFCHR, Rdev: unix.Mkdev(1, 3)},
			} {
				o.UID, o.GID = 33, 34
				value, err := o.MarshalBinary()
				require.NoError(t, err)
				require.NoError(t, unix.Setxattr(lower+"/"+name, layer.OwnerXattr, value, 0))
			}
			s := b.step("chown", "/all", "0", "0", "--", "chown", "user", "0", "-1", "--", "fchown", "/group", "-1", "0",
				"--", "chown", "/ln", "0", "0", "--", "lchown", "/folder", "0", "0", "--", "fchownat", "/null", "0", "0", "--", "append", "/same", "y")
			s.Lowers = []string{lower, b.root}
			assert.ElementsMatch(t, with("0 644 0:0 all = x", "0 644 0:34 user = x", "0 644 33:0 group = x", "0 644 0:0 target = x",
				"5 755 0:0 folder/", "3 644 0:0 null", "0 644 33:34 same = xy"), b.diff(s))
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
