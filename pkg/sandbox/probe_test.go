//go:build linux

package sandbox

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testuser"
	"github.com/manifestctl/manifestctl/pkg/emulate"
)

func rungsByName(t testing.TB, o Options) map[string]Rung {
	t.Helper()
	out := map[string]Rung{}
	for _, r := range Probe(t.Context(), o) {
		_, dup := out[r.Name]
		assert.False(t, dup, r.Name)
		out[r.Name] = r
		if !r.OK {
			assert.NotEmpty(t, r.Err+r.Detail, r.Name)
		}
	}
	return out
}

func TestProbe(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		dir := t.TempDir()
		got := rungsByName(t, Options{Handlers: emulate.Handlers(t.Context(), emulate.Options{}), Dir: dir})
		for _, name := range []string{rungUserns, rungOverlay, rungProc, rungNoNet, rungHostNet, rungBinfmt, rungProgram, rungOwner + "single"} {
			assert.True(t, got[name].OK, "%+v", got[name])
		}
		es, err := os.ReadDir(dir)
		require.NoError(t, err)
		assert.Empty(t, es, "it cleans up")
		switch mode(t) {
		case ModeRoot:
			assert.True(t, got[rungOwner+"root"].OK, "%+v", got)
			assert.Equal(t, "mode root is used", got[rungUserns].Detail)
		case ModeRanges:
			assert.False(t, got[rungOwner+"root"].OK)
			assert.True(t, got[rungOwner+"ranges"].OK, "%+v", got)
			assert.Contains(t, got[rungOwner+"ranges"].Detail, "65536")
		case ModeSingle:
			assert.False(t, got[rungOwner+"ranges"].OK)
			assert.Contains(t, got[rungOwner+"ranges"].Err, "/etc/subuid")
			assert.Contains(t, got[rungOwner+"ranges"].Mend, "newuidmap")
			assert.True(t, got[rungFilter].OK, "%+v", got)
		}
		assert.False(t, rungsByName(t, Options{Dir: dir})[rungBinfmt].OK)
		assert.NotEmpty(t, rungsByName(t, Options{Dir: filepath.Join(dir, "absent")})[rungOverlay].Err)
	})
}

func TestModes(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		_, err := NewPool(t.Context(), Options{Mode: "other"})
		require.Error(t, err)
		if os.Geteuid() != 0 {
			_, err = NewPool(t.Context(), Options{Mode: ModeRoot})
			require.ErrorIs(t, err, ErrHost)
		}
		keys := map[string]bool{}
		for _, m := range []Mode{ModeRoot, ModeRanges, ModeSingle} {
			p, err := NewPool(t.Context(), Options{Mode: m, Agents: 1})
			if err != nil {
				require.ErrorIs(t, err, ErrHost)
				continue
			}
			assert.Equal(t, m, p.Mode())
			assert.False(t, keys[p.SnapshotKey()])
			keys[p.SnapshotKey()] = true
			assert.Regexp(t, "^"+string(m)+"-[0-9a-f]{12}$", p.SnapshotKey())
			t.Run(string(m), func(t *testing.T) { assert.Equal(t, "x\n", boxOf(t, p).ok("echo", "x")) })
			require.NoError(t, p.Close())
			require.NoError(t, p.Close(), "twice is fine")
			require.ErrorIs(t, p.Remove(t.Context(), t.TempDir()), errClosed)
		}
		assert.NotEmpty(t, keys)
	})
}

