//go:build linux

package sandbox

import (
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testuser"
	"github.com/manifestctl/manifestctl/pkg/emulate"
)

// hostState is what a step must never change.
func hostState(t testing.TB, dir string) string {
	t.Helper()
	info, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	mounts := ""
	for line := range strings.Lines(string(info)) {
		// Other tests mount in directories of their own meanwhile.
		if at := strings.Fields(line)[4]; strings.HasPrefix(at, os.TempDir()+"/") && !strings.HasPrefix(at, dir) {
			continue
		}
		mounts += line
	}
	handlers, _ := filepath.Glob("/proc/sys/fs/binfmt_misc/*")
	exe, err := os.ReadFile("/proc/self/exe")
	require.NoError(t, err)
	host, err := os.Hostname()
	require.NoError(t, err)
	return fmt.Sprintf("%s\n%v\n%x\n%s", mounts, handlers, sha256.Sum256(exe), host)
}

func TestIsolation(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		b := newBox(t)
		before := hostState(t, b.dir)

		t.Run("the agent is out of reach", func(t *testing.T) {
			paths := []string{
				"/proc/1/root", "/proc/1/root/etc", "/proc/1/cwd", "/proc/1/exe", "/proc/1/mem", "/proc/1/maps", "/proc/1/environ",
				"/proc/1/fd/0", "/proc/1/fd/3", "/proc/1/fd/4", "/proc/1/fd/5/../..", "/proc/1/ns/mnt", "/proc/1/ns/user", "/proc/1/task/1/root",
			}
			for name, args := range map[string][]string{"as root": nil, "in a namespace of its own": {"nest"}} {
				r := b.run(b.step(append(args, append([]string{"open"}, paths...)...)...))
				require.NoError(t, r.failure, r.err)
				for line := range strings.Lines(r.out) {
					assert.True(t, strings.HasSuffix(line, "permission denied\n") || strings.HasSuffix(line, "not permitted\n") || strings.HasSuffix(line, "no such file or directory\n"), "%s: %s", name, line)
				}
				assert.Equal(t, len(paths), strings.Count(r.out, "\n"))
				require.Error(t, b.run(b.step(append(args, "cat", "/proc/1/stack")...)).failure)
				r = b.run(b.step(append(args, "ptrace", "1")...))
				require.Error(t, r.failure)
				assert.Contains(t, r.err, "not permitted")
			}
		})
		t.Run("what others in the namespace show", func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer l.Close()
			port := fmt.Sprintf(":%04X ", l.Addr().(*net.TCPAddr).Port)
			assert.NotContains(t, b.ok("cat", "/proc/1/net/tcp", "/proc/net/tcp", "/proc/1/net/unix"), port, "the host's sockets")
			mounts := b.ok("cat", "/proc/1/mountinfo")
			assert.Equal(t, 1, strings.Count(mounts, "\n"), "the host's mounts: %s", mounts)
			assert.Empty(t, b.ok("ls", "/proc/driver"), "where the agent keeps its own")
			pids := 0
			for name := range strings.Lines(b.ok("ls", "/proc")) {
				if name[0] >= '0' && name[0] <= '9' {
					pids++
				}
			}
			assert.Equal(t, 2, pids, "the first process and the step")
			for _, id := range strings.Fields(b.ok("ls", "/proc/1/task")) {
				r := b.run(b.step("open", "/proc/"+id+"/root", "/proc/"+id+"/fd/3", "/proc/"+id+"/ns/mnt"))
				assert.NotContains(t, r.out, "opened")
			}
		})
		t.Run("E01 our program", func(t *testing.T) {
			r := b.run(b.step("create", "/proc/1/exe", "--", "create", "/proc/self/exe"))
			require.NoError(t, r.failure, r.err)
			assert.Equal(t, "/proc/1/exe permission denied\n/proc/self/exe text file busy\n", r.out)
		})
		t.Run("E03 mounts", func(t *testing.T) {
			for _, args := range [][]string{
				{"mount", "x", "/etc", "tmpfs"},
				{"umount", "/proc"},
				{"umount", "/etc/hosts"},
				{"mount", "x", "/bin", "binfmt_misc"},
				{"unshare", "0x20000"},
				{"sethostname", "x"},
			} {
				r := b.run(b.step(args...))
				require.Error(t, r.failure, args)
				assert.Contains(t, r.err, "not permitted", args)
			}
			// In a user namespace of its own a step may mount; nobody else sees it.
			got := b.diff(b.step("mkdir", "/opt", "--", "nest", "mount", "x", "/opt", "tmpfs"))
			assert.ElementsMatch(t, with("5 755 0:0 opt/"), got)
		})
		t.Run("handlers", func(t *testing.T) {
			r := b.run(b.step("ls", "/proc/sys/fs/binfmt_misc", "--", "create", "/proc/sys/fs/binfmt_misc/register"))
			require.NoError(t, r.failure, r.err)
			assert.Equal(t, "/proc/sys/fs/binfmt_misc/register no such file or directory\n", r.out)
		})
		t.Run("what trusts the host's root", func(t *testing.T) {
			r := b.run(b.step("create", "/proc/sysrq-trigger", "/proc/sys/kernel/hostname", "/proc/sys/vm/overcommit_memory", "/sys/power/state", "/proc/sys/kernel/core_pattern", "/proc/irq/default_smp_affinity"))
			require.NoError(t, r.failure, r.err)
			for line := range strings.Lines(r.out) {
				assert.NotContains(t, line, "opened")
			}
			assert.Empty(t, b.ok("cat", "/proc/keys", "/proc/timer_list"))
			assert.Empty(t, b.ok("ls", "/sys/firmware", "/sys/kernel/debug", "/sys/kernel/security"))
			s := b.step("ls", "/sys/kernel/debug", "--", "create", "/sys/power/state")
			s.HostNet = true
			r = b.run(s)
			require.NoError(t, r.failure, r.err)
			assert.NotContains(t, r.out, "opened")
		})
		t.Run("E09 devices", func(t *testing.T) {
			s := b.step("stat", "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "--", "readlink", "/dev/fd", "--", "readlink", "/dev/ptmx",
				"--", "write", "/dev/null", "x", "--", "open", "/dev/tty", "/dev/ptmx", "--", "mkdir", "/dev/pts/x")
			s.Lowers = []string{b.tree("fakedev", "dev/", "dev/null=fake", "dev/pts -> /etc", "dev/shm -> /etc"), b.root}
			r := b.run(s)
			var exit *ExitError
			require.ErrorAs(t, r.failure, &exit, "devpts has no directories")
			assert.Contains(t, r.out, "/dev/null 20666")
			assert.Contains(t, r.out, "0 259\n", "null is 1:3")
			assert.Contains(t, r.out, "/proc/self/fd\npts/ptmx\n")
			assert.Contains(t, r.out, "/dev/tty no such device or address\n/dev/ptmx opened\n", "E13: no controlling terminal")
			for _, args := range [][]string{{"mknod", "/x", "1", "3"}, {"mknod", "/x", "8", "0"}} {
				r := b.run(b.step(append(args, "--", "cat", "/x")...))
				assert.Empty(t, r.out)
				assert.NoError(t, r.failure, "a record that opens nothing")
			}
		})
		t.Run("E12 descriptors", func(t *testing.T) {
			leak, err := syscall.Open("/etc/passwd", syscall.O_RDONLY, 0) // not close-on-exec, as a careless parent leaves it
			require.NoError(t, err)
			defer syscall.Close(leak)
			c := boxOf(t, newPool(t, Options{Agents: 1}))
			out := c.ok("fds")
			assert.NotContains(t, out, "passwd")
			for line := range strings.Lines(out) {
				n, to, _ := strings.Cut(strings.TrimSpace(line), " ")
				if n > "2" || len(n) > 1 { // the Go runtime's own
					assert.Regexp(t, `^anon_inode:|^/proc/`, to, line)
				}
			}
			assert.Regexp(t, `(?m)^0 /dev/null$`, out)
		})
		t.Run("E13 abstract sockets and loopback", func(t *testing.T) {
			name := fmt.Sprintf("@manifestctl-test-%d", os.Getpid())
			l, err := net.Listen("unix", name)
			require.NoError(t, err)
			defer l.Close()
			tcp, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			defer tcp.Close()
			port := fmt.Sprint(tcp.Addr().(*net.TCPAddr).Port)
			require.Error(t, b.run(b.step("dial", name)).failure)
			require.Error(t, b.run(b.step("connect", port)).failure)
			require.NoError(t, b.run(b.step("listen", "7777")).failure, "loopback is up")
			s := b.step("dial", name, "--", "connect", port)
			s.HostNet = true
			require.NoError(t, b.run(s).failure)
		})
		t.Run("E13 terminal, session and keys", func(t *testing.T) {
			require.Error(t, b.run(b.step("tiocsti")).failure)
			assert.Equal(t, "true\n", b.ok("session"))
			require.Error(t, b.run(b.step("keyring")).failure, "the profile has no keys")
			session := func() string {
				s := b.step("keyring")
				s.Insecure = true // no profile
				return b.run(s).out
			}
			assert.NotEqual(t, session(), session(), "each step has a session keyring of its own")
		})
		t.Run("ports of the step before", func(t *testing.T) {
			c := boxOf(t, newPool(t, Options{Agents: 1}))
			for range 5 { // the connection's end stays for a minute where it was
				r := c.run(c.step("listen", "7777"))
				require.NoError(t, r.failure, r.err)
			}
		})
		t.Run("names", func(t *testing.T) {
			want, err := os.ReadFile("/etc/resolv.conf")
			if err != nil {
				want = nil
			}
			assert.Equal(t, string(withoutLoopback(want)), b.ok("cat", "/etc/resolv.conf"), "as with BuildKit: a file, whatever the network")
			assert.Equal(t, "search x\nnameserver 192.0.2.1\n", string(withoutLoopback([]byte("search x\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver ::1\n"))))
			s := b.step("cat", "/etc/resolv.conf")
			s.HostNet = true
			assert.Equal(t, string(want), b.run(s).out)
		})
		assert.Equal(t, before, hostState(t, b.dir), "the host is as it was")
	})
}

