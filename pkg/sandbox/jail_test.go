//go:build linux

package sandbox

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

// newJail starts agents without namespaces.
func newJail(t testing.TB, o Options) *box {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("steps in a chroot are root's")
	}
	o.Mode = ModeChroot
	return boxOf(t, newPool(t, o))
}

// inTree gives a step its lowers as a tree of its own.
func (b *box) inTree(s Step) Step {
	b.t.Helper()
	if s.Tree == "" {
		require.LessOrEqual(b.t, len(s.Lowers), 1)
		s.Tree = filepath.Join(b.scratch(), "tree")
		if len(s.Lowers) == 0 {
			require.NoError(b.t, os.Mkdir(s.Tree, 0o755))
		} else {
			out, err := exec.Command("cp", "-a", s.Lowers[0], s.Tree).CombinedOutput()
			require.NoError(b.t, err, "%s", out)
			base := s.Lowers[0]
			s.Content = func(name string) (io.ReadCloser, error) { return os.Open(filepath.Join(base, name)) }
		}
	}
	s.Lowers = nil
	return s
}

// TestJailLayers: a step without namespaces writes the same layer as one with them.
func TestJailLayers(t *testing.T) {
	jail := newJail(t, Options{})
	spaces := boxOf(t, newPool(t, Options{Mode: ModeRoot}))
	clamp := time.Unix(1_000_000_000, 0)
	foreign := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	for name, tc := range map[string]struct {
		tree []string
		args []string
		step func(*Step)
	}{
		"nothing":       {args: []string{"true"}},
		"nothing twice": {tree: []string{"etc/", "etc/hosts=x", "dev/", "proc/", "sys/", "dev/null=x"}, args: []string{"true"}},
		"changes": {
			tree: []string{"d/", "d/gone=x", "d/same=x", "whole/", "whole/a=1", "whole/b=2", "mv=m", "deep/", "deep/er/", "deep/er/f=1"},
			args: strings.Fields("write /new content -- rm /d/gone -- rmall /whole -- mkdir /whole -- write /whole/c 3 -- symlink /to /ln -- link /new /also -- mkfifo /fifo " +
				"-- rename /mv /moved -- chmod /new 04755 -- chmod /d/same 0600 -- chmod /d/same 0644 -- append /deep/er/f 2"),
		},
		"owners":      {tree: []string{"f=1"}, args: strings.Fields("chown /f 33 65534 -- mkdir /d -- chown /d 1000 1000 -- write /d/x y")},
		"attributes":  {tree: []string{"f=1", "g=1"}, args: strings.Fields("setxattr /f user.x y -- write /h -- setxattr /h user.y z")},
		"links":       {tree: []string{"f=1"}, args: strings.Fields("link /f /a -- link /f /z")},
		"etc":         {tree: []string{"etc/", "etc/passwd=root:x:0:0::/:/bin/sh\n"}, args: strings.Fields("append /etc/passwd x")},
		"devices":     {args: strings.Fields("mkdir /x -- mknod /x/null 1 3 -- chown /x/null 5 6 -- mknod /x/tty 5 0 -- rm /x/tty -- mkfifo /x/p")},
		"working dir": {args: []string{"true"}, step: func(s *Step) { s.Cwd = "/made/for it" }},
		"another user": {args: strings.Fields("mkdir /home/x/y -- write /home/x/f 1 -- id"), step: func(s *Step) {
			s.Account, s.Cwd = layer.Account{UID: 1000, GID: 1001, Groups: []int{1001, 27}}, "/home/x"
		}},
		"secrets": {args: strings.Fields("cat /run/secrets/s -- write /out x"), step: func(s *Step) {
			s.Mounts = []Mount{{Kind: MountData, Target: "/run/secrets/s", Data: []byte("secret\n"), Mode: 0o400}}
		}},
		"tmpfs": {tree: []string{"tmp/", "tmp/below=x"}, args: strings.Fields("ls /tmp -- write /tmp/x y -- ls /tmp"), step: func(s *Step) {
			s.Mounts = []Mount{{Kind: MountTmpfs, Target: "/tmp"}}
		}},
		"link to resolv.conf": {tree: []string{"etc/", "run/", "etc/resolv.conf -> ../run/x/resolv.conf"}, args: strings.Fields("write /run/y z")},
		"foreign":             {args: []string{"probe-foreign", "write", "/f", "x", "--", "sh", "/bin/probe-foreign", "write", "/g", "y"}, step: func(s *Step) {}},
	} {
		t.Run(name, func(t *testing.T) {
			run := func(b *box) (string, []byte) {
				b.t = t
				b.root = b.tree(strings.ReplaceAll(name, " ", "-"), append([]string{"bin/", "home/", "home/x/"}, tc.tree...)...)
				b.install(runtime.GOARCH, "bin/probe")
				if tc.args[0] == "probe-foreign" {
					b.install(foreign, "bin/probe-foreign")
				}
				require.NoError(t, os.Chown(b.root+"/home/x", 1000, 1001))
				var buf bytes.Buffer
				s := b.step()
				s.Args = append([]string{"probe"}, tc.args...)
				if strings.HasPrefix(tc.args[0], "probe-") {
					s.Args = []string{tc.args[0], "write", "/f", "x", "--", "uname"}
				}
				s.Diff, s.Clamp, s.HostNet = &buf, &clamp, true
				if tc.step != nil {
					tc.step(&s)
				}
				if b.pool.Whole() {
					s = b.inTree(s)
				}
				r := b.run(s)
				require.NoError(t, r.failure, r.err)
				return r.out, buf.Bytes()
			}
			wantOut, want := run(spaces)
			gotOut, got := run(jail)
			assert.Equal(t, wantOut, gotOut)
			assert.Equal(t, listTar(t, bytes.NewReader(want)), listTar(t, bytes.NewReader(got)))
			assert.True(t, bytes.Equal(want, got), "to the byte")
		})
	}
}