// TestE25: what a host refuses is named with its mend. Each case runs in a namespace that is made poor in one way.
func TestE25(t *testing.T) {
	const poor = "MANIFESTCTL_TEST_POOR"
	cases := map[string]struct {
		flags   uintptr
		prepare func(t *testing.T)
		check   func(t *testing.T)
	}{
		"no user namespaces": {
			prepare: func(t *testing.T) {
				require.NoError(t, os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0o644))
			},
			check: func(t *testing.T) {
				_, err := NewPool(t.Context(), Options{})
				require.ErrorIs(t, err, ErrHost)
				assert.Contains(t, err.Error(), "user.max_user_namespaces")
				got := rungsByName(t, Options{})
				assert.False(t, got[rungUserns].OK)
				assert.Contains(t, got[rungUserns].Mend, "user.max_user_namespaces")
				assert.Contains(t, got[rungUserns].Err, "ENOSPC")
			},
		},
		"a covered proc": {
			prepare: func(t *testing.T) {
				require.NoError(t, syscall.Mount("x", "/proc/sys", "tmpfs", 0, ""))
			},
			check: func(t *testing.T) {
				got := rungsByName(t, Options{})
				assert.False(t, got[rungProc].OK)
				assert.Contains(t, got[rungProc].Mend, "systempaths=unconfined")
				b := boxOf(t, newPool(t, Options{Mode: ModeSingle}))
				assert.Equal(t, "ok\n", b.ok("self", "echo", "ok"), "/proc/self is right")
				require.NoError(t, b.pool.Owners())
				assert.Equal(t, "/x 100644 33:34 0 0\n", b.ok("write", "/x", "--", "chown", "/x", "33", "34", "--", "stat", "/x"))
				assert.Equal(t, "ok\n", b.ok("echo", "ok"))
			},
		},
		"the /proc of another pid namespace": { // unshare --pid without --mount-proc
			flags:   syscall.CLONE_NEWPID,
			prepare: func(t *testing.T) { require.False(t, sameProc()) },
			check: func(t *testing.T) {
				b := boxOf(t, newPool(t, Options{Mode: ModeSingle}))
				assert.Equal(t, "ok\n", b.ok("echo", "ok"))
				assert.Equal(t, "/x 100644 33:34 0 0\n", b.ok("write", "/x", "--", "chown", "/x", "33", "34", "--", "stat", "/x"))
			},
		},
		"no programs in memory": {
			flags: syscall.CLONE_NEWPID, // which the setting is one of
			prepare: func(t *testing.T) {
				require.NoError(t, syscall.Mount("proc", "/proc", "proc", 0, ""))
				require.NoError(t, os.WriteFile("/proc/sys/vm/memfd_noexec", []byte("2"), 0o644))
			},
			check: func(t *testing.T) {
				got := rungsByName(t, Options{Mode: ModeSingle})
				assert.True(t, got[rungProgram].OK, "a view needs no memory: %s", got[rungProgram].Err)
				bare, err := openProgram(plan{mode: ModeChroot}, nil)
				require.NoError(t, err)
				defer bare.Close()
				r := programRung(&Pool{exe: bare})
				assert.False(t, r.OK, "nor views, in a chroot")
				assert.Contains(t, r.Mend, "vm.memfd_noexec")
				b := boxOf(t, newPool(t, Options{Mode: ModeSingle}))
				assert.Equal(t, "ok\n", b.ok("echo", "ok"))
				assert.Equal(t, "/proc/1/exe permission denied\n", b.ok("create", "/proc/1/exe"))
			},
		},
		"one id, in a container": {
			prepare: func(*testing.T) {},
			check: func(t *testing.T) {
				p := newPool(t, Options{})
				assert.Equal(t, ModeSingle, p.Mode(), "root of a namespace with one id")
				assert.Equal(t, "ok\n", boxOf(t, p).ok("echo", "ok"))
			},
		},
		"the old way to mount an overlay": {
			prepare: func(*testing.T) {},
			check: func(t *testing.T) {
				dir := t.TempDir()
				mk := func(names ...string) (out []string) {
					for _, n := range names {
						require.NoError(t, os.MkdirAll(filepath.Join(dir, n), 0o755))
						out = append(out, filepath.Join(dir, n))
					}
					return out
				}
				d := mk("u", "w", "m", "l/1", "l/2", "m2", "l/co:lon")
				require.NoError(t, os.WriteFile(d[4]+"/f", []byte("x"), 0o644))
				runtime.LockOSThread() // never unlocked: it changes its directory
				require.NoError(t, syscall.Unshare(syscall.CLONE_FS))
				require.NoError(t, oldOverlay(d[3:5], d[0], d[1], d[2]))
				defer syscall.Unmount(d[2], syscall.MNT_DETACH)
				require.NoError(t, os.Remove(d[2]+"/f"))
				st, err := os.Lstat(d[0] + "/f")
				require.NoError(t, err)
				assert.Equal(t, os.ModeDevice|os.ModeCharDevice, st.Mode().Type(), "a whiteout")
				require.NoError(t, oldOverlay(d[3:5], "", "", d[5]), "read-only")
				defer syscall.Unmount(d[5], syscall.MNT_DETACH)
				require.ErrorIs(t, oldOverlay([]string{d[6], d[3]}, "", "", d[2]), ErrHost)
				var many []string
				for i := range 400 {
					many = append(many, mk(fmt.Sprintf("l/a-long-name-for-a-layer-%d", i))...)
				}
				require.ErrorIs(t, oldOverlay(many, "", "", d[2]), ErrHost)
			},
		},
		"overlay on overlay": {
			prepare: func(*testing.T) {},
			check: func(t *testing.T) {
				// A store that is an overlay of an overlay cannot be an upper layer.
				b := boxOf(t, newPool(t, Options{Mode: ModeSingle}))
				for _, d := range []string{"l", "u", "w", "m"} {
					b.tree(d)
				}
				fd, err := mountOverlay([]string{b.dir + "/l"}, b.dir+"/u", b.dir+"/w", b.dir+"/m")
				require.NoError(t, err)
				defer syscall.Unmount(b.dir+"/m", syscall.MNT_DETACH)
				defer syscall.Close(fd)
				got := rungsByName(t, Options{Mode: ModeSingle, Dir: b.dir + "/m"})
				assert.False(t, got[rungOverlay].OK)
				assert.Contains(t, got[rungOverlay].Mend, "--root")
				c := boxOf(t, newPool(t, Options{Mode: ModeSingle}))
				s := c.step("true")
				require.NoError(t, os.Mkdir(b.dir+"/m/scratch", 0o755))
				s.Scratch = b.dir + "/m/scratch"
				err = c.run(s).failure
				require.ErrorIs(t, err, ErrHost)
				assert.Contains(t, err.Error(), "--root")
			},
		},
	}
	if name := os.Getenv(poor); name != "" {
		cases[name].prepare(t)
		cases[name].check(t)
		return
	}
	for name := range cases {
		t.Run(name, func(t *testing.T) {
			if name == "no programs in memory" && os.Geteuid() != 0 {
				t.Skip("vm.memfd_noexec can only be changed by the host's root")
			}
			probe(t, runtime.GOARCH)
			shared := testuser.Shared(t, "probe-"+runtime.GOARCH, nil)
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestE25$", "-test.v", "-test.timeout=5m")
			cmd.Env = append(os.Environ(), poor+"="+name, "MANIFESTCTL_TEST_SHARED="+filepath.Dir(shared), "MANIFESTCTL_TEST_VARIANT=user")
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | cases[name].flags,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
			}
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", out)
		})
	}
	t.Run("a broken newuidmap", func(t *testing.T) {
		dir := t.TempDir()
		for _, tool := range []string{"newuidmap", "newgidmap"} {
			require.NoError(t, os.WriteFile(filepath.Join(dir, tool), []byte("#!/bin/sh\necho no such luck >&2\nexit 1\n"), 0o755))
		}
		pl := plan{mode: ModeRanges, uidTool: dir + "/newuidmap", gidTool: dir + "/newgidmap", uids: []span{{0, 0, 65536}}, gids: []span{{0, 0, 65536}}}
		exe, err := openProgram(pl, nil)
		require.NoError(t, err)
		defer exe.Close()
		_, err = pl.spawn(t.Context(), exe.File)
		require.ErrorIs(t, err, ErrHost)
		assert.Contains(t, err.Error(), "no such luck")
	})
	t.Run("no newuidmap", func(t *testing.T) {
		t.Setenv("PATH", "/nonexistent")
		_, err := lookTool("no-such-tool", "")
		require.ErrorIs(t, err, ErrHost)
		assert.Contains(t, err.Error(), "install uidmap")
	})
	t.Run("texts", func(t *testing.T) {
		for _, errno := range []syscall.Errno{syscall.EPERM, syscall.ENOSPC, syscall.EINVAL, syscall.EUSERS, syscall.EACCES} {
			assert.NotEmpty(t, mendUserns(errno))
			assert.False(t, strings.HasSuffix(fmt.Sprint(cloneError(os.NewSyscallError("fork/exec", errno))), ": "))
		}
	})
}
