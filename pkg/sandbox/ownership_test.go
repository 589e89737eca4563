//go:build linux

package sandbox

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/internal/testuser"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

// verbs splits "chown /f 1 2; stat /f" for the probe.
func verbs(s string) []string {
	var out []string
	for i, verb := range strings.Split(s, "; ") {
		if i > 0 {
			out = append(out, "--")
		}
		out = append(out, strings.Fields(verb)...)
	}
	return out
}

// TestOwnership: what a step does with owners and ids looks the same to it and in the layer whether the ids are real
// (root, ranges) or there is only one (single). Every case holds for all of them.
func TestOwnership(t *testing.T) {
	archs := []string{runtime.GOARCH}
	if runtime.GOARCH == "amd64" {
		archs = append(archs, "386", "arm64", "arm") // another table of the host, and two that qemu makes the host's
	}
	for _, arch := range archs {
		probe(t, arch)
	}
	cases := map[string]struct {
		run   string
		out   string
		layer []string
	}{
		"chown": {
			run:   "chown /file 33 34; stat /file; fstat /file; statx /file",
			out:   "/file 100644 33:34 1 0\n/file 100644 33:34 1 0\n/file 100644 33:34\n",
			layer: []string{"0 644 33:34 file = x"},
		},
		"every way to chown": {
			run: "chown file 1 2; lchown /dir/../file 3 -1; fchown /file -1 4; stat /file; fchownat file 5 5; chown /ln -1 60000; stat file",
			out: "/file 100644 3:4 1 0\nfile 100644 5:60000 1 0\n", layer: []string{"0 644 5:60000 file = x"},
		},
		"chown and back": {
			run: "chown /file 33 34; chown /file 0 0; stat /file", out: "/file 100644 0:0 1 0\n", // as it was: in no layer
		},
		"chown takes set-uid bits": {
			run: "chmod /file 06755; chown /file 33 34; stat /file; chmod /file 04755; stat /file",
			out: "/file 100755 33:34 1 0\n/file 104755 33:34 1 0\n", layer: []string{"0 4755 33:34 file = x"},
		},
		"names lead the same ways": {
			run:   "chdir /dir/sub; chown ../../file 1 1; chown /abs 2 2; lchown ../up 3 3; stat ../../file ../up; chown out/../../file 4 4; stat /file",
			out:   "../../file 100644 2:2 1 0\n../up 120777 3:3 7 0\n/file 100644 4:4 1 0\n",
			layer: []string{"0 644 4:4 file = x", "2 777 3:3 dir/up -> ../file", "5 755 0:0 dir/"},
		},
		"symlinks and fifos": {
			run:   "symlink to /l; lchown /l 33 34; mkfifo /p; chown /p 35 36; stat /l /p; statx /l; rename /l /m; link /m /n; lchown /n 40 41; stat /m /n",
			out:   "/l 120777 33:34 2 0\n/p 10644 35:36 0 0\n/l 120777 33:34\n/m 120777 40:41 2 0\n/n 120777 40:41 2 0\n",
			layer: []string{"2 777 40:41 m -> to", "1 777 40:41 n -> m", "6 644 35:36 p"},
		},
		"a symlink that takes the name of another": {
			run: "symlink to /l; lchown /l 33 34; rm /l; symlink to /other; rename /other /l; stat /l", out: "/l 120777 0:0 2 0\n",
			layer: []string{"2 777 0:0 l -> to"},
		},
		"directories with symlinks are renamed": {
			run: "mkdir /a; symlink to /a/l; lchown /a/l 33 34; chown /a 5 6; rename /a /b; stat /b /b/l",
			out: "/b 40755 5:6 4096 0\n/b/l 120777 33:34 2 0\n", layer: []string{"5 755 5:6 b/", "2 777 33:34 b/l -> to"},
		},
		"set-gid directories": {
			run: "mkdir /g; chown /g 0 8; chmod /g 02775; write /g/f x; mkdir /g/d; symlink to /g/l; mkfifo /g/p; write /g/d/f y; tmpfile /g /g/t; stat /g/f /g/d /g/l /g/p /g/d/f",
			out: "/g/f 100644 0:8 1 0\n/g/d 42755 0:8 4096 0\n/g/l 120777 0:8 2 0\n/g/p 10644 0:8 0 0\n/g/d/f 100644 0:8 1 0\n",
			layer: []string{
				"5 2775 0:8 g/", "0 644 0:8 g/f = x", "5 2755 0:8 g/d/", "2 777 0:8 g/l -> to", "6 644 0:8 g/p", "0 644 0:8 g/d/f = y", "0 640 0:8 g/t = ",
			},
		},
		"another user": {
			run: "setgroups 40 41; setgid 34; setuid 33; id; getres; write /open/f x; mkdir /open/d; symlink to /open/l; mkfifo /open/p; append /open/f y; mkfile /open/m 0777; tmpfile /open /open/t; stat /open/f",
			out: "33 33 34 34 [40 41]\n33 33 33 34 34 34\n/open/f 100644 33:34 2 0\n",
			layer: []string{
				"5 777 0:0 open/", "0 644 33:34 open/f = xy", "5 755 33:34 open/d/", "2 777 33:34 open/l -> to", "6 644 33:34 open/p", "0 755 33:34 open/m = ",
				"0 640 33:34 open/t = ",
			},
		},
		"what another user may not": {
			run: "setgroups 40; setgid 34; setuid 33; write /open/f x; chown /open/f 33 40; getres", out: "33 33 33 34 34 34\n",
			layer: []string{"5 777 0:0 open/", "0 644 33:40 open/f = x"},
		},
		"children are who their parents were": {
			run: "setgid 34; setuid 33; self write /open/f x; self id", out: "33 33 34 34 []\n",
			layer: []string{"5 777 0:0 open/", "0 644 33:34 open/f = x"},
		},
		"and go back": {
			run: "setresuid 33 33 0; write /open/f x; setresuid 0 0 0; write /open/g y; getres", out: "0 0 0 0 0 0\n",
			layer: []string{"5 777 0:0 open/", "0 644 33:0 open/f = x", "0 644 0:0 open/g = y"},
		},
		"the ids of the file system": {
			run: "setfsuid 33; write /open/f x; setfsuid 0; getres", out: "0 0 0 0 0 0\n",
			layer: []string{"5 777 0:0 open/", "0 644 33:0 open/f = x"},
		},
		"capabilities that are kept": { // as setpriv does it: the user first, then the group
			run: "keepcaps; setresuid 33 33 33; capset; setgid 34; setgroups 40; chown /file 5 6; getres", out: "33 33 33 34 34 34\n",
			layer: []string{"0 644 5:6 file = x"},
		},
		"capabilities with root at hand": {
			run: "setresuid 33 33 0; capset; setgid 34; getres", out: "33 33 0 34 34 34\n",
		},
		"a set-uid program": {
			run: "setgroups; setgid 34; setuid 33; exec /bin/suid getres", out: "33 0 0 34 34 34\n",
		},
		"a set-uid program makes files": {
			run: "setgroups; setgid 34; setuid 33; exec /bin/suid write /open/f x", layer: []string{"5 777 0:0 open/", "0 644 0:34 open/f = x"},
		},
		"a set-gid program": {
			run: "chown /bin/suid 0 8; chmod /bin/suid 02755; setuid 33; exec /bin/suid getres", out: "33 33 33 0 8 8\n",
		},
		"a set-gid program makes files": {
			run:   "chown /bin/suid 0 8; chmod /bin/suid 02755; setuid 33; exec /bin/suid write /open/f x",
			layer: []string{"5 777 0:0 open/", "0 644 33:8 open/f = x"},
		},
		"records are nobody's business": {
			run: "setxattr /file user.x y; chown /file 33 34; listxattr /file; chown /file 0 0; listxattr /file", out: "\"user.x\\x00\"\n\"user.x\\x00\"\n",
			layer: []string{"0 644 0:0 file = x"},
		},
		"not in a layer": {
			run: "write /dev/shm/x y; chown /dev/shm/x 33 34; stat /dev/shm/x; rm /dev/shm/x", out: "/dev/shm/x 100644 33:34 1 0\n",
		},
	}
	testuser.Each(t, func(t *testing.T) {
		b := newBox(t)
		require.NoError(t, b.pool.Owners())
		for name, tc := range cases {
			for _, arch := range archs {
				if arch != runtime.GOARCH && !strings.Contains("chown, every way to chown, symlinks and fifos, set-gid directories, another user, the ids of the file system", name) {
					continue
				}
				t.Run(name+" "+arch, func(t *testing.T) {
					s := ownBox(t, b, arch, verbs(tc.run))
					var buf, out bytes.Buffer
					s.Diff, s.Stdout = &buf, &out
					r := b.run(s)
					require.NoError(t, r.failure, r.err)
					assert.Equal(t, tc.out, out.String())
					var got []string
					for _, line := range listTar(t, &buf) {
						if !strings.Contains(line, " bin/") && !strings.HasSuffix(line, " etc/") {
							got = append(got, line)
						}
					}
					assert.ElementsMatch(t, tc.layer, got)
				})
			}
		}
		t.Run("what is refused", func(t *testing.T) {
			for _, run := range []string{
				"setuid 33; setuid 0", "keepcaps; setuid 33; setgid 5", "setuid 33; capset; setgid 5", "keepcaps; setuid 33; capset; self setgid 5",
				"setuid 33; setgid 5", "setuid 33; setgroups 1", "setuid 33; chown /file 33 33",
				"setuid 33; chown /open/g 34 -1", "setuid 33; chown /open/g -1 35", "setresuid 1 2 3; setresuid 4 -1 -1", "chown /absent 1 1",
			} {
				s := ownBox(t, b, runtime.GOARCH, verbs(run))
				var exit *ExitError
				r := b.run(s)
				require.ErrorAs(t, r.failure, &exit, run)
				require.NotErrorIs(t, r.failure, ErrOwnership, "a program's own mistake: "+run)
			}
		})
		t.Run("the owner of a mount", func(t *testing.T) {
			s := ownBox(t, b, runtime.GOARCH, verbs("stat /run/secret /tmp/x; write /tmp/x/f y; stat /tmp/x/f"))
			s.Mounts = []Mount{
				{Kind: MountData, Target: "/run/secret", Data: []byte("x"), UID: 1000, GID: 1001, Mode: 0o400},
				{Kind: MountTmpfs, Target: "/tmp/x", UID: 7, GID: 8},
			}
			r := b.run(s)
			require.NoError(t, r.failure, r.err)
			assert.Contains(t, r.out, "/run/secret 100400 1000:1001 1 0\n/tmp/x 41777 7:8 ")
		})
	})
}

