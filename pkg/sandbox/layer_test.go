//go:build linux

package sandbox

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testuser"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

// diff runs a step and returns its layer: "TYPE MODE UID:GID NAME", with " = CONTENT" or " -> TARGET".
func (b *box) diff(s Step) []string {
	b.t.Helper()
	var buf bytes.Buffer
	s.Diff = &buf
	r := b.run(s)
	require.NoError(b.t, r.failure, "stderr: %s", r.err)
	return listTar(b.t, &buf)
}

func listTar(t testing.TB, r io.Reader) []string {
	t.Helper()
	out := []string{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		line := fmt.Sprintf("%c %o %d:%d %s", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			data, err := io.ReadAll(tr)
			require.NoError(t, err)
			line += " = " + string(data)
		case tar.TypeSymlink, tar.TypeLink:
			line += " -> " + h.Linkname
		}
		out = append(out, line)
	}
}

// standardDirs are what every step leaves in a rootfs that lacks them.
var standardDirs = []string{"5 755 0:0 dev/", "5 755 0:0 proc/", "5 755 0:0 sys/"}

func with(entries ...string) []string { return append(entries, standardDirs...) }

func TestLayer(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		b := newBox(t)
		t.Run("what a step changes", func(t *testing.T) {
			b.root = b.tree("full", "bin/", "d/", "d/gone=x", "d/same=x", "whole/", "whole/a=1", "whole/b=2", "mv=m", "dev/", "proc/", "sys/", "etc/")
			b.install(runtime.GOARCH, "bin/probe")
			got := b.diff(b.step("write", "/new", "content", "--", "rm", "/d/gone", "--", "rmall", "/whole", "--", "mkdir", "/whole", "--", "write", "/whole/c", "3",
				"--", "symlink", "/to", "/ln", "--", "link", "/new", "/also", "--", "mkfifo", "/fifo", "--", "rename", "/mv", "/moved", "--", "chmod", "/new", "04755"))
			assert.ElementsMatch(t, []string{
				"0 4755 0:0 also = content", "1 4755 0:0 new -> also", "5 755 0:0 d/", "0 0 0:0 d/.wh.gone = ",
				"5 755 0:0 whole/", "0 0 0:0 whole/.wh.a = ", "0 0 0:0 whole/.wh.b = ", "0 644 0:0 whole/c = 3",
				"2 777 0:0 ln -> /to", "6 644 0:0 fifo", "0 644 0:0 moved = m", "0 0 0:0 .wh.mv = ",
			}, got)
		})
		t.Run("nothing", func(t *testing.T) {
			assert.Equal(t, []string{}, b.diff(b.step("true")))
			again := b.step("true")
			again.HostNet = true
			assert.Equal(t, []string{}, b.diff(again), "stubs and what is above them leave nothing")
		})
		t.Run("owners", func(t *testing.T) {
			got := b.diff(b.step("write", "/f", "x", "--", "chown", "/f", "33", "65534"))
			assert.Equal(t, []string{"0 644 33:65534 f = x"}, got)
		})
		t.Run("scratch", func(t *testing.T) {
			s := b.step("write", "/out", "x")
			s.Lowers = nil
			s.Mounts = []Mount{{Kind: MountDir, Target: "/bin", Source: filepath.Join(b.root, "bin"), ReadOnly: true}}
			assert.ElementsMatch(t, with("0 644 0:0 out = x"), b.diff(s), "the stubs /bin and /etc are gone")
		})
		t.Run("a failed step has no layer", func(t *testing.T) {
			var buf bytes.Buffer
			s := b.step("write", "/out", "x", "--", "exit", "1")
			s.Diff, s.Keep = &buf, filepath.Join(b.dir, "kept-not")
			require.Error(t, b.run(s).failure)
			assert.Zero(t, buf.Len())
			assert.NoDirExists(t, s.Keep)
		})
		t.Run("keep", func(t *testing.T) {
			first := b.step("write", "/one", "1", "--", "rm", "/d/same", "--", "setxattr", "/one", "user.x", "y")
			first.Keep = filepath.Join(b.dir, "kept")
			require.NoError(t, b.run(first).failure)
			second := b.step("cat", "/one", "--", "getxattr", "/one", "user.x", "--", "ls", "/d")
			second.Lowers = []string{first.Keep, b.root}
			r := b.run(second)
			require.NoError(t, r.failure, r.err)
			assert.Equal(t, "179\ngone\n", r.out)
			assert.Equal(t, []string{}, b.diff(func() Step { s := b.step("true"); s.Lowers = second.Lowers; return s }()))
		})
		t.Run("times", func(t *testing.T) {
			clamp := time.Unix(1_000_000_000, 0)
			var buf bytes.Buffer
			s := b.step("write", "/new", "x")
			s.Diff, s.Clamp, s.Lowers = &buf, &clamp, []string{b.tree("empty"), b.root}
			require.NoError(t, b.run(s).failure)
			h, err := tar.NewReader(&buf).Next()
			require.NoError(t, err)
			assert.Equal(t, clamp.Unix(), h.ModTime.Unix())
		})
		t.Run("D15 what the scratch directory inherits is not in the rootfs", func(t *testing.T) {
			s := b.step("write", "/f", "x", "--", "mkdir", "/d", "--", "stat", "/")
			s.Lowers = nil
			s.Mounts = []Mount{{Kind: MountDir, Target: "/bin", Source: filepath.Join(b.root, "bin"), ReadOnly: true}}
			require.NoError(t, os.Chmod(s.Scratch, 0o777|os.ModeSetgid))
			// u::rwx g::--- o::--- by default, as getfacl would print it
			acl := []byte{2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 4, 0, 0, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255}
			require.NoError(t, syscall.Setxattr(s.Scratch, "system.posix_acl_default", acl, 0))
			var out bytes.Buffer
			s.Stdout = &out
			assert.ElementsMatch(t, with("0 644 0:0 f = x", "5 755 0:0 d/"), b.diff(s))
			assert.True(t, strings.HasPrefix(out.String(), "/ 40755 0:0 "), out.String())
		})
		t.Run("capabilities", func(t *testing.T) {
			const caps = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_raw+ep, v2
			var buf bytes.Buffer
			s := b.step("write", "/ping", "x", "--", "setcap", "/ping", "/caps")
			s.Mounts = []Mount{{Kind: MountData, Target: "/caps", Data: []byte(caps)}}
			s.Diff = &buf
			r := b.run(s)
			require.NoError(t, r.failure, r.err)
			h, err := tar.NewReader(&buf).Next()
			require.NoError(t, err)
			assert.Equal(t, caps, h.PAXRecords["SCHILY.xattr.security.capability"], "as a root build writes it: version 2")
		})
	})
}

