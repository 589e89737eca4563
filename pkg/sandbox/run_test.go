//go:build linux

package sandbox

import (
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testuser"
	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

func TestRun(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		b := newBox(t)
		require.NoError(t, b.pool.Emulation())
		if m := mode(t); m != "" {
			assert.Equal(t, m, b.pool.Mode())
		}

		t.Run("output", func(t *testing.T) {
			r := b.run(b.step("echo", "to stdout", "--", "err", "to stderr"))
			require.NoError(t, r.failure)
			assert.Equal(t, "to stdout\n", r.out)
			assert.Equal(t, "to stderr\n", r.err)
		})
		t.Run("arguments are bytes", func(t *testing.T) {
			s := b.step("args", "a b", "", "\xff\xfe", "*")
			s.Args[0] = "/bin/probe"
			r := b.run(s)
			require.NoError(t, r.failure)
			assert.Equal(t, "\"/bin/probe\"\n\"args\"\n\"a b\"\n\"\"\n\"\\xff\\xfe\"\n\"*\"\n", r.out)
		})
		t.Run("E13 the environment is what was given", func(t *testing.T) {
			t.Setenv("SSH_AUTH_SOCK", "/canary")
			s := b.step("env")
			s.Env = []string{"PATH=/bin", "X=\xff"}
			r := b.run(s)
			require.NoError(t, r.failure)
			assert.Equal(t, "\"PATH=/bin\"\n\"X=\\xff\"\n", r.out)
		})
		t.Run("who and where", func(t *testing.T) {
			assert.Equal(t, "0 0 0 0", strings.Join(strings.Fields(b.ok("id"))[:4], " "))
			assert.Equal(t, "/\n", b.ok("cwd"))
			assert.Equal(t, DefaultHostname+"\n", b.ok("hostname"))
			assert.Equal(t, "0022\n", b.ok("umask"))
			s := b.step("hostname", "--", "cat", "/etc/hosts")
			s.Hostname, s.Hosts = "other", []Host{{"192.0.2.1", "mirror"}}
			r := b.run(s)
			require.NoError(t, r.failure)
			assert.True(t, strings.HasPrefix(r.out, "other\n"), r.out)
			assert.Contains(t, r.out, "127.0.0.1\tlocalhost other\n")
			assert.Contains(t, r.out, "192.0.2.1\tmirror\n")
		})
		t.Run("standard input is empty", func(t *testing.T) {
			assert.Empty(t, b.ok("copy"))
			assert.Empty(t, b.ok("nonblock"), "programs do not expect EAGAIN")
		})
		t.Run("working directory", func(t *testing.T) {
			s := b.step("cwd", "--", "stat", ".")
			s.Cwd = "/made/for it"
			r := b.run(s)
			require.NoError(t, r.failure)
			assert.Equal(t, "/made/for it\n. 40755 0:0", r.out[:strings.Index(r.out, "0:0")+3])
		})
		t.Run("a limit", func(t *testing.T) {
			s := b.step("nofile")
			s.Limits.Files = 77
			r := b.run(s)
			require.NoError(t, r.failure)
			assert.Equal(t, "77 77\n", r.out)
			var lim syscall.Rlimit
			require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim))
			assert.NotEqual(t, "77", strings.Fields(b.ok("nofile"))[1], "the agent keeps its own")
		})

		for name, tc := range map[string]struct {
			args []string
			code int
			sig  string
			text string
		}{
			"exit code":              {args: []string{"probe", "exit", "7"}, code: 7},
			"E28 killed":             {args: []string{"probe", "kill", "0", "9"}, code: 137, sig: "SIGKILL"},
			"E28 terminated":         {args: []string{"probe", "kill", "0", "15", "--", "sleep", "60000"}, code: 143, sig: "SIGTERM"},
			"not in PATH":            {args: []string{"nothing"}, code: 127, text: `"nothing" not found in PATH=/bin`},
			"no such file":           {args: []string{"/nothing"}, code: 127, text: "/nothing"},
			"below a file":           {args: []string{"/bin/probe/x"}, code: 127},
			"a directory":            {args: []string{"/bin"}, code: 126, text: "directory"},
			"not executable":         {args: []string{"/text"}, code: 126, text: "not executable"},
			"not executable in PATH": {args: []string{"plain"}, code: 126, text: "not executable"},
			"no format":              {args: []string{"/bin/garbage"}, code: 126, text: "exec format error"},
			"script":                 {args: []string{"/bin/script", "x"}},
			"script, no interpreter": {args: []string{"/bin/orphan"}, code: 127, text: "/bin/absent"},
			"link out of the rootfs": {args: []string{"/bin/out"}, code: 127},
		} {
			t.Run(name, func(t *testing.T) {
				b.tree("root", "text=x", "bin/plain=x")
				for name, data := range map[string]string{
					"bin/garbage": "garbage", "bin/script": "#!/bin/probe echo\n", "bin/orphan": "#!/bin/absent\n",
				} {
					require.NoError(t, os.WriteFile(b.root+"/"+name, []byte(data), 0o755))
				}
				_ = os.Symlink("/usr/bin/env", b.root+"/bin/out")
				s := b.step()
				s.Args = tc.args
				r := b.run(s)
				if tc.code == 0 {
					require.NoError(t, r.failure, r.err)
					return
				}
				var exit *ExitError
				require.ErrorAs(t, r.failure, &exit)
				assert.Equal(t, tc.code, exit.Code)
				assert.Equal(t, tc.sig, exit.Signal)
				assert.Contains(t, exit.Error(), tc.text)
			})
		}
	})
}