// ownBox is a step in a rootfs with things to own, as arch's probe.
func ownBox(t *testing.T, b *box, arch string, args []string) Step {
	t.Helper()
	dir := b.tree("own-"+filepath.Base(b.scratch()), "bin/", "dir/", "dir/sub/", "open/", "dev/", "proc/", "sys/", "etc/", "tmp/", "run/",
		"file=x", "ln -> file", "abs -> /file", "dir/up -> ../file", "dir/sub/out -> /dir/sub")
	require.NoError(t, os.Chmod(filepath.Join(dir, "open"), 0o777))
	root := b.root
	b.root = dir
	b.install(arch, "bin/probe")
	b.install(arch, "bin/suid")
	require.NoError(t, unix.Chmod(filepath.Join(dir, "bin/suid"), 0o4755))
	b.root = root
	s := b.step(args...)
	s.Lowers = []string{dir}
	return s
}

// TestOwnersStay: a step sees what the one before it left, and what the unpacker recorded.
func TestOwnersStay(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		b := newBox(t)
		first := ownBox(t, b, runtime.GOARCH, verbs("chown /file 33 34; symlink to /l; lchown /l 35 36; symlink to /gone; lchown /gone 37 38; mkdir /d; symlink to /d/l; lchown /d/l 39 40; mkfifo /p; chown /p 41 42"))
		first.Keep = filepath.Join(b.dir, "kept")
		require.NoError(t, b.run(first).failure)
		second := b.step(verbs("stat /file /l /d/l /p; rm /gone; rmall /d; mkdir /d; symlink to /d/l; append /file y; rename /l /m")...)
		second.Lowers = append([]string{first.Keep}, first.Lowers...)
		second.Keep = filepath.Join(b.dir, "kept2")
		r := b.run(second)
		require.NoError(t, r.failure, r.err)
		assert.Equal(t, "/file 100644 33:34 1 0\n/l 120777 35:36 2 0\n/d/l 120777 39:40 2 0\n/p 10644 41:42 0 0\n", r.out)
		third := b.step(verbs("stat /file /m /d/l /p")...)
		third.Lowers = append([]string{second.Keep}, second.Lowers...)
		r = b.run(third)
		require.NoError(t, r.failure, r.err)
		assert.Equal(t, "/file 100644 33:34 2 0\n/m 120777 35:36 2 0\n/d/l 120777 0:0 2 0\n/p 10644 41:42 0 0\n", r.out)
	})
}