// TestJail: what a step without namespaces sees, and what it cannot reach.
func TestJail(t *testing.T) {
	b := newJail(t, Options{})
	run := func(t *testing.T, s Step) result {
		t.Helper()
		b.t = t
		return b.run(b.inTree(s))
	}
	t.Run("exit codes", func(t *testing.T) {
		var exit *ExitError
		require.ErrorAs(t, run(t, b.step("exit", "7")).failure, &exit)
		assert.Equal(t, 7, exit.Code)
		require.ErrorAs(t, run(t, b.step("kill", "0", "9")).failure, &exit)
		assert.Equal(t, 137, exit.Code)
		s := b.step()
		s.Args = []string{"nothing"}
		require.ErrorAs(t, run(t, s).failure, &exit)
		assert.Equal(t, 127, exit.Code)
	})
	t.Run("the agent is used again", func(t *testing.T) {
		for range 3 {
			require.NoError(t, run(t, b.step("true")).failure)
		}
		b.pool.mu.Lock()
		defer b.pool.mu.Unlock()
		assert.Len(t, b.pool.all, 1)
	})
	t.Run("what it leaves behind ends", func(t *testing.T) {
		tok := token()
		r := run(t, b.step("fork", "sleep", tok))
		require.NoError(t, r.failure, r.err)
		assert.Zero(t, running(t, tok))
	})
	t.Run("no file of the host", func(t *testing.T) {
		canary := filepath.Join(b.dir, "canary")
		require.NoError(t, os.WriteFile(canary, []byte("x"), 0o644))
		require.Error(t, run(t, b.step("cat", canary)).failure)
		require.Error(t, run(t, b.step("chroot", "/bin")).failure)
		for _, name := range []string{"/dev/mine", "/mine"} {
			r := run(t, b.step("mknod", name, "1", "9", "--", "stat", name, "--", "cat", name))
			require.NoError(t, r.failure, r.err)
			assert.Equal(t, name+" 20644 0:0 0 265\n", r.out, "it is shown, and opens nothing")
		}
	})
	t.Run("a /proc of its own processes", func(t *testing.T) {
		r := run(t, b.step("readlink", "/proc/self/exe", "--", "status", "Uid", "--", "open", "/proc/cpuinfo", "/proc/self/fd/1", "/dev/stdout",
			"/proc/meminfo", "/proc/sys/kernel/osrelease", "--", "daemon", "true", "--", "fds"))
		require.NoError(t, r.failure, r.err)
		assert.Contains(t, r.out, "/bin/probe\n")
		assert.Equal(t, 5, strings.Count(r.out, " opened"), r.out)
		assert.Contains(t, r.out, "1 pipe:")
		assert.NotContains(t, r.out, b.dir, "nothing of the host is open")
	})
	t.Run("a /proc forgets who ended", func(t *testing.T) {
		r := run(t, b.step("self", "ls", "/proc", "--", "echo", "and then", "--", "ls", "/proc", "--", "open", "/proc/mounts"))
		require.NoError(t, r.failure, r.err)
		first, then, _ := strings.Cut(r.out, "and then\n")
		count := func(s string) (n int) {
			for name := range strings.Lines(s) {
				if _, err := strconv.Atoi(strings.TrimSpace(name)); err == nil {
					n++
				}
			}
			return n
		}
		assert.Equal(t, 2, count(first), first)
		assert.Equal(t, 1, count(then), then)
		assert.Contains(t, r.out, "/proc/mounts opened")
	})
	t.Run("the server of /proc is nobody's deputy", func(t *testing.T) {
		agent := ""
		b.pool.mu.Lock()
		for a := range b.pool.all {
			agent = strconv.Itoa(a.proc.Pid)
		}
		b.pool.mu.Unlock()
		me := strconv.Itoa(os.Getpid())
		args := []string{"open", "/proc/self/root/etc", "/proc/self/cwd/bin", "/proc/self/mem", "/proc/self/../1/environ", "/proc/kcore", "/proc/sysrq-trigger", "/proc/self/map_files"}
		for _, pid := range []string{"1", me, agent} {
			for _, name := range []string{"environ", "cmdline", "fd", "fd/0", "root", "cwd", "exe", "status"} {
				args = append(args, "/proc/"+pid+"/"+name)
			}
		}
		r := run(t, b.step(args...))
		require.NoError(t, r.failure, r.err)
		assert.NotContains(t, r.out, " opened")
		// What is given for reading cannot be opened anew for writing, and directories lead nowhere but into the tree.
		r = run(t, b.step("create", "/proc/sys/vm/overcommit_memory", "/proc/self/oom_score_adj", "/proc/cpuinfo"))
		assert.NotContains(t, r.out, "opened")
		r = run(t, b.step("ls", "/proc/self/fd", "--", "chdir", "/proc", "--", "chdir", "../..", "--", "cwd", "--", "ls", "."))
		require.NoError(t, r.failure, r.err)
		assert.Contains(t, r.out, "\n/\nbin\n", r.out)
		assert.NotContains(t, r.out, "boot\n")
	})
	t.Run("no signal to others", func(t *testing.T) {
		other := exec.Command("sleep", "600")
		require.NoError(t, other.Start())
		defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
		if landlockABI() < landlockScope {
			t.Skip("this kernel's Landlock keeps no signals in")
		}
		require.Error(t, run(t, b.step("kill", strconv.Itoa(other.Process.Pid), "9")).failure)
		_ = run(t, b.step("kill", "-1", "9")).failure // reaches itself at most
		require.NoError(t, other.Process.Signal(syscall.Signal(0)), "it lives")
	})
	t.Run("no network", func(t *testing.T) {
		r := run(t, b.step("connect", "1"))
		require.Error(t, r.failure)
		assert.Contains(t, r.err, "address family not supported")
		s := b.step("connect", "1")
		s.HostNet = true
		assert.Contains(t, run(t, s).err, "connection refused")
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		tok := token()
		s := b.inTree(b.step("fork", "sleep", tok))
		s.Args = append(s.Args, "--", "sleep", tok)
		done := make(chan error, 1)
		go func() { done <- b.pool.Run(ctx, s) }()
		require.Eventually(t, func() bool { return running(t, tok) > 1 }, time.Minute, 5*time.Millisecond)
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		require.Eventually(t, func() bool { return running(t, tok) == 0 }, time.Minute, 5*time.Millisecond)
	})
	t.Run("a fifo with one end, by a name in /proc", func(t *testing.T) {
		for _, name := range []string{"/proc/self/fd", "/dev/fd"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			s := b.inTree(b.step("mkfifo", "/p", "--", "fifo", "/p", name))
			var out bytes.Buffer
			s.Stdout, s.Stderr = &out, &out
			err := b.pool.Run(ctx, s)
			cancel()
			require.NoError(t, err, "the step waits for its own /proc: %s", out.String())
			assert.Contains(t, out.String(), " opened\n")
		}
	})
	t.Run("what cannot be had", func(t *testing.T) {
		for _, change := range []func(*Step){
			func(s *Step) { s.ReadOnly = true },
			func(s *Step) { s.Insecure = true },
			func(s *Step) { s.Mounts = []Mount{{Kind: MountDir, Source: b.dir, Target: "/x"}} },
		} {
			s := b.step("true")
			change(&s)
			err := run(t, s).failure
			require.ErrorIs(t, err, ErrHost)
			assert.Contains(t, err.Error(), "seccomp=unconfined")
		}
	})
}

func TestJailEmulation(t *testing.T) {
	b := newJail(t, Options{Emulation: emulate.PtraceOnly})
	if !canTrace {
		t.Skip("no table of registers for this machine")
	}
	assert.Equal(t, emulate.Ptrace, b.pool.Emulator())
	b.install("arm64", "bin/probe-arm64")
	require.NoError(t, os.WriteFile(b.root+"/bin/script", []byte("#!/bin/probe-arm64 echo\n"), 0o755))
	s := b.step()
	s.Args = []string{"probe-arm64", "uname", "--", "exec", "/bin/script", "from a script"}
	r := b.run(b.inTree(s))
	require.NoError(t, r.failure, r.err)
	assert.Contains(t, r.out, "arm64")
	assert.Contains(t, r.out, "from a script")
	s = b.step()
	s.Account = layer.Account{UID: 1000, GID: 1000}
	s.Args = []string{"probe-arm64", "id", "--", "exec", "/bin/script", "as another user"}
	r = b.run(b.inTree(s))
	require.NoError(t, r.failure, r.err)
	assert.Contains(t, r.out, "1000 1000 1000 1000")
	assert.Contains(t, r.out, "as another user")
}