func TestAccount(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		b := newBox(t)
		s := b.step("id", "--", "append", "/dev/stdout", "by name\n", "--", "append", "/dev/stderr", "too\n")
		s.Account = layer.Account{UID: 1000, GID: 1001, Groups: []int{1001, 27}, Name: "somebody"}
		s.Cwd = "/home/somebody"
		r := b.run(s)
		require.NoError(t, r.failure, r.err)
		assert.Equal(t, "1000 1000 1001 1001 [27 1001]\nby name\n", r.out)
		assert.Equal(t, "too\n", r.err)
		if b.pool.Mode() != ModeSingle { // where ids are for bookkeeping, capabilities stay
			s = b.step("status", "CapEff", "CapPrm")
			s.Account = layer.Account{UID: 1000}
			assert.Equal(t, "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n", b.run(s).out)
		}

		s = b.step("id")
		s.Account = layer.Account{Groups: []int{4, 3}}
		r = b.run(s)
		require.NoError(t, r.failure)
		assert.Equal(t, "0 0 0 0 [3 4]\n", r.out)

		s = b.step("id")
		s.Account = layer.Account{UID: 5_000_000_000}
		require.ErrorIs(t, b.run(s).failure, ErrOwnership)
	})
}

func TestEmulation(t *testing.T) {
	machines := map[string]string{"amd64": "x86_64", "arm64": "aarch64", "arm": "armv7l", "riscv64": "riscv64", "s390x": "s390x"}
	for arch := range machines {
		probe(t, arch)
	}
	testuser.Each(t, func(t *testing.T) {
		for _, mode := range []emulate.Mode{emulate.PrivateOnly, emulate.PtraceOnly} {
			if mode == emulate.PtraceOnly && !canTrace {
				t.Logf("%s has no tracer", runtime.GOARCH)
				continue
			}
			b := boxOf(t, newPool(t, Options{Emulation: mode}))
			require.NoError(t, b.pool.Emulation())
			assert.Equal(t, string(mode), string(b.pool.Emulator()))
			b.install("arm64", "bin/probe-arm64")
			for name, script := range map[string]string{
				"script": "#!/bin/probe-arm64 echo\n", "deep": "#! /bin/script  two words \n", "own": "#!/bin/probe echo\n", "bad": "#!/absent\n", "loop": "#!/bin/loop\n",
			} {
				require.NoError(t, os.WriteFile(b.root+"/bin/"+name, []byte(script), 0o755))
			}
			require.NoError(t, os.WriteFile(b.root+"/bin/plain", []byte("#!/bin/probe-arm64 echo\n"), 0o644))
			for arch, uname := range machines {
				t.Run(string(mode)+" "+arch, func(t *testing.T) {
					b.install(arch, "bin/probe-"+arch)
					s := b.step("uname", "--", "self", "uname", "--", "daemon", "sleep", "60000", "--", "args")
					s.Args[0] = "probe-" + arch
					r := b.run(s)
					require.NoError(t, r.failure, "%s: install qemu-user-static", r.err)
					line := uname + " " + arch + "\n"
					assert.True(t, strings.HasPrefix(r.out, line+line+"\"probe-"+arch+"\"\n"), r.out)
				})
			}
			for name, tc := range map[string]struct {
				args []string
				out  string
				code int
			}{
				"a foreign script":                 {args: []string{"script", "x"}, out: "/bin/script x\n"},
				"a script of a script":             {args: []string{"/bin/deep", "x", "y"}, out: "/bin/script two words /bin/deep x y\n"},
				"a script for this machine":        {args: []string{"own", "x"}, out: "/bin/own x\n"},
				"from native to foreign":           {args: []string{"probe", "exec", "/bin/probe-arm64", "uname"}, out: "aarch64 arm64\n"},
				"from foreign to native":           {args: []string{"probe-arm64", "exec", "/bin/probe", "uname"}, out: "x86_64 amd64\n"},
				"a relative name":                  {args: []string{"probe", "chdir", "/bin", "--", "exec", "./script", "x"}, out: "./script x\n"},
				"an exit code":                     {args: []string{"probe-arm64", "exit", "7"}, code: 7},
				"a script without its interpreter": {args: []string{"probe-arm64", "exec", "/bin/bad"}, code: 1},
				"a script of itself":               {args: []string{"probe-arm64", "exec", "/bin/loop"}, code: 1},
				"not executable":                   {args: []string{"probe-arm64", "exec", "/bin/plain"}, code: 1},
				"nothing there":                    {args: []string{"probe-arm64", "exec", "/bin/absent"}, code: 1},
			} {
				t.Run(string(mode)+" "+name, func(t *testing.T) {
					s := b.step()
					s.Args = tc.args
					r := b.run(s)
					assert.Equal(t, tc.out, r.out)
					if tc.code == 0 {
						require.NoError(t, r.failure, r.err)
						return
					}
					var exit *ExitError
					require.ErrorAs(t, r.failure, &exit)
					assert.Equal(t, tc.code, exit.Code)
				})
			}
			t.Run(string(mode)+" as another user", func(t *testing.T) {
				s := b.step("id", "--", "self", "id")
				s.Args[0] = "probe-arm64"
				s.Account = layer.Account{UID: 1000, GID: 1001}
				r := b.run(s)
				require.NoError(t, r.failure, r.err)
				assert.Equal(t, "1000 1000 1001 1001 []\n1000 1000 1001 1001 []\n", r.out)
			})
		}
		off := boxOf(t, newPool(t, Options{Emulation: emulate.Off}))
		off.install("arm64", "bin/probe-arm64")
		s := off.step("uname")
		s.Args[0] = "probe-arm64"
		require.ErrorIs(t, off.run(s).failure, emulate.ErrNoEmulator)
	})
}