// TestExactlyAtFork: a child is who its parent was at the fork, even if nobody saw the child before the parent changed or died.
func TestExactlyAtFork(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		b := newBox(t)
		for range 20 {
			s := ownBox(t, b, runtime.GOARCH, verbs("setgid 34; setresuid 33 33 0; fork append /open/f x; setresuid 0 0 0; sleep 300"))
			got := b.diff(s)
			assert.Contains(t, got, "0 644 33:34 open/f = x")
		}
	})
}

// TestDevices: a device is a file on disk that says which one it is, with whatever ids.
func TestDevices(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		b := newBox(t)
		s := ownBox(t, b, runtime.GOARCH, verbs("mknod /null 1 3; chmod /null 0666; chown /null 5 6; rename /null /other; link /other /twice; stat /other"))
		var out bytes.Buffer
		s.Stdout, s.Keep = &out, filepath.Join(b.dir, "keep")
		got := b.diff(s)
		assert.Contains(t, got, "3 666 5:6 other")
		assert.Contains(t, got, "1 666 5:6 twice -> other")
		if b.pool.Mode() == ModeSingle { // else only the next step is told
			assert.Equal(t, "/other 20666 5:6 0 259\n", out.String())
		}
		for _, run := range []string{"mknod /white 0 0", "setuid 33; mknod /open/null 1 3", "mknod /open/none/null 1 3", "mknod /file 1 3"} {
			var exit *ExitError
			require.ErrorAs(t, b.run(ownBox(t, b, runtime.GOARCH, verbs(run))).failure, &exit, run)
		}
		s = ownBox(t, b, runtime.GOARCH, verbs("stat /other; write /other text; chmod /other 0600; stat /twice"))
		s.Lowers = append([]string{filepath.Join(b.dir, "keep")}, s.Lowers...)
		out.Reset()
		s.Stdout = &out
		assert.Contains(t, b.diff(s), "3 600 5:6 other")
		assert.Equal(t, "/other 20666 5:6 0 259\n/twice 20666 5:6 0 259\n", out.String())
		t.Run("of a layer", func(t *testing.T) {
			b.t = t
			dir := filepath.Join(b.dir, "unpacked")
			require.NoError(t, os.Mkdir(dir, 0o755))
			tarball := tarFile(t, tar.Header{Typeflag: tar.TypeChar, Name: "a", Mode: 0o620, Uid: 5, Gid: 6, Devmajor: 4, Devminor: 64},
				tar.Header{Typeflag: tar.TypeBlock, Name: "b", Mode: 0o660, Devmajor: 7, Devminor: 1})
			require.NoError(t, b.pool.Unpack(t.Context(), dir, tarball, layer.Limits{}))
			s := b.step("stat", "/a", "/b")
			s.Lowers = append([]string{dir}, s.Lowers...)
			r := b.run(s)
			require.NoError(t, r.failure, r.err)
			assert.Equal(t, "/a 20620 5:6 0 "+itoa(int(unix.Mkdev(4, 64)))+"\n/b 60660 0:0 0 "+itoa(int(unix.Mkdev(7, 1)))+"\n", r.out)
		})
	})
}