// TestStubs: what is made only to mount on it is never in a layer, and neither are directories that only it changed.
func TestStubs(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		b := newBox(t)
		old := time.Unix(1_111_111_111, 222_333_444)
		mounts := []Mount{
			{Kind: MountTmpfs, Target: "/a/b/c"},
			{Kind: MountData, Target: "/usr/share/s/secret", Data: []byte("canary")},
			{Kind: MountTmpfs, Target: "/link/under"},
			{Kind: MountTmpfs, Target: "/dangling/under"},
		}
		base := func(name string) string {
			dir := b.tree(name, "usr/", "usr/share/", "usr/share/s/", "etc/", "real/", "link -> /real", "dangling -> not/yet/here")
			for _, d := range []string{"usr/share/s", "usr/share", "usr", "etc", "real", ""} {
				require.NoError(t, os.Chtimes(filepath.Join(dir, d), old, old))
			}
			return dir
		}
		for name, tc := range map[string]struct {
			args []string
			want []string
		}{
			"nothing is left":              {[]string{"true"}, with()},
			"a file beside the stub":       {[]string{"write", "/usr/share/s/own", "x"}, with("5 755 0:0 usr/", "5 755 0:0 usr/share/", "5 755 0:0 usr/share/s/", "0 644 0:0 usr/share/s/own = x")},
			"a file beside a made parent":  {[]string{"write", "/a/own", "x"}, with("5 755 0:0 a/", "0 644 0:0 a/own = x")},
			"a changed mode":               {[]string{"chmod", "/etc", "0700"}, with("5 700 0:0 etc/")},
			"below a link that was absent": {[]string{"write", "/not/yet/here/own", "x"}, with("5 755 0:0 not/", "5 755 0:0 not/yet/", "5 755 0:0 not/yet/here/", "0 644 0:0 not/yet/here/own = x")},
		} {
			t.Run(name, func(t *testing.T) {
				root := base("base " + name)
				s := b.step(tc.args...)
				s.Lowers, s.Mounts, s.HostNet = []string{root, b.root}, mounts, true
				var buf bytes.Buffer
				s.Diff, s.Keep = &buf, filepath.Join(b.dir, "kept "+name)
				r := b.run(s)
				require.NoError(t, r.failure, r.err)
				assert.NotContains(t, buf.String(), "canary")
				tr := tar.NewReader(bytes.NewReader(buf.Bytes()))
				for h, err := tr.Next(); err == nil; h, err = tr.Next() {
					switch h.Name {
					case "usr/", "usr/share/": // nobody made anything in them
						assert.Equal(t, old.Unix(), h.ModTime.Unix(), h.Name)
					case "usr/share/s/":
						assert.NotEqual(t, old.Unix(), h.ModTime.Unix(), "the step's own doing")
					case "etc/":
						assert.NotEqual(t, old.Unix(), h.ModTime.Unix(), "where stubs were made, as with BuildKit")
					}
				}
				assert.ElementsMatch(t, tc.want, listTar(t, &buf))
				st, err := os.Stat(s.Keep)
				require.NoError(t, err)
				if name != "a file beside a made parent" && !strings.Contains(name, "absent") {
					assert.True(t, st.ModTime().Equal(old), "the root: %v", st.ModTime())
				}
				assert.NoFileExists(t, filepath.Join(s.Keep, "etc/hosts"))
				assert.NoFileExists(t, filepath.Join(s.Keep, "etc/resolv.conf"))
			})
		}
		t.Run("files of the image stay", func(t *testing.T) {
			root := b.tree("own", "etc/", "etc/hosts=image\n", "etc/resolv.conf=image\n")
			s := b.step("cat", "/etc/hosts")
			s.Lowers = []string{root, b.root}
			r := b.run(s)
			require.NoError(t, r.failure)
			assert.Contains(t, r.out, DefaultHostname)
			got := b.diff(func() Step { s := b.step("true"); s.Lowers = []string{root, b.root}; s.HostNet = true; return s }())
			assert.ElementsMatch(t, with(), got)
		})
		t.Run("E07 a stub's parent becomes a link", func(t *testing.T) {
			victim := b.tree("victim", "secret=")
			s := b.step("rename", "/usr/share/s", "/usr/share/t")
			s.Args = []string{"probe", "mkdir", "/x", "--", "rename", "/a", "/x/a", "--", "symlink", victim, "/a"}
			s.Lowers = []string{base("base2"), b.root}
			s.Mounts = []Mount{{Kind: MountTmpfs, Target: "/a/secret/c"}}
			r := b.run(s)
			require.NoError(t, r.failure, r.err)
			assert.FileExists(t, filepath.Join(victim, "secret"))
		})
	})
}