func TestHostileRootfs(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		b := newBox(t)
		victim := b.tree("victim", "hosts=mine", "resolv=mine")
		for name, entries := range map[string][]string{
			"E08 proc is a link":     {"proc -> /etc"},
			"E08 proc is a file":     {"proc=x"},
			"E08 dev is a link":      {"dev -> ../../.."},
			"E08 sys is a link":      {"sys -> /proc"},
			"E06 hosts is a folder":  {"etc/", "etc/hosts/"},
			"E06 etc is a file":      {"etc=x"},
			"E06 hosts is a loop":    {"etc/", "etc/hosts -> hosts"},
			"E06 hosts lies in proc": {"etc/", "etc/hosts -> /proc/self/fd/3"},
		} {
			t.Run(name, func(t *testing.T) {
				s := b.step("true")
				s.Lowers = []string{b.tree("hostile "+name, entries...), b.root}
				err := b.run(s).failure
				if strings.Contains(name, "loop") {
					require.ErrorIs(t, err, syscall.ELOOP)
					return
				}
				require.ErrorIs(t, err, ErrRootfs)
			})
		}
		t.Run("E06 links out of the rootfs", func(t *testing.T) {
			up := strings.Repeat("../", 30)
			s := b.step("cat", "/etc/hosts", "--", "cat", "/etc/resolv.conf", "--", "true")
			s.Lowers = []string{b.tree("out", "etc/", "etc/hosts -> "+victim+"/hosts", "etc/resolv.conf -> "+up+victim[1:]+"/new"), b.root}
			s.HostNet = true
			got := b.diff(s)
			assert.ElementsMatch(t, with(), got, "targets made inside are gone again")
			data, err := os.ReadFile(filepath.Join(victim, "hosts"))
			require.NoError(t, err)
			assert.Equal(t, "mine", string(data))
			assert.NoFileExists(t, filepath.Join(victim, "new"))
		})
		t.Run("E08 proc is a fifo", func(t *testing.T) {
			dir := b.tree("fifo")
			require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "proc"), 0o644))
			s := b.step("true")
			s.Lowers = []string{dir, b.root}
			require.ErrorIs(t, b.run(s).failure, ErrRootfs)
		})
		t.Run("E10 a fake proc", func(t *testing.T) {
			s := b.step("status", "Pid", "--", "open", "/proc/fake")
			s.Lowers = []string{b.tree("fakeproc", "proc/", "proc/self/", "proc/self/status=Pid: 666\n", "proc/fake="), b.root}
			r := b.run(s)
			require.NoError(t, r.failure)
			assert.NotContains(t, r.out, "666")
			assert.Contains(t, r.out, "/proc/fake no such file")
		})
		for name, tc := range map[string]struct {
			cwd, link string
			want      string
		}{
			"E11 through a descriptor":       {cwd: "/proc/self/fd/7"},
			"E11 through another descriptor": {cwd: "/proc/1/fd/5/../.."},
			"E11 through the agent's root":   {cwd: "/proc/1/root"},
			"E11 a link to a descriptor":     {cwd: "/w", link: "/proc/self/fd/7"},
			"E11 a link in the rootfs":       {cwd: "/w/in", link: "/bin", want: "/bin/in"},
			"E11 a link out of the rootfs":   {cwd: "/w", link: "../../../../bin", want: "/bin"},
			"E11 dots":                       {cwd: "../../../bin/../bin/.", want: "/bin"},
			"E11 below a file":               {cwd: "/bin/probe/x"},
		} {
			t.Run(name, func(t *testing.T) {
				s := b.step("cwd")
				s.Cwd = tc.cwd
				if tc.link != "" {
					s.Lowers = []string{b.tree("cwd "+name, "w -> "+tc.link), b.root}
				}
				r := b.run(s)
				if tc.want == "" {
					require.ErrorIs(t, r.failure, ErrRootfs)
					return
				}
				require.NoError(t, r.failure, r.err)
				assert.Equal(t, tc.want+"\n", r.out)
			})
		}
		t.Run("E14 a link in a shared cache", func(t *testing.T) {
			cache := b.tree("cache", "etc -> "+victim, "up -> ../../../../../../"+victim)
			for _, target := range []string{"/c/etc/x", "/c/up/y"} {
				s := b.step("true")
				s.Mounts = []Mount{{Kind: MountDir, Target: "/c", Source: cache}, {Kind: MountTmpfs, Target: target}}
				require.NoError(t, b.run(s).failure)
			}
			es, err := os.ReadDir(victim)
			require.NoError(t, err)
			assert.Len(t, es, 2)
		})
		t.Run("E26 forged overlay marks", func(t *testing.T) {
			lower := b.tree("forge", "d/", "d/keep=x", "f=x")
			s := b.step("setxattr", "/d", "user.overlay.opaque", "y", "--", "setxattr", "/f", "user.overlay.whiteout", "y", "--", "setxattr", "/f", "user.overlay.redirect", "/etc", "--", "mkdir", "/new", "--", "setxattr", "/new", "user.overlay.opaque", "y")
			s.Lowers = []string{lower, b.root}
			s.Keep = filepath.Join(b.dir, "forged")
			got := b.diff(s)
			assert.ElementsMatch(t, with("5 755 0:0 d/", "0 644 0:0 f = x", "5 755 0:0 new/"), got)
			s2 := b.step("ls", "/d", "--", "cat", "/f")
			s2.Lowers = []string{s.Keep, lower, b.root}
			assert.Equal(t, "keep\nx", b.run(s2).out)
			require.Error(t, b.run(b.step("mknod", "/whiteout", "0", "0")).failure)
		})
		t.Run("E27 a tree that bites", func(t *testing.T) {
			s := b.step("mkfifo", "/fifo", "--", "mkdir", "/closed/in", "--", "write", "/closed/in/f", "x", "--", "chmod", "/closed/in/f", "0", "--", "chmod", "/closed/in", "0", "--", "chmod", "/closed", "0")
			s.Keep = filepath.Join(b.dir, "bites")
			got := b.diff(s)
			assert.ElementsMatch(t, with("6 644 0:0 fifo", "5 0 0:0 closed/", "5 0 0:0 closed/in/", "0 0 0:0 closed/in/f = x"), got)
			require.NoError(t, b.pool.Remove(t.Context(), s.Keep))
			assert.NoDirExists(t, s.Keep)
		})
		t.Run("E28 the end of the world", func(t *testing.T) {
			b.run(b.step("rmall", "/")) // fails at the mounts, having removed what it could
			s := b.step("rmall", "/bin")
			got := b.diff(s)
			assert.ElementsMatch(t, with("0 0 0:0 .wh.bin = "), got)
			s = b.step("chmod", "/", "0")
			s.Keep = filepath.Join(b.dir, "closed root")
			_ = b.diff(s)
			s2 := b.step("stat", "/")
			s2.Lowers = []string{s.Keep, b.root}
			r := b.run(s2)
			require.NoError(t, r.failure, r.err)
			assert.True(t, strings.HasPrefix(r.out, "/ 40000 0:0"), r.out)
			assert.Equal(t, "ok\n", b.ok("echo", "ok"), "the next one is clean")
		})
		t.Run("E29 no emulator", func(t *testing.T) {
			c := boxOf(t, newPool(t, Options{Handlers: []emulate.Handler{}, Agents: 1}))
			c.install("arm64", "bin/foreign")
			require.NoError(t, os.WriteFile(filepath.Join(c.root, "bin/script"), []byte("#!/bin/foreign\n"), 0o755))
			for _, prog := range []string{"/bin/foreign", "script"} {
				s := c.step()
				s.Args = []string{prog}
				err := c.run(s).failure
				require.ErrorIs(t, err, emulate.ErrNoEmulator)
				assert.Contains(t, err.Error(), "arm64")
				assert.Contains(t, err.Error(), "install qemu-user-static")
			}
		})
	})
}