// TestDevicesOfOthers: who is not root of the step makes none, not even as root of a user namespace of its own.
func TestDevicesOfOthers(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		b := newBox(t)
		s := ownBox(t, b, runtime.GOARCH, verbs("mknod /open/null 1 3"))
		s.Account = layer.Account{UID: 33, GID: 33}
		var exit *ExitError
		require.ErrorAs(t, b.run(s).failure, &exit)
		if b.pool.Mode() == ModeSingle {
			return // ids are for bookkeeping
		}
		s = ownBox(t, b, runtime.GOARCH, verbs("nest mknod /open/null 1 3"))
		s.Account = layer.Account{UID: 33, GID: 33}
		r := b.run(s)
		require.ErrorAs(t, r.failure, &exit)
		assert.Contains(t, r.err, "operation not permitted")
	})
}

// tarFile is a file with a tar of headers.
func tarFile(t *testing.T, headers ...tar.Header) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "layer")
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	w := tar.NewWriter(f)
	for _, h := range headers {
		require.NoError(t, w.WriteHeader(&h))
	}
	require.NoError(t, w.Close())
	_, err = f.Seek(0, 0)
	require.NoError(t, err)
	return f
}

// TestNoSupervisor: below another listener (manifestctl in a step of manifestctl) only root's files can be made, and that is said.
func TestNoSupervisor(t *testing.T) {
	b := newBox(t)
	if b.pool.Mode() != ModeSingle {
		b = boxOf(t, newPool(t, Options{Mode: ModeSingle}))
	}
	b.pool.supervisor = unix.EBUSY
	s := b.step("true")
	s.Account = layer.Account{UID: 1000, Name: "somebody"}
	err := b.run(s).failure
	require.ErrorIs(t, err, ErrOwnership)
	require.ErrorIs(t, err, unix.EBUSY)
	assert.Contains(t, err.Error(), "somebody")
}
