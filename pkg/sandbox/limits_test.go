//go:build linux

package sandbox

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testuser"
)

// TestE05: what eats the machine ends, says what it had too much of, and leaves nothing. The bounds are small: the machine
// is not the test's alone.
func TestE05(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		b := newBox(t)
		for name, tc := range map[string]struct {
			args []string
			r    Resources
			want string
		}{
			"E05 a fork bomb":                {[]string{"bomb", token(), "7"}, Resources{PIDs: 40}, "too many processes: it had more than 40, with their threads (--pids)"},
			"E05 a memory hog":               {[]string{"eat", "400"}, Resources{Memory: 64 << 20}, "out of memory: it used more than 64 MiB (--memory)"},
			"E05 many small memory hogs":     {[]string{"daemon", "eat", "40", "--", "daemon", "eat", "40", "--", "daemon", "eat", "40", "--", "sleep", "600000"}, Resources{Memory: 80 << 20}, "out of memory: it used more than 80 MiB (--memory)"},
			"E05 a disk filler":              {[]string{"waste", "/", "100", "1", "--", "sleep", "600000"}, Resources{Disk: 8 << 20}, "out of disk: it wrote more than 8 MiB into its root file system (--disk)"},
			"E05 a disk filler of one file":  {[]string{"waste", "/", "1", "20"}, Resources{Disk: 8 << 20}, ""},
			"E05 an endless sleep":           {[]string{"sleep", "600000"}, Resources{Timeout: 200 * time.Millisecond}, "out of time: it ran for longer than 200ms (--step-timeout)"},
			"E05 an endless sleep of others": {[]string{"daemon", "sleep", "600000", "--", "sleep", "600000"}, Resources{Timeout: 200 * time.Millisecond}, "out of time"},
		} {
			t.Run(name, func(t *testing.T) {
				s := b.step(tc.args...)
				s.Resources = tc.r
				s.Keep, s.KeepFailed = filepath.Join(b.dir, strings.ReplaceAll(name, " ", "-")), true
				r := b.run(s)
				var exit *ExitError
				require.ErrorAs(t, r.failure, &exit, r.err)
				if tc.want != "" {
					assert.Equal(t, "SIGKILL", exit.Signal)
					assert.Equal(t, 137, exit.Code)
					assert.Contains(t, exit.Limit, tc.want)
					assert.Contains(t, r.failure.Error(), tc.want+map[bool]string{true: " (exit code 137)"}[strings.HasSuffix(tc.want, ")")])
				}
				assert.Less(t, r.took, 5*time.Minute)
				assert.DirExists(t, s.Keep, "what it left can be looked at")
				require.NoError(t, b.pool.Remove(t.Context(), s.Keep))
				assert.Equal(t, "again\n", b.ok("echo", "again"))
			})
		}
		t.Run("what is allowed", func(t *testing.T) {
			s := b.step("waste", "/", "2", "1", "--", "processors", "--", "self", "echo", "x")
			s.Resources = Resources{Memory: 512 << 20, PIDs: 100, Disk: 64 << 20, CPUs: 1000, Timeout: 5 * time.Minute}
			r := b.run(s)
			require.NoError(t, r.failure, r.err)
			if b.pool.Watched(Resources{CPUs: 1}) != nil {
				assert.Equal(t, "1\nx\n", r.out)
			}
			assert.EqualValues(t, runtime.NumCPU(), num(t, b.ok("processors")), "the next one has all again")
		})
		t.Run("nonsense", func(t *testing.T) {
			s := b.step("true")
			s.Resources.Memory = -1
			require.ErrorIs(t, b.run(s).failure, os.ErrInvalid)
		})
	})
}

func num(t *testing.T, s string) (n int) {
	t.Helper()
	for _, c := range strings.TrimSpace(s) {
		require.True(t, c >= '0' && c <= '9', s)
		n = 10*n + int(c-'0')
	}
	return n
}

