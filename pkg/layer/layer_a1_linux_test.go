package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The rows of ROBUSTNESS.md, group a, about names and links; TestLayerContents and TestLayerTarget have the others.
func TestLayer(t *testing.T) {
	t.Run("A01_names", func(t *testing.T) {
		for _, name := range []string{"../x", "a/../../x", "/../x", "..", "../", "a/../..", "./../x", "a/b/../../../outside/x"} {
			refused(t, ErrUnsafe, ended(rawHeader(name, '0', nil)))
			refused(t, ErrUnsafe, ended(rawHeader(name, '5', nil)))
			refused(t, ErrUnsafe, ended(rawHeader(name, '2', func(b []byte) { copy(b[157:], "x") })))
			refused(t, ErrUnsafe, ended(paxHeader("path", name), rawHeader("x", '0', nil)))
		}
		for raw, want := range map[string]string{
			"./a": "a", "/a": "a", "a//b": "a/b", "a/./b": "a/b", "a/../b": "b", "//a": "a", `..\x`: `..\x`, `a\..\..\x`: `a\..\..\x`, "...": "...", "..a": "..a", "a..": "a..",
		} {
			got, err := checkChain(t, ended(rawHeader(raw, '0', nil)))
			require.NoError(t, err, raw)
			assert.Contains(t, got[len(got)-1], strconv.Quote(want)+" 0", raw)
		}
	})

	t.Run("A02_absolute_symlink", func(t *testing.T) {
		got, err := checkChain(t, archive(t, dir("etc"), symlink("localetc", "/etc"), file("localetc/cron.d/x", "1")))
		require.NoError(t, err)
		assert.Contains(t, got, `"etc/cron.d/x" 0 0644 0:0 @0 "1"`)
		_, err = checkChain(t, archive(t, symlink("etc", "/etc"), file("etc/cron.d/x", "1")))
		require.ErrorIs(t, err, syscall.ELOOP)
		// To a place that is really there on the host.
		c := newCanary(t)
		out := filepath.Join(c.top, "outside")
		require.NoError(t, Apply(context.Background(), c.root, bytes.NewReader(archive(t, symlink("l", out), file("l/etc/passwd", "evil"))), ApplyOptions{Ownership: OwnXattr}))
		c.check(t)
		assert.FileExists(t, filepath.Join(c.root, out, "etc", "passwd"))
	})

	t.Run("A03_symlink_loops", func(t *testing.T) {
		for name, members := range map[string][]member{
			"itself":   {symlink("a", "a"), file("a/x", "")},
			"each":     {symlink("a", "b"), symlink("b", "/a"), file("a/x", "")},
			"longer":   {symlink("a", "b/c"), dir("b"), symlink("b/c", "../a"), file("a/x", "")},
			"whiteout": {symlink("a", "a"), file("a/.wh.x", "")},
			"link":     {symlink("a", "a"), hardlink("x", "a/y")},
		} {
			_, err := checkChain(t, archive(t, members...))
			require.ErrorIs(t, err, syscall.ELOOP, name)
		}
		chain := func(n int) []byte {
			members := []member{dir("d"), symlink("l0", "d")}
			for i := 1; i < n; i++ {
				members = append(members, symlink("l"+strconv.Itoa(i), "l"+strconv.Itoa(i-1)))
			}
			return archive(t, append(members, file("l"+strconv.Itoa(n-1)+"/x", "1"))...)
		}
		got, err := checkChain(t, chain(40))
		require.NoError(t, err)
		assert.Contains(t, got, `"d/x" 0 0644 0:0 @0 "1"`)
		_, err = checkChain(t, chain(41))
		require.ErrorIs(t, err, syscall.ELOOP)
	})

	t.Run("A04_up_and_out", func(t *testing.T) {
		for name, tc := range map[string]struct {
			members []member
			want    string
		}{
			"dots":          {[]member{dir("d"), symlink("b", "d/../../.."), file("b/x", "1")}, `"x" 0 0644 0:0 @0 "1"`},
			"dots to there": {[]member{symlink("b", "../outside"), file("b/x", "1")}, `"outside/x" 0 0644 0:0 @0 "1"`},
			"dangling":      {[]member{symlink("b", "no/where"), file("b/x", "1")}, `"no/where/x" 0 0644 0:0 @0 "1"`},
			"dangling up":   {[]member{symlink("b", "no/../../w"), file("b/x", "1")}, `"w/x" 0 0644 0:0 @0 "1"`},
			"nested":        {[]member{dir("d"), symlink("d/e", ".."), symlink("d/f", "e/.."), file("d/f/outside/x", "1")}, `"outside/x" 0 0644 0:0 @0 "1"`},
		} {
			got, err := checkChain(t, archive(t, tc.members...))
			require.NoError(t, err, name)
			assert.Contains(t, got, tc.want, name)
		}
	})

	t.Run("A05_symlink_below", func(t *testing.T) {
		for _, to := range []string{"/etc", "../../outside/etc", "/outside/etc"} {
			low := archive(t, dir("etc"), dir("outside"), dir("outside/etc"), symlink("l", to))
			_, err := checkChain(t, low, archive(t, file("l/passwd", "evil")), archive(t, file("l/.wh.passwd", ""), dir("l/n"), hardlink("l/h", "l/passwd2"), file("l/passwd2", "")))
			require.NoError(t, err, to)
		}
		// Replaced by a directory, the name no longer leads anywhere else.
		got, err := checkChain(t, archive(t, dir("etc"), symlink("l", "etc")), archive(t, dir("l"), file("l/x", "")))
		require.NoError(t, err)
		assert.Contains(t, got, `"l/x" 0 0644 0:0 @0 ""`)
	})

	t.Run("A06_root", func(t *testing.T) {
		for _, name := range []string{".", "/", "", "./", "./.", "a/.."} {
			for _, typ := range []byte{'0', '2', '3', '4', '6', '1'} {
				refused(t, ErrUnsafe, ended(rawHeader(name, typ, func(b []byte) { copy(b[157:], "x") })))
			}
		}
		v := mustView(t, archive(t, dir("./").moded(0o700).owned(3, 4).at(5)))
		e, ok := v.Lstat("/")
		require.True(t, ok)
		assert.Equal(t, []int64{0o700, 3, 4, 5}, []int64{e.Mode, int64(e.UID), int64(e.GID), e.ModTime.Unix()})
		for _, overlay := range []bool{true, false} {
			c := newCanary(t)
			require.NoError(t, Apply(context.Background(), c.root, bytes.NewReader(archive(t, dir(".").moded(0o711).at(5))), ApplyOptions{Ownership: OwnXattr, Overlay: overlay}))
			st, err := os.Stat(c.root)
			require.NoError(t, err)
			assert.Equal(t, fs.FileMode(0o711), st.Mode().Perm())
			assert.Equal(t, int64(5), st.ModTime().Unix())
			// Without an entry it is 0755 whatever the caller's directory was.
			c = newCanary(t)
			require.NoError(t, os.Chmod(c.root, 0o700))
			require.NoError(t, Apply(context.Background(), c.root, bytes.NewReader(archive(t, file("a", ""))), ApplyOptions{Ownership: OwnXattr, Overlay: overlay}))
			st, err = os.Stat(c.root)
			require.NoError(t, err)
			assert.Equal(t, fs.FileMode(0o755), st.Mode().Perm())
		}
	})

	t.Run("A07_hard_link_targets", func(t *testing.T) {
		got, err := checkChain(t, archive(t, dir("etc"), file("etc/shadow", "image's"), hardlink("a", "../../etc/shadow"), hardlink("b", "/etc/shadow"), hardlink("c", "./etc//shadow")))
		require.NoError(t, err)
		assert.Contains(t, got, `"a" 0 0644 0:0 @0 "image's"`)
		t.Chdir(t.TempDir())
		require.NoError(t, os.WriteFile("cwd", []byte("host"), 0o644))
		for _, to := range []string{"../../etc/shadow", "/etc/shadow", "/etc/passwd", "cwd", "../outside/x", "../../../../../../etc/passwd", "."} {
			_, err := checkChain(t, archive(t, hardlink("a", to)))
			require.ErrorIs(t, err, ErrInvalid, to)
		}
		// Through symlinks that lead out.
		_, err = checkChain(t, archive(t, symlink("l", "/etc"), hardlink("a", "l/passwd")))
		require.ErrorIs(t, err, ErrInvalid)
		_, err = checkChain(t, archive(t, symlink("l", "../outside"), hardlink("a", "l/x")))
		require.ErrorIs(t, err, ErrInvalid)
		_, err = checkChain(t, archive(t, dir("d"), hardlink("a", "d")))
		require.ErrorIs(t, err, ErrInvalid)
		_, err = checkChain(t, archive(t, hardlink("a", "a")))
		require.ErrorIs(t, err, ErrInvalid)
	})

	t.Run("A08_hard_link_to_symlink", func(t *testing.T) {
		for _, own := range []Ownership{OwnIDs, OwnXattr} {
			c := newCanary(t)
			target := filepath.Join(c.top, "outside", "x")
			b := archive(t, symlink("s", target).owned(os.Geteuid(), os.Getegid()),
				member{name: "h", typ: tar.TypeLink, link: "s", mode: 0o4777, uid: os.Geteuid(), gid: os.Getegid(), time: 99},
				file("d/h", "").owned(os.Geteuid(), os.Getegid()), hardlink("d/h", "s").moded(0o777))
			require.NoError(t, Apply(context.Background(), c.root, bytes.NewReader(b), ApplyOptions{Ownership: own}))
			c.check(t)
			for _, name := range []string{"h", "d/h"} {
				to, err := os.Readlink(filepath.Join(c.root, name))
				require.NoError(t, err)
				assert.Equal(t, target, to)
			}
		}
		// A file written where the link is replaces it and is not written through it.
		c := newCanary(t)
		b := archive(t, symlink("s", filepath.Join(c.top, "outside", "x")), hardlink("h", "s"), file("h", "evil").moded(0o4777), file("s", "evil"))
		require.NoError(t, Apply(context.Background(), c.root, bytes.NewReader(b), ApplyOptions{Ownership: OwnXattr}))
		c.check(t)
	})

	t.Run("A09_hard_link_order", func(t *testing.T) {
		for name, tc := range map[string]struct {
			layers [][]byte
			want   map[string]string
		}{
			"before its target": {[][]byte{archive(t, hardlink("a", "b"), file("b", "1"))}, map[string]string{"a": "1", "b": "1"}},
			"chain backwards":   {[][]byte{archive(t, hardlink("a", "b"), hardlink("b", "c"), file("c", "1"))}, nil},
			"to a lower layer":  {[][]byte{archive(t, file("b", "1").moded(0o4755)), archive(t, hardlink("a", "b"))}, map[string]string{"a": "1", "b": "1"}},
			"target removed": {
				[][]byte{archive(t, file("b", "1"), hardlink("a", "b")), archive(t, file(".wh.b", ""))},
				map[string]string{"a": "1"},
			},
			"target replaced": {
				[][]byte{archive(t, file("b", "1"), hardlink("a", "b"), file("b", "2"))},
				map[string]string{"a": "1", "b": "2"},
			},
			"target replaced above": {
				[][]byte{archive(t, file("b", "1"), hardlink("a", "b")), archive(t, file("b", "2"))},
				map[string]string{"a": "1", "b": "2"},
			},
			"link replaced":     {[][]byte{archive(t, file("b", "1"), hardlink("a", "b"), file("a", "2"))}, map[string]string{"a": "2", "b": "1"}},
			"pending, replaced": {[][]byte{archive(t, hardlink("a", "b"), file("a", "2"), file("b", "1"))}, map[string]string{"a": "2", "b": "1"}},
			"link over a directory": {
				[][]byte{archive(t, dir("a"), file("a/x", "1"), file("b", "1")), archive(t, hardlink("a", "b"))},
				map[string]string{"a": "1", "b": "1"},
			},
		} {
			t.Run(name, func(t *testing.T) {
				_, err := checkChain(t, tc.layers...)
				require.NoError(t, err)
				v := mustView(t, tc.layers...)
				for name, data := range tc.want {
					assert.Equal(t, data, cat(t, v, name))
				}
				_, ok := v.Lstat("b")
				assert.Equal(t, tc.want == nil || tc.want["b"] != "", ok)
			})
		}
		_, err := checkChain(t, archive(t, file("b", "1")), archive(t, file(".wh.b", ""), hardlink("a", "b")))
		require.ErrorIs(t, err, ErrInvalid)
		assert.ErrorContains(t, err, `"b"`)
	})

	t.Run("A10_special_files", func(t *testing.T) {
		uid, gid := os.Geteuid(), os.Getegid()
		b := archive(t, char("null", 1, 3).owned(uid, gid), char("zero", 0, 0).owned(uid, gid),
			member{name: "disk", typ: tar.TypeBlock, major: 8, minor: 1, uid: uid, gid: gid}, fifo("f").owned(uid, gid), file("w", "1").owned(uid, gid), char("w", 0, 0).owned(uid, gid))
		for _, o := range []ApplyOptions{{Ownership: OwnXattr}, {Ownership: OwnXattr, Overlay: true}, {Ownership: OwnIDs}, {Ownership: OwnIDs, Overlay: true}} {
			c := newCanary(t)
			warned := map[string]bool{}
			o.Warn = func(name, text string) { warned[name] = true }
			require.NoError(t, Apply(context.Background(), c.root, bytes.NewReader(b), o))
			// The forged whiteout is data on disk and again in the layer.
			for _, name := range []string{"zero", "w"} {
				st, err := os.Lstat(filepath.Join(c.root, name))
				require.NoError(t, err)
				assert.True(t, st.Mode().IsRegular())
				assert.True(t, warned[name])
			}
			var back bytes.Buffer
			require.NoError(t, Diff(context.Background(), c.root, &back, DiffOptions{Ownership: o.Ownership}))
			assert.Equal(t, listOwned(t, mustView(t, b)), listOwned(t, mustView(t, back.Bytes())))
			if o.Ownership == OwnXattr {
				st, err := os.Lstat(filepath.Join(c.root, "null"))
				require.NoError(t, err)
				assert.True(t, st.Mode().IsRegular())
				assert.True(t, warned["null"] && warned["disk"])
			}
			// What comes next does not open the fifo, which would block, nor write to a device.
			require.NoError(t, Apply(context.Background(), c.root, bytes.NewReader(archive(t, file("g", "").owned(uid, gid))), ApplyOptions{Ownership: o.Ownership}))
			require.NoError(t, Apply(context.Background(), c.root, bytes.NewReader(archive(t, file("f", "data").owned(uid, gid), file("null", "data").owned(uid, gid), hardlink("g", "f"))), ApplyOptions{Ownership: o.Ownership}))
			got, err := os.ReadFile(filepath.Join(c.root, "g"))
			require.NoError(t, err)
			assert.Equal(t, "data", string(got))
		}
		v := mustView(t, b)
		_, err := v.Open("f")
		require.ErrorIs(t, err, fs.ErrInvalid)
		_, err = v.Open("null")
		require.ErrorIs(t, err, fs.ErrInvalid)
	})

	t.Run("A11_whiteout_of_dots", func(t *testing.T) {
		for _, name := range []string{".wh..", ".wh...", "etc/.wh..", "etc/.wh...", "a/.wh.x/y", ".wh.x/y"} {
			refused(t, ErrInvalid, archive(t, dir("etc"), file(name, "")))
		}
		got, err := checkChain(t, archive(t, file(".x", ""), file("..y", ""), file("...", "")), archive(t, file(".wh..x", ""), file(".wh....", "")))
		require.NoError(t, err)
		assert.Len(t, got, 1)
	})

	t.Run("A12_empty_whiteout", func(t *testing.T) {
		refused(t, ErrInvalid, archive(t, file(".wh.", ""), file("a", "1")))
		refused(t, ErrInvalid, archive(t, dir("d"), file("d/.wh.", "")))
		refused(t, ErrInvalid, archive(t, dir("d/.wh.")))
	})

	t.Run("A13_opaque", func(t *testing.T) {
		low := archive(t, dir("d").moded(0o711), file("d/a", "1"), dir("d/s"), file("d/s/b", "1"), symlink("l", "d"), dir("e"), file("e/x", "1"))
		for name, tc := range map[string]struct {
			members []member
			want    []string
		}{
			"after siblings":   {[]member{dir("d"), file("d/n", "2"), dir("d/s"), file("d/.wh..wh..opq", "")}, []string{"d", "d/n", "d/s", "e", "e/x", "l"}},
			"before siblings":  {[]member{dir("d"), file("d/.wh..wh..opq", ""), file("d/n", "2"), dir("d/s")}, []string{"d", "d/n", "d/s", "e", "e/x", "l"}},
			"twice":            {[]member{file("d/.wh..wh..opq", ""), file("d/n", "2"), file("d/.wh..wh..opq", "")}, []string{"d", "d/n", "e", "e/x", "l"}},
			"as a directory":   {[]member{dir("d/.wh..wh..opq"), file("d/n", "2")}, []string{"d", "d/n", "e", "e/x", "l"}},
			"missing dir":      {[]member{file("no/.wh..wh..opq", "")}, []string{"d", "d/a", "d/s", "d/s/b", "e", "e/x", "l", "no"}},
			"symlinked dir":    {[]member{file("l/.wh..wh..opq", ""), file("l/n", "2")}, []string{"d", "d/n", "e", "e/x", "l"}},
			"below, not above": {[]member{file("d/s/n", ""), file("d/.wh..wh..opq", "")}, []string{"d", "d/s", "d/s/n", "e", "e/x", "l"}},
		} {
			t.Run(name, func(t *testing.T) {
				_, err := checkChain(t, low, archive(t, tc.members...))
				require.NoError(t, err)
				assert.Equal(t, tc.want, names(t, mustView(t, low, archive(t, tc.members...))))
			})
		}
	})

	t.Run("A14_aufs", func(t *testing.T) {
		got, err := checkChain(t, archive(t, dir(".wh..wh.plnk"), file(".wh..wh.plnk/12.34", "x"), file(".wh..wh.aufs", ""), dir(".wh..wh.orph"), file("a/.wh..wh.x/y", ""), file("a", "1")))
		require.NoError(t, err)
		assert.Equal(t, []string{`"a" 0 0644 0:0 @0 "1"`}, got)
		// A directory called .wh.x is a whiteout like any other member of that name.
		got, err = checkChain(t, archive(t, file("x", "1"), file("y", "1")), archive(t, dir(".wh.x")))
		require.NoError(t, err)
		assert.Equal(t, []string{`"y" 0 0644 0:0 @0 "1"`}, got)
	})

	t.Run("A15_whiteout_through_symlink", func(t *testing.T) {
		c := newCanary(t)
		out := filepath.Join(c.top, "outside", "etc")
		for _, l := range [][]byte{archive(t, symlink("localetc", out), symlink("up", "../outside/etc")), archive(t, file("localetc/.wh.passwd", ""), file("up/.wh.passwd", ""), file("up/.wh..wh..opq", ""))} {
			require.NoError(t, Apply(context.Background(), c.root, bytes.NewReader(l), ApplyOptions{Ownership: OwnXattr}))
		}
		c.check(t)
		got, err := checkChain(t, archive(t, dir("etc"), file("etc/passwd", "1"), symlink("localetc", "/etc")), archive(t, file("localetc/.wh.passwd", "")))
		require.NoError(t, err)
		assert.Len(t, got, 2)
	})

	t.Run("A16_duplicates", func(t *testing.T) {
		b := archive(t, file("a", "first"), file("a", "last"), dir("p"), file("p/x", "1"), symlink("p", "a"), file("p", "2"), dir("q"), file("./q", ""), dir("/q"))
		got, err := checkChain(t, b)
		require.NoError(t, err)
		assert.Equal(t, []string{`"a" 0 0644 0:0 @0 "last"`, `"p" 0 0644 0:0 @0 "2"`, `"q" 5 0755 0:0 @0`}, got)
		assert.Equal(t, []string{"a", "p", "q"}, readTOC(t, b).Duplicates())
		assert.Empty(t, readTOC(t, archive(t, file("a", ""), file(".wh.a", ""), dir("d"), file("d/.wh..wh..opq", ""))).Duplicates())
	})

	t.Run("A17_bytes_in_names", func(t *testing.T) {
		odd := []string{"new\nline", "esc\x1b[31m", "bad\xff\xfeutf8", "e\u0301", "\u00e9", "Case", "case", "back\\slash", "sp ace", "\u202ebidi"}
		var members []member
		for _, n := range odd {
			members = append(members, file(n, n), symlink("l"+n, n))
		}
		b := archive(t, members...)
		_, err := checkChain(t, b)
		require.NoError(t, err)
		v := mustView(t, b)
		for _, n := range odd {
			assert.Equal(t, n, cat(t, v, n))
		}
		// The table keeps them, in JSON too.
		data, err := readTOC(t, b).MarshalJSON()
		require.NoError(t, err)
		var back TOC
		require.NoError(t, back.UnmarshalJSON(data))
		assert.Equal(t, readTOC(t, b), &back)
		// Messages escape them.
		_, err = ReadTOC(context.Background(), bytes.NewReader(archive(t, file("x\x1b]8;;/.wh.", ""))), Limits{})
		require.Error(t, err)
		assert.NotContains(t, err.Error(), "\x1b")
		// NUL ends a ustar field; in an extended header it is refused.
		refused(t, ErrInvalid, ended(rawHeader("x", 'x', func(b []byte) { copy(b[124:], "00000000016\x00") }), blocks("14 path=a\x00bcd\n"), rawHeader("a", '0', nil)))
		refused(t, ErrInvalid, ended(rawHeader("x", 'x', func(b []byte) { copy(b[124:], "00000000021\x00") }), blocks("17 linkpath=a\x00bc\n"), rawHeader("a", '2', nil)))
	})

	t.Run("A18_long_names", func(t *testing.T) {
		_, err := checkChain(t, archive(t, file(strings.Repeat("n", 255), "1"), file(strings.Repeat("dir/", 1023)+"xyz", "2")))
		require.NoError(t, err)
		for _, name := range []string{strings.Repeat("n", 256), "a/" + strings.Repeat("n", 256) + "/b", strings.Repeat("d/", 2500), strings.Repeat("d/", 100_000) + "x"} {
			b := ended(paxHeader("path", name), rawHeader("x", '0', nil))
			refused(t, syscall.ENAMETOOLONG, b)
			refused(t, ErrLimit, b)
		}
		refused(t, syscall.ENAMETOOLONG, archive(t, symlink("l", strings.Repeat("a", 4096))))
		_, err = checkChain(t, archive(t, symlink("l", strings.Repeat("a", 4095))))
		require.NoError(t, err)
		// Symlinks cannot be used to nest deeper than a name may be long.
		long := strings.Repeat("dir/", 900)
		_, err = viewOf(archive(t, file(long+"x", "")))
		require.NoError(t, err)
		c := newCanary(t)
		err = Apply(context.Background(), c.root, bytes.NewReader(archive(t, symlink("l", long), file("l/"+long+"x", ""))), ApplyOptions{Ownership: OwnXattr})
		require.ErrorIs(t, err, unix.ENAMETOOLONG)
		c.check(t)
	})

	t.Run("A18_deep_tree_is_removed", func(t *testing.T) {
		top := filepath.Join(t.TempDir(), "deep")
		require.NoError(t, os.Mkdir(top, 0o755))
		fd, err := unix.Open(top, dirFlags, 0)
		require.NoError(t, err)
		for i := range 4200 { // deeper than a path may be long
			require.NoError(t, unix.Mkdirat(fd, "d", 0o700))
			next, err := unix.Openat(fd, "d", dirFlags, 0)
			require.NoError(t, err)
			if i%1000 == 999 {
				require.NoError(t, unix.Fchmod(next, 0o700))
				require.NoError(t, unix.Symlinkat("/etc/passwd", next, "l"))
			}
			if i > 0 && i%100 == 0 {
				require.NoError(t, unix.Fchmod(fd, 0))
			}
			unix.Close(fd)
			fd = next
		}
		unix.Close(fd)
		// Too deep for a layer is an error that says so, not a crash.
		require.ErrorIs(t, Diff(context.Background(), top, io.Discard, DiffOptions{Ownership: OwnXattr}), unix.ENAMETOOLONG)
		// Few descriptors are enough.
		var lim unix.Rlimit
		require.NoError(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &lim))
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 256, Max: lim.Max}))
		err = RemoveAll(top)
		require.NoError(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &lim))
		require.NoError(t, err)
		assert.NoDirExists(t, top)
	})
}

// listOwned is list without owners.
func listOwned(t testing.TB, v *View) []string {
	t.Helper()
	out := list(t, v)
	for i, l := range out {
		f := strings.SplitN(l, " ", 5)
		if len(f) > 3 {
			f[3] = ""
		}
		out[i] = strings.Join(f, " ")
	}
	return out
}
