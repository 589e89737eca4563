package layer

import (
	"bytes"
	"context"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The rows of ROBUSTNESS.md, group a, about metadata and the target directory.
func TestLayerTarget(t *testing.T) {
	ctx := context.Background()

	t.Run("A27_xattrs", func(t *testing.T) {
		caps := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_raw+ep, revision 2
		v3 := "\x01\x00\x00\x03" + caps[4:] + "\xe8\x03\x00\x00"
		uid, gid := os.Geteuid(), os.Getegid()
		members := []member{
			file("o", "").xattr("user.overlay.opaque", "y"), file("r", "").xattr("user.overlay.redirect", "/etc"), dir("d").xattr("user.overlay.opaque", "y"),
			file("t", "").xattr("trusted.overlay.opaque", "y"), file("s", "").xattr("security.selinux", "x"), file("i", "").xattr("security.ima", "x"),
			file("f", "").xattr(OwnerXattr, strings.Repeat("x", 20)), file("u", "").xattr("user.empty", ""), symlink("l", "u").xattr("user.x", "y"),
			file("g", "").xattr("user.manifestctl.other", "x"), file("n", "").xattr("user.overlay.overlay.opaque", "y"),
		}
		if uid == 0 {
			members = append(members, file("c2", "").xattr(xattrCapability, caps), file("c3", "").xattr(xattrCapability, v3))
		}
		for i := range members {
			members[i].uid, members[i].gid = uid, gid
		}
		b := archive(t, members...)
		for _, o := range []ApplyOptions{{Ownership: OwnXattr}, {Ownership: OwnXattr, Overlay: true}, {Ownership: OwnIDs}} {
			c := newCanary(t)
			warned := map[string]string{}
			o.Warn = func(name, text string) { warned[name] += text }
			require.NoError(t, Apply(ctx, c.root, bytes.NewReader(b), o))
			for name, bad := range map[string]string{
				"o": "user.overlay.opaque", "r": "user.overlay.redirect", "d": "user.overlay.opaque", "t": "trusted.overlay.opaque", "i": "security.ima",
				"g": "user.manifestctl.other", "n": "user.overlay.overlay.opaque",
			} {
				n, err := unix.Getxattr(filepath.Join(c.root, name), bad, nil)
				require.Equal(t, unix.ENODATA, err, "%s has %s of %d bytes", name, bad, n)
			}
			for _, name := range []string{"t", "i", "f", "g", "l"} {
				assert.Contains(t, warned[name], "not kept", name)
			}
			assert.NotContains(t, warned, "s")
			var back bytes.Buffer
			require.NoError(t, Diff(ctx, c.root, &back, DiffOptions{Ownership: o.Ownership}))
			got := map[string]Entry{}
			for _, e := range readTOC(t, back.Bytes()).Entries {
				got[e.Name] = e
				assert.Equal(t, []int{uid, gid}, []int{e.UID, e.GID}, e.Name)
			}
			assert.Equal(t, map[string]string{"user.overlay.opaque": "y"}, got["o"].Xattrs)
			assert.Equal(t, map[string]string{"user.overlay.opaque": "y"}, got["d"].Xattrs)
			assert.Equal(t, map[string]string{"user.overlay.overlay.opaque": "y"}, got["n"].Xattrs)
			assert.Equal(t, map[string]string{"user.empty": ""}, got["u"].Xattrs)
			assert.False(t, got["d"].Opaque)
			assert.Empty(t, got["f"].Xattrs)
			if uid == 0 {
				n, err := unix.Getxattr(filepath.Join(c.root, "c3"), xattrCapability, make([]byte, 100))
				require.NoError(t, err)
				assert.Equal(t, capV2Size, n, "the namespace of whoever packed it means nothing here")
				assert.Equal(t, caps, got["c2"].Xattrs[xattrCapability])
				assert.Equal(t, caps, got["c3"].Xattrs[xattrCapability])
				assert.Contains(t, warned["c3"], "namespace")
			}
		}
		if uid != 0 { // a capability that cannot be set is not lost silently
			c := newCanary(t)
			err := Apply(ctx, c.root, bytes.NewReader(archive(t, file("ping", "").xattr(xattrCapability, caps))), ApplyOptions{Ownership: OwnXattr})
			require.ErrorIs(t, err, unix.EPERM)
			assert.ErrorContains(t, err, "ping")
		}
		many := func(n int, name, value string) []byte {
			var records []string
			for i := range n {
				records = append(records, paxXattr+"user."+name+strconv.Itoa(i), value)
			}
			return ended(paxHeader(records...), rawHeader("a", '0', nil))
		}
		refused(t, ErrLimit, many(10_000, "x", "1"))
		refused(t, ErrLimit, many(1, "x", strings.Repeat("v", 64<<10+1)))
		refused(t, ErrLimit, many(3, "x", strings.Repeat("v", 60<<10)))
		refused(t, ErrLimit, many(1, strings.Repeat("n", 255), "1"))
		_, err := ReadTOC(ctx, bytes.NewReader(many(2, "x", strings.Repeat("v", 60<<10))), Limits{})
		require.NoError(t, err)
		// More than the file system takes is an error that names the file.
		c := newCanary(t)
		if err := Apply(ctx, c.root, bytes.NewReader(many(1, "x", strings.Repeat("v", 64<<10))), ApplyOptions{Ownership: OwnXattr}); err != nil {
			assert.ErrorContains(t, err, `"a"`)
			assert.ErrorContains(t, err, "user.x0")
		}
	})

	t.Run("A28_owners_and_modes", func(t *testing.T) {
		var members []member
		for i, id := range []int{0, 1, 65534, 65535, 65536, 1 << 21, 1<<31 - 1, 1 << 31, 1<<32 - 2, 1<<32 - 1} {
			n := strconv.Itoa(i)
			members = append(members, file("f"+n, "x").owned(id, 0), dir("d"+n).owned(0, id), symlink("l"+n, "x").owned(id, id), fifo("p"+n).owned(id, id), hardlink("h"+n, "l"+n))
		}
		for i, mode := range []int64{-1, 0o4755, 0o2755, 0o1777, 0o7777, 0o111, 0o4000, 0o200} {
			n := strconv.Itoa(i)
			members = append(members, dir("m"+n).moded(mode), file("m"+n+"/f", "data").moded(mode).xattr("user.x", "y"), dir("m"+n+"/sub").moded(mode), file("m"+n+"/sub/f", "1"))
		}
		b := archive(t, members...)
		_, err := checkChain(t, b)
		require.NoError(t, err)
		// A second layer changes what nobody may enter.
		_, err = checkChain(t, b, archive(t, file("m0/new", "1"), file("m0/f", "2"), file("m0/sub/.wh.f", ""), file(".wh.m5", ""), dir("m0/sub").moded(0o700)))
		require.NoError(t, err)
		if os.Geteuid() == 0 { // real ids: those that the kernel has none for are recorded
			c := newCanary(t)
			warned := map[string]string{}
			require.NoError(t, Apply(ctx, c.root, bytes.NewReader(b), ApplyOptions{Ownership: OwnIDs, Warn: func(name, text string) { warned[name] = text }}))
			assert.Contains(t, warned["f9"], "/etc/subuid")
			assert.Contains(t, warned["l9"], "/etc/subuid")
			var back bytes.Buffer
			require.NoError(t, Diff(ctx, c.root, &back, DiffOptions{Ownership: OwnIDs}))
			assert.Equal(t, list(t, mustView(t, b)), list(t, mustView(t, back.Bytes())))
		} else {
			c := newCanary(t)
			err := Apply(ctx, c.root, bytes.NewReader(archive(t, file("a", "").owned(12345, 1))), ApplyOptions{Ownership: OwnIDs})
			require.ErrorIs(t, err, unix.EPERM)
			assert.ErrorContains(t, err, "12345:1")
		}
	})

	t.Run("A29_times", func(t *testing.T) {
		sec := func(b []byte, v int64) { size256(b[136:148], v) }
		times := []int64{-1, -1 << 40, 1e18, math.MaxInt64, math.MinInt64, 0, 1 << 33, -62135596800}
		var parts [][]byte
		for i, v := range times {
			parts = append(parts, rawHeader("t"+strconv.Itoa(i), '0', func(b []byte) { sec(b, v) }), rawHeader("d"+strconv.Itoa(i), '5', func(b []byte) { sec(b, v) }),
				rawHeader("l"+strconv.Itoa(i), '2', func(b []byte) { sec(b, v); copy(b[157:], "x") }))
		}
		b := ended(parts...)
		toc := readTOC(t, b)
		for i, v := range times {
			assert.Equal(t, v, toc.Entries[3*i].ModTime.Unix())
		}
		data, err := toc.MarshalJSON()
		require.NoError(t, err)
		var back TOC
		require.NoError(t, back.UnmarshalJSON(data))
		assert.Equal(t, times[2], back.Entries[6].ModTime.Unix())
		for _, overlay := range []bool{true, false} {
			c := newCanary(t)
			require.NoError(t, Apply(ctx, c.root, bytes.NewReader(b), ApplyOptions{Ownership: OwnXattr, Overlay: overlay}))
			require.NoError(t, Diff(ctx, c.root, io.Discard, DiffOptions{Ownership: OwnXattr}))
		}
		for text, want := range map[string]time.Time{
			"1.5": time.Unix(1, 5e8), "-1.5": time.Unix(-2, 5e8), "-0.25": time.Unix(-1, 75e7), "7.garbage": time.Unix(7, 0), "7.123456789123": time.Unix(7, 123456789), "7.": time.Unix(7, 0),
			"garbage": time.Unix(0o777, 0), "": time.Unix(0o777, 0), "99999999999999999999": time.Unix(0o777, 0), "1e9": time.Unix(0o777, 0),
		} {
			b := ended(paxHeader("mtime", text), rawHeader("a", '0', func(b []byte) { copy(b[136:], "00000000777\x00") }))
			assert.True(t, want.Equal(readTOC(t, b).Entries[0].ModTime), "%q is %v", text, readTOC(t, b).Entries[0].ModTime)
			_, err := checkChain(t, b)
			require.NoError(t, err)
		}
		_, err = checkChain(t, ended(rawHeader("a", '0', func(b []byte) { copy(b[136:], "garbage!!!!\x00") })))
		require.NoError(t, err)
	})

	t.Run("A30_entries", func(t *testing.T) {
		b := archive(t, file("a", ""), file("b", ""), file(".wh..wh.aufs", ""), dir("c"))
		_, err := ReadTOC(ctx, bytes.NewReader(b), Limits{Entries: 4})
		require.NoError(t, err)
		_, err = ReadTOC(ctx, bytes.NewReader(b), Limits{Entries: 3})
		require.ErrorIs(t, err, ErrLimit)
		c := newCanary(t)
		require.ErrorIs(t, Apply(ctx, c.root, bytes.NewReader(b), ApplyOptions{Ownership: OwnXattr, Limits: Limits{Entries: 3}}), ErrLimit)
		require.NoError(t, RemoveAll(c.root), "what is there can be removed")
		assert.NoDirExists(t, c.root)
	})

	t.Run("A31_swapped_parent", func(t *testing.T) {
		c := newCanary(t)
		// Names of two directories in turn, so that each is looked up anew.
		var members []member
		for i := range 4 {
			n := strconv.Itoa(i)
			members = append(members, file("p/q/passwd", "evil"), symlink("p/l"+n, "x"), hardlink("p/q/h"+n, "p/q/passwd"), file("p/cron.d", "evil"), dir("p/q/cron.d"),
				file("p/passwd", "evil"), fifo("p/q/f"), file("p/.wh.shadow", ""), file("p/q/.wh.shadow", ""), file("p/shadow", ""), file("p/q/cron.d/.wh..wh..opq", ""))
		}
		b := archive(t, members...)
		evil := filepath.Join(c.root, "evil")
		require.NoError(t, os.Symlink(filepath.Join(c.top, "outside", "etc"), evil))
		require.NoError(t, os.MkdirAll(filepath.Join(c.root, "p", "q"), 0o755))
		root, err := unix.Open(c.root, dirFlags, 0)
		require.NoError(t, err)
		defer unix.Close(root)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		swaps := 0
		for _, name := range []string{"p", "p/q"} {
			p := filepath.Join(c.root, name)
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if unix.Renameat2(unix.AT_FDCWD, evil, unix.AT_FDCWD, p, unix.RENAME_EXCHANGE) == nil && name == "p" {
						swaps++
					}
					for i := range rand.IntN(20_000) { // now and then the other side gets somewhere
						runtime.KeepAlive(i)
					}
				}
			})
		}
		deadline := time.Now().Add(1500 * time.Millisecond)
		rounds := 0
		for ; time.Now().Before(deadline) || rounds < *raceRounds; rounds++ {
			// Any result is right, as long as nothing outside changes.
			Apply(ctx, c.root, bytes.NewReader(b), ApplyOptions{Ownership: OwnXattr}) //nolint:errcheck // see above
			// What the swaps left over is put right for the next ones, not through a link.
			os.Symlink(filepath.Join(c.top, "outside", "etc"), evil)
			os.Mkdir(filepath.Join(c.root, "p"), 0o755)
			if fd, err := openStepwise(root, "p", unix.O_PATH|unix.O_DIRECTORY); err == nil {
				unix.Mkdirat(fd, "q", 0o755)
				unix.Close(fd)
			}
		}
		close(stop)
		wg.Wait()
		t.Logf("%d rounds, %d swaps", rounds, swaps)
		c.check(t)
	})

	t.Run("A32_target", func(t *testing.T) {
		b := archive(t, file("a", "").owned(os.Geteuid(), os.Getegid()))
		for _, own := range []Ownership{OwnIDs, OwnXattr} {
			for _, overlay := range []bool{true, false} {
				o := ApplyOptions{Ownership: own, Overlay: overlay}
				apply := func(dir string) error { return Apply(ctx, dir, bytes.NewReader(b), o) }
				top := t.TempDir()
				real := filepath.Join(top, "real")
				require.NoError(t, os.Mkdir(real, 0o755))
				require.NoError(t, os.Symlink(real, filepath.Join(top, "link")))
				require.NoError(t, os.WriteFile(filepath.Join(top, "file"), nil, 0o600))
				require.ErrorIs(t, apply(filepath.Join(top, "link")), ErrTarget)
				require.ErrorIs(t, apply(filepath.Join(top, "link")+"/"), ErrTarget)
				require.ErrorIs(t, apply(filepath.Join(top, "file")), ErrTarget)
				require.ErrorIs(t, apply(filepath.Join(top, "none")), fs.ErrNotExist)
				if os.Geteuid() == 0 {
					other := filepath.Join(top, "other")
					require.NoError(t, os.Mkdir(other, 0o777))
					require.NoError(t, os.Chown(other, 12345, 12345))
					require.ErrorIs(t, apply(other), ErrTarget)
				} else {
					require.Error(t, apply("/"))
				}
				require.NoError(t, apply(real))
				if overlay {
					require.ErrorIs(t, apply(real), ErrTarget, "not empty")
				} else {
					require.NoError(t, apply(real), "a chain")
				}
			}
		}
		require.Error(t, Apply(ctx, t.TempDir(), bytes.NewReader(b), ApplyOptions{}), "ownership must be said")
	})

	t.Run("A33_types", func(t *testing.T) {
		for _, typ := range []byte("VMDNAIE89aZ\x01\xff") {
			refused(t, ErrType, ended(rawHeader("x", typ, nil)))
		}
		refused(t, ErrType, ended(rawHeader("x", 'S', nil))) // sparse, but not GNU's
		for _, text := range []string{"070701" + strings.Repeat("0", 600), "070707" + strings.Repeat("0", 600), "!<arch>\n" + strings.Repeat(" ", 600)} {
			refused(t, ErrInvalid, []byte(text))
		}
		got, err := checkChain(t, ended(rawHeader("c", '7', nil), rawHeader("old", 0, nil), rawHeader("olddir/", 0, nil)))
		require.NoError(t, err)
		assert.Len(t, got, 3)
		assert.Contains(t, got[2], `"olddir" 5`)
		// A tar in a tar is a file.
		inner := string(archive(t, file("../x", "1")))
		got, err = checkChain(t, archive(t, file("nested.tar", inner)))
		require.NoError(t, err)
		assert.Len(t, got, 1)
		got, err = checkChain(t, ended(rawHeader(strings.Repeat("v", 99), '0', func(b []byte) { copy(b[257:265], make([]byte, 8)) })))
		require.NoError(t, err, "a header from before ustar")
		assert.Len(t, got, 1)
	})

	t.Run("A34_dotdot_data", func(t *testing.T) {
		b := archive(t, dir("..data"), file("..data/x", "1"), symlink("x", "..data/x"), symlink("..2", "..data"), file("..2/y", "2"))
		_, err := checkChain(t, b)
		require.NoError(t, err)
		v := mustView(t, b)
		assert.Equal(t, "1", cat(t, v, "x"))
		assert.Equal(t, "2", cat(t, v, "..data/y"))
		e, ok := v.Lstat("x")
		require.True(t, ok)
		assert.Equal(t, "..data/x", e.Link)
	})
}