// TestE05FullDisk: a step that fills the store's file system fails with that as the reason.
func TestE05FullDisk(t *testing.T) {
	const full = "MANIFESTCTL_TEST_FULL"
	if os.Getenv(full) != "" {
		small := t.TempDir()
		require.NoError(t, syscall.Mount("tmpfs", small, "tmpfs", 0, "size=8m"))
		t.Cleanup(func() { require.NoError(t, syscall.Unmount(small, syscall.MNT_DETACH)) })
		b := newBox(t)
		s := b.step("waste", "/", "20", "1")
		s.Scratch = filepath.Join(small, "scratch")
		require.NoError(t, os.Mkdir(s.Scratch, 0o755))
		r := b.run(s)
		var exit *ExitError
		require.ErrorAs(t, r.failure, &exit)
		assert.Equal(t, 1, exit.Code)
		require.ErrorIs(t, r.failure, syscall.ENOSPC)
		assert.Contains(t, r.failure.Error(), "the file system of the store is full")
		assert.Equal(t, "again\n", b.ok("echo", "again"))
		return
	}
	probe(t, runtime.GOARCH)
	shared := testuser.Shared(t, "probe-"+runtime.GOARCH, nil)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestE05FullDisk$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), full+"=1", "MANIFESTCTL_TEST_SHARED="+filepath.Dir(shared), "MANIFESTCTL_TEST_VARIANT=user")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func TestCgroupDir(t *testing.T) {
	for name, tc := range map[string]struct{ mounts, path, want string }{
		"the root":          {"31 24 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", "/user.slice/a.scope", "/sys/fs/cgroup/user.slice/a.scope"},
		"hybrid":            {"30 24 0:26 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n31 24 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw", "/a", "/sys/fs/cgroup/unified/a"},
		"a container's":     {"31 24 0:27 /docker/x /sys/fs/cgroup ro - cgroup2 cgroup rw", "/docker/x/y", "/sys/fs/cgroup/y"},
		"another container": {"31 24 0:27 /docker/z /sys/fs/cgroup ro - cgroup2 cgroup rw", "/docker/x", ""},
		"a namespace's":     {"31 24 0:27 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup rw", "/", "/sys/fs/cgroup"},
		"none":              {"30 24 0:26 / /x rw - cgroup cgroup rw", "/", ""},
		"nothing":           {"", "/", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := cgroupDir(bufio.NewScanner(strings.NewReader(tc.mounts)), tc.path)
			assert.Equal(t, tc.want, got)
			assert.Equal(t, tc.want == "", err != nil)
		})
	}
}

// TestE05Cgroup is TestE05 where a cgroup is delegated: its bounds are the kernel's, and it goes with the step. Few machines
// of CI have one: `make cgroup` runs this in a kernel of its own.
func TestE05Cgroup(t *testing.T) {
	p, err := NewPool(t.Context(), Options{Mode: mode(t), Agents: 1})
	require.NoError(t, err)
	closed := false
	defer func() {
		if !closed {
			assert.NoError(t, p.Close())
		}
	}()
	all := Resources{Memory: 64 << 20, PIDs: 40, CPUs: 500}
	if err := p.Watched(all); err != nil {
		if os.Getenv("MANIFESTCTL_CGROUP") != "" {
			require.NoError(t, err)
		}
		t.Skipf("no cgroup is delegated here (`make cgroup` brings one): %v", err)
	}
	own := p.cgroups.dir
	b := newBox(t) // has a pool of its own, which outlives p
	box := *b
	box.pool = p
	with := func(r Resources, args ...string) result {
		s := b.step(args...)
		s.Resources = r
		return box.run(s)
	}
	r := with(all, "cat", "/proc/self/cgroup")
	require.NoError(t, r.failure, r.err)
	assert.Contains(t, r.out, "/"+cgroupStep)
	var exit *ExitError
	require.ErrorAs(t, with(all, "eat", "200").failure, &exit)
	assert.Equal(t, "out of memory: it used more than 64 MiB (--memory)", exit.Limit)
	assert.Equal(t, "SIGKILL", exit.Signal)
	require.ErrorAs(t, with(all, "daemon", "eat", "40", "--", "daemon", "eat", "40", "--", "sleep", "600000").failure, &exit)
	assert.Equal(t, "out of memory: it used more than 64 MiB (--memory)", exit.Limit, "all of them together, and all of them end")
	require.ErrorAs(t, with(Resources{PIDs: 20}, "self", "self", "self", "self", "self", "self", "self", "self", "self", "true").failure, &exit)
	assert.Equal(t, "too many processes: it wanted more than 20, with their threads (--pids)", exit.Limit)
	require.NoError(t, with(all, "echo", "again").failure)
	left, err := filepath.Glob(filepath.Join(own, cgroupStep+"*"))
	require.NoError(t, err)
	assert.Empty(t, left)
	closed = true
	require.NoError(t, p.Close())
	assert.NoDirExists(t, filepath.Join(own, cgroupSelf), "this program is back where it was")
	on, err := os.ReadFile(filepath.Join(own, "cgroup.subtree_control"))
	require.NoError(t, err)
	assert.Empty(t, strings.TrimSpace(string(on)))
}
