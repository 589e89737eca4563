//go:build linux

package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testuser"
)

func TestMounts(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		b := newBox(t)
		cache := b.tree("cache", "in=cached")
		lowerTop, lowerBottom := b.tree("m-top", "sub/", "sub/top=t"), b.tree("m-bottom", "sub/", "sub/bottom=b", "sub/link -> /sub/bottom", "out -> /etc", "esc -> ../../../../etc/hostname")
		run := func(t *testing.T, m Mount, args ...string) result {
			t.Helper()
			s := b.step(args...)
			s.Mounts = []Mount{m}
			return b.run(s)
		}
		t.Run("a directory", func(t *testing.T) {
			r := run(t, Mount{Kind: MountDir, Target: "/var/cache/x", Source: cache}, "cat", "/var/cache/x/in", "--", "write", "/var/cache/x/new", "n")
			require.NoError(t, r.failure, r.err)
			assert.Equal(t, "cached", r.out)
			data, err := os.ReadFile(filepath.Join(cache, "new"))
			require.NoError(t, err)
			assert.Equal(t, "n", string(data))
		})
		t.Run("read-only", func(t *testing.T) {
			r := run(t, Mount{Kind: MountDir, Target: "/m", Source: cache, ReadOnly: true}, "write", "/m/denied", "n")
			require.Error(t, r.failure)
			assert.Contains(t, r.err, "read-only")
			assert.NoFileExists(t, filepath.Join(cache, "denied"))
		})
		t.Run("a file", func(t *testing.T) {
			r := run(t, Mount{Kind: MountDir, Target: "/etc/thing", Source: filepath.Join(cache, "in"), ReadOnly: true}, "cat", "/etc/thing")
			require.NoError(t, r.failure, r.err)
			assert.Equal(t, "cached", r.out)
		})
		t.Run("a device", func(t *testing.T) {
			r := run(t, Mount{Kind: MountDevice, Target: "/dev/made", Source: "/dev/null"}, "write", "/dev/made", "n")
			require.NoError(t, r.failure, r.err)
			r = run(t, Mount{Kind: MountDir, Target: "/dev/made", Source: "/dev/null"}, "write", "/dev/made", "n")
			require.Error(t, r.failure, "nothing else can be opened as a device")
			for _, source := range []string{cache, filepath.Join(cache, "in")} {
				require.ErrorContains(t, run(t, Mount{Kind: MountDevice, Target: "/dev/made", Source: source}, "true").failure, "no device")
			}
		})
		t.Run("no source", func(t *testing.T) {
			require.ErrorIs(t, run(t, Mount{Kind: MountDir, Target: "/m", Source: "/nonexistent"}, "true").failure, syscall.ENOENT)
		})
		t.Run("tmpfs", func(t *testing.T) {
			r := run(t, Mount{Kind: MountTmpfs, Target: "/m", Size: 1 << 20, Mode: 0o700}, "stat", "/m", "--", "write", "/m/x", strings.Repeat("x", 10), "--", "write", "/m/big", strings.Repeat("x", 100<<10))
			require.NoError(t, r.failure, r.err)
			assert.True(t, strings.HasPrefix(r.out, "/m 40700 0:0 "), r.out)
			s := b.step("write", "/m/big", strings.Repeat("x", 100<<10))
			s.Mounts = []Mount{{Kind: MountTmpfs, Target: "/m", Size: 64 << 10}}
			r = b.run(s)
			require.Error(t, r.failure)
			assert.Contains(t, r.err, "no space")
		})
		t.Run("overlay", func(t *testing.T) {
			m := Mount{Kind: MountOverlay, Target: "/m", Lowers: []string{lowerTop, lowerBottom}, Sub: "sub"}
			r := run(t, m, "ls", "/m", "--", "write", "/m/new", "n", "--", "rm", "/m/bottom")
			require.NoError(t, r.failure, r.err)
			assert.Equal(t, "bottom\nlink\ntop\n", r.out)
			assert.NoFileExists(t, filepath.Join(lowerTop, "sub/new"), "changes are discarded")
			assert.FileExists(t, filepath.Join(lowerBottom, "sub/bottom"))

			m.ReadOnly = true
			require.Error(t, run(t, m, "write", "/m/new", "n").failure)
			m.Sub = "sub/link"
			r = run(t, m, "cat", "/m")
			require.NoError(t, r.failure, r.err)
			assert.Equal(t, "b", r.out, "a file, through a link inside")
			m.Sub = "."
			assert.Equal(t, "esc\nout\nsub\n", run(t, m, "ls", "/m").out)
			m.Lowers = m.Lowers[:1]
			assert.Equal(t, "sub\n", run(t, m, "ls", "/m").out, "a single layer")
			m.Lowers, m.ReadOnly = nil, false
			require.NoError(t, run(t, m, "write", "/m/x", "").failure, "none at all")
		})
		t.Run("E15 an overlay's path does not leave it", func(t *testing.T) {
			for _, sub := range []string{"out", "esc", "absent", "../../etc", "sub/../../../../../etc/passwd"} {
				r := run(t, Mount{Kind: MountOverlay, Target: "/m", Lowers: []string{lowerTop, lowerBottom}, Sub: sub}, "true")
				require.ErrorIs(t, r.failure, syscall.ENOENT, sub)
			}
		})
		t.Run("E16 data", func(t *testing.T) {
			m := Mount{Kind: MountData, Target: "/run/secrets/s", Data: []byte("canary-4711"), Mode: 0o440, ReadOnly: true}
			s := b.step("cat", "/run/secrets/s", "--", "stat", "/run/secrets/s", "--", "create", "/run/secrets/s")
			s.Mounts = []Mount{m}
			r := b.run(s)
			require.NoError(t, r.failure, r.err)
			assert.Equal(t, "canary-4711/run/secrets/s 100440 0:0 11 0\n/run/secrets/s read-only file system\n", r.out)
			s = b.step("true")
			s.Mounts = []Mount{m}
			assert.ElementsMatch(t, with(), b.diff(s), "no stub either")
			assertNowhere(t, s.Scratch, "canary-4711")
			if b.pool.Mode() == ModeSingle {
				return
			}
			m.UID, m.GID = 1000, 1001
			assert.Equal(t, "/run/secrets/s 100440 1000:1001 11 0\n", run(t, m, "stat", "/run/secrets/s").out)
		})
		t.Run("order and nesting", func(t *testing.T) {
			s := b.step("ls", "/m", "/m/deep/er")
			s.Mounts = []Mount{
				{Kind: MountDir, Target: "/m/deep/er", Source: cache, ReadOnly: true},
				{Kind: MountDir, Target: "/m", Source: b.tree("outer", "o=")},
			}
			r := b.run(s)
			require.NoError(t, r.failure, r.err)
			assert.Equal(t, "deep\no\nin\nnew\n", r.out)
			es, err := os.ReadDir(filepath.Join(b.dir, "outer"))
			require.NoError(t, err)
			assert.Len(t, es, 1, "stubs in a mount are taken away as well")

			s = b.step("true")
			s.Mounts = []Mount{{Kind: MountDir, Target: "/m", Source: cache, ReadOnly: true}, {Kind: MountTmpfs, Target: "/m/absent"}}
			require.ErrorIs(t, b.run(s).failure, syscall.EROFS)
		})
		t.Run("targets stay inside", func(t *testing.T) {
			s := b.step("ls", "/etc", "--", "ls", "/loop-ok")
			s.Lowers = []string{b.tree("links", "abs -> /etc", "up -> ../../../../../../../../etc", "loop -> loop", "loop-ok/", "file=x", "fifo=x"), b.root}
			s.Mounts = []Mount{{Kind: MountTmpfs, Target: "/abs/one"}, {Kind: MountTmpfs, Target: "/up/two"}, {Kind: MountTmpfs, Target: "../../etc/three"}, {Kind: MountTmpfs, Target: "/loop-ok/../loop-ok//./in/"}}
			r := b.run(s)
			require.NoError(t, r.failure, r.err)
			assert.Equal(t, "hosts\none\nresolv.conf\nthree\ntwo\nin\n", r.out)
			for _, target := range []string{"/loop/x", "/file/x", "/", "", "/..", "/proc/self/fd/3", "/proc/1/root/x"} {
				s := b.step("true")
				s.Lowers, s.Mounts = []string{filepath.Join(b.dir, "links"), b.root}, []Mount{{Kind: MountTmpfs, Target: target}}
				assert.Error(t, b.run(s).failure, target)
			}
			for _, p := range []string{"/etc/one", "/etc/two", "/etc/three"} {
				assert.NoFileExists(t, p)
			}
		})
		t.Run("many layers", func(t *testing.T) {
			s := b.step("cat", "/l0", "/l499")
			s.Lowers = nil
			for i := range maxLowers {
				dir := filepath.Join(b.dir, "l", strings.Repeat("long,name:", 8)+string(rune('a'+i%26))+strings.Repeat("x", i/26))
				require.NoError(t, os.MkdirAll(dir, 0o755))
				if i == 0 || i == 499 {
					require.NoError(t, os.WriteFile(filepath.Join(dir, map[int]string{0: "l0", 499: "l499"}[i]), []byte("x"), 0o644))
				}
				s.Lowers = append(s.Lowers, dir)
			}
			s.Mounts = []Mount{{Kind: MountDir, Target: "/bin", Source: filepath.Join(b.root, "bin")}}
			r := b.run(s)
			require.NoError(t, r.failure, r.err)
			assert.Equal(t, "xx", r.out)
			s.Lowers = append(s.Lowers, b.root)
			require.ErrorIs(t, b.run(s).failure, ErrHost)
		})
	})
}

// assertNowhere checks that no file below dir holds the text.
func assertNowhere(t *testing.T, dir, text string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil //nolint:nilerr // overlay's work directory is closed to us
		}
		data, err := os.ReadFile(path)
		if err == nil {
			assert.NotContains(t, string(data), text, path)
		}
		return nil
	}))
}

// TestBeforeLowers: which refusals of an overlay are those of a kernel that has to be asked by mount(2).
func TestBeforeLowers(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"6.1":                {&fsError{op: opCreate + "overlay", err: syscall.EINVAL}, true},
		"6.6":                {&fsError{op: "fsconfig(overlay, lowerdir+=/x)", err: syscall.EINVAL}, true},
		"too many":           {&fsError{op: "fsconfig(overlay, lowerdir+=/x)", err: syscall.ENOSPC}, false},
		"no overlay":         {&fsError{op: "fsopen(overlay)", err: syscall.ENODEV}, false},
		"not allowed":        {&fsError{op: opCreate + "overlay", err: syscall.EPERM}, false},
		"not of file system": {syscall.EINVAL, false},
	} {
		assert.Equal(t, tc.want, beforeLowers(tc.err), name)
	}
}