func TestUnpackRemove(t *testing.T) {
	testuser.Each(t, func(t *testing.T) {
		b := newBox(t)
		var buf bytes.Buffer
		tw := tar.NewWriter(&buf)
		for _, h := range []*tar.Header{
			{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o000},
			{Name: "d/f", Typeflag: tar.TypeReg, Mode: 0o4711, Uid: 33, Gid: 34, Size: 1},
			{Name: "d/.wh.gone", Typeflag: tar.TypeReg},
			{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "d/f"},
		} {
			require.NoError(t, tw.WriteHeader(h))
			if h.Size > 0 {
				_, err := tw.Write([]byte("x"))
				require.NoError(t, err)
			}
		}
		require.NoError(t, tw.Close())
		dir := filepath.Join(b.dir, "tree")
		unpack := func(data []byte) error {
			require.NoError(t, os.Mkdir(dir, 0o755))
			r, w, err := os.Pipe()
			require.NoError(t, err)
			defer r.Close()
			go func() {
				_, _ = w.Write(data)
				w.Close()
			}()
			return b.pool.Unpack(t.Context(), dir, r, layer.Limits{})
		}
		require.NoError(t, unpack(buf.Bytes()))
		lower := b.tree("lower", "d/", "d/gone=x")
		s := b.step("stat", "/d/f", "--", "ls", "/d")
		s.Lowers = []string{dir, lower, b.root}
		r := b.run(s)
		require.NoError(t, r.failure, r.err)
		assert.Equal(t, "/d/f 104711 33:34 1 0\nf\n", r.out)
		s = b.step("append", "/d/f", "y")
		s.Lowers = []string{dir, lower, b.root}
		assert.Contains(t, b.diff(s), "0 711 33:34 d/f = xy", "a write clears setuid and keeps the owner")

		require.NoError(t, b.pool.Remove(t.Context(), dir))
		assert.NoDirExists(t, dir)
		require.NoError(t, b.pool.Remove(t.Context(), dir), "again is fine")
		require.Error(t, b.pool.Remove(t.Context(), "/"))

		err := unpack(buf.Bytes()[:700])
		require.ErrorIs(t, err, io.ErrUnexpectedEOF, "kinds come through")
		require.NoError(t, b.pool.Remove(t.Context(), dir))
		require.ErrorIs(t, b.pool.Unpack(t.Context(), filepath.Join(b.dir, "absent"), os.Stdin, layer.Limits{}), syscall.ENOENT)
	})
}
