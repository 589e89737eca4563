package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// upper is a directory that looks as overlayfs leaves it.
type upper struct {
	t   testing.TB
	dir string
}

func newUpper(t testing.TB) upper {
	t.Helper()
	u := upper{t, filepath.Join(t.TempDir(), "upper")}
	require.NoError(t, os.Mkdir(u.dir, 0o755))
	t.Cleanup(func() { assert.NoError(t, RemoveAll(u.dir)) })
	return u
}

func (u upper) path(name string) string { return filepath.Join(u.dir, name) }

func (u upper) file(name, data string, mode uint32) {
	u.t.Helper()
	require.NoError(u.t, os.MkdirAll(filepath.Dir(u.path(name)), 0o755))
	require.NoError(u.t, os.WriteFile(u.path(name), []byte(data), 0o600))
	require.NoError(u.t, unix.Chmod(u.path(name), mode))
}

func (u upper) whiteout(name string) {
	u.t.Helper()
	require.NoError(u.t, unix.Mknod(u.path(name), unix.S_IFCHR, 0))
}

func (u upper) xattr(name, key, value string) {
	u.t.Helper()
	require.NoError(u.t, unix.Lsetxattr(u.path(name), key, []byte(value), 0))
}

func (u upper) times(name string, sec, nsec int64) {
	u.t.Helper()
	ts := unix.Timespec{Sec: sec, Nsec: nsec}
	require.NoError(u.t, unix.UtimesNanoAt(unix.AT_FDCWD, u.path(name), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
}

func (u upper) diff(o DiffOptions) map[string]Entry {
	u.t.Helper()
	var b bytes.Buffer
	if o.Ownership == "" {
		o.Ownership = OwnXattr
	}
	require.NoError(u.t, Diff(context.Background(), u.dir, &b, o))
	got := map[string]Entry{}
	for _, e := range readTOC(u.t, b.Bytes()).Entries {
		name := e.Name
		if e.Opaque {
			name = opaqueName(name)
		}
		e.Offset = 0
		got[name] = e
	}
	return got
}

func TestDiff(t *testing.T) {
	t.Run("whiteouts", func(t *testing.T) {
		u := newUpper(t)
		require.NoError(t, os.MkdirAll(u.path("d/sub"), 0o755))
		u.whiteout("gone")
		// All whiteouts of a mount are one inode: they are no hard links.
		require.NoError(t, unix.Link(u.path("gone"), u.path("d/gone")))
		require.NoError(t, unix.Link(u.path("gone"), u.path("d/gone2")))
		u.xattr("d/sub", overlayOpaque, "y")
		u.xattr("d", "user.overlay.impure", "y")
		got := u.diff(DiffOptions{})
		assert.Len(t, got, 6)
		for _, name := range []string{"gone", "d/gone", "d/gone2"} {
			assert.True(t, got[name].Whiteout, name)
			assert.Equal(t, time.Unix(0, 0), got[name].ModTime)
		}
		assert.True(t, got[opaqueName("d/sub")].Opaque)
		assert.Empty(t, got["d"].Xattrs)
	})

	t.Run("types", func(t *testing.T) {
		u := newUpper(t)
		u.file("f", "data", 0o4751)
		require.NoError(t, os.Symlink("f", u.path("l")))
		require.NoError(t, unix.Mkfifo(u.path("p"), 0o640))
		sock, err := net.Listen("unix", u.path("s"))
		require.NoError(t, err)
		defer sock.Close()
		for i, n := range []string{"f", "l", "p"} {
			require.NoError(t, unix.Linkat(unix.AT_FDCWD, u.path(n), unix.AT_FDCWD, u.path("z"+n), 0))
			u.times(n, int64(100+i), 999_999_999)
		}
		got := u.diff(DiffOptions{})
		assert.Len(t, got, 6)
		assert.Equal(t, Entry{Name: "f", Type: tar.TypeReg, Mode: 0o4751, Size: 4, ModTime: time.Unix(100, 0)}, got["f"])
		assert.Equal(t, Entry{Name: "l", Type: tar.TypeSymlink, Link: "f", Mode: 0o777, ModTime: time.Unix(101, 0)}, got["l"])
		assert.Equal(t, Entry{Name: "p", Type: tar.TypeFifo, Mode: 0o640 &^ umask(t), ModTime: time.Unix(102, 0)}, got["p"])
		for _, n := range []string{"f", "l", "p"} {
			assert.Equal(t, byte(tar.TypeLink), got["z"+n].Type)
			assert.Equal(t, n, got["z"+n].Link)
		}
	})

	// dpkg puts files of the same content and time in place again; a link to what is left out would end the unpacking.
	t.Run("names of a file that is as in the base", func(t *testing.T) {
		base, u := newUpper(t), newUpper(t)
		for _, w := range []upper{base, u} {
			w.file("d/perl", "same", 0o755)
			require.NoError(t, os.Link(w.path("d/perl"), w.path("d/perl5")))
			w.times("d/perl", 100, 0)
		}
		base.file("d/sh", "linked", 0o755)
		u.file("d/sh", "linked", 0o755)
		require.NoError(t, os.Link(u.path("d/sh"), u.path("d/zsh")))
		base.times("d/sh", 100, 0)
		u.times("d/sh", 100, 0)
		u.file("d/another", "written before them", 0o644)
		u.file("d/x", "new", 0o644)
		require.NoError(t, os.Link(u.path("d/x"), u.path("d/y")))
		dir, err := os.Open(base.dir)
		require.NoError(t, err)
		defer dir.Close()
		got := u.diff(DiffOptions{Base: dir})
		assert.NotContains(t, got, "d/perl")
		assert.NotContains(t, got, "d/perl5")
		assert.Equal(t, byte(tar.TypeReg), got["d/x"].Type)
		assert.Equal(t, "d/x", got["d/y"].Link)
		assert.Equal(t, byte(tar.TypeReg), got["d/zsh"].Type, "a new name of what the base has is a file")
		assert.NotContains(t, got, "d/sh", "as BuildKit has it")
		for name, e := range got {
			if e.Type == tar.TypeLink {
				assert.Contains(t, got, e.Link, "%s is a link to it", name)
			}
		}
	})

	// What BuildKit makes of these two stands in internal/differential, run/links_to_unchanged_names and run/links_in_replaced_directory.
	t.Run("names that are as in the base stay out of what is new", func(t *testing.T) {
		base, u := newUpper(t), newUpper(t)
		for _, w := range []upper{base, u} {
			w.file("opaque/b", "same", 0o644)
			w.file("w/b", "same too", 0o644)
			w.times("opaque/b", 100, 0)
			w.times("w/b", 100, 0)
		}
		u.xattr("opaque", overlayOpaque, "y")
		require.NoError(t, os.Link(u.path("w/b"), u.path("a")))
		require.NoError(t, os.Link(u.path("opaque/b"), u.path("z")))
		dir, err := os.Open(base.dir)
		require.NoError(t, err)
		defer dir.Close()
		got := u.diff(DiffOptions{Base: dir})
		assert.Equal(t, byte(tar.TypeReg), got["a"].Type)
		assert.NotContains(t, got, "w/b", "it is left out although it could be a link to a")
		assert.NotContains(t, got, "w")
		assert.Equal(t, byte(tar.TypeReg), got["z"].Type)
		assert.Equal(t, "z", got["opaque/b"].Link, "in a directory that hides the base's it waits for another name")
	})

	t.Run("skip, times and clamp", func(t *testing.T) {
		u := newUpper(t)
		u.file("etc/resolv.conf", "", 0o644)
		u.file("etc/new", "1", 0o644)
		u.file("dev/null", "", 0o644)
		u.file("dev/pts/0", "", 0o644)
		u.file("old", "", 0o644)
		u.times("old", 50, 0)
		clamp := time.Unix(1000, 0)
		got := u.diff(DiffOptions{
			Skip: map[string]bool{"etc/resolv.conf": true, "dev": true}, Clamp: &clamp,
			Times: map[string]time.Time{"etc": time.Unix(77, 0)},
		})
		assert.Len(t, got, 3)
		assert.Equal(t, time.Unix(77, 0), got["etc"].ModTime)
		assert.Equal(t, clamp, got["etc/new"].ModTime)
		assert.Equal(t, time.Unix(50, 0), got["old"].ModTime)
	})

	t.Run("xattrs", func(t *testing.T) {
		u := newUpper(t)
		u.file("f", "", 0o644)
		u.xattr("f", "user.x", "1")
		u.xattr("f", "user.overlay.origin", "")
		u.xattr("f", "user.overlay.overlay.opaque", "y") // the container set user.overlay.opaque
		assert.Equal(t, map[string]string{"user.x": "1", "user.overlay.opaque": "y"}, u.diff(DiffOptions{})["f"].Xattrs)

		u.xattr("f", "user.a=b", "1")
		err := Diff(context.Background(), u.dir, io.Discard, DiffOptions{Ownership: OwnXattr})
		require.ErrorIs(t, err, ErrInvalid)
		assert.ErrorContains(t, err, `"f"`)
		u.file("f2", "", 0o644)
		require.NoError(t, os.Remove(u.path("f")))
		u.xattr("f2", overlayMetacopy, "")
		require.ErrorIs(t, Diff(context.Background(), u.dir, io.Discard, DiffOptions{Ownership: OwnXattr}), ErrInvalid)
	})

	t.Run("recorded owners", func(t *testing.T) {
		u := newUpper(t)
		for _, n := range []string{"a", "b", "dev", "bad"} {
			u.file(n, "", 0o660)
		}
		require.NoError(t, os.Symlink("a", u.path("l")))
		set := func(name string, o Owner) {
			v, err := o.MarshalBinary()
			require.NoError(t, err)
			u.xattr(name, OwnerXattr, string(v))
		}
		set("a", Owner{UID: 33, GID: 1<<32 - 2})
		set("dev", Owner{UID: 1, GID: 2, Type: unix.S_IFBLK, Rdev: unix.Mkdev(259, 1<<20-1)})
		require.NoError(t, unix.Link(u.path("a"), u.path("z")))
		require.NoError(t, WriteOwners(u.dir, map[string]Owner{"l": {UID: 7, GID: 8}, "not/there": {UID: 1}}))
		got := u.diff(DiffOptions{})
		assert.Equal(t, []int{33, 1<<32 - 2}, []int{got["a"].UID, got["a"].GID})
		assert.Equal(t, []int{33, 1<<32 - 2}, []int{got["z"].UID, got["z"].GID})
		assert.Equal(t, []int{0, 0}, []int{got["b"].UID, got["b"].GID})
		assert.Equal(t, []int{7, 8}, []int{got["l"].UID, got["l"].GID})
		dev := got["dev"]
		assert.Equal(t, []int64{tar.TypeBlock, 1, 2, 259, 1<<20 - 1, 0o660}, []int64{int64(dev.Type), int64(dev.UID), int64(dev.GID), dev.Major, dev.Minor, dev.Mode})
		assert.Empty(t, got["a"].Xattrs)
		if os.Geteuid() == 0 { // with real ids a record is for what could not be mapped
			require.NoError(t, os.Chown(u.path("a"), 5, 6))
			got := u.diff(DiffOptions{Ownership: OwnIDs})
			assert.Equal(t, []int{5, 6}, []int{got["a"].UID, got["a"].GID})
			assert.Equal(t, []int{7, 8}, []int{got["l"].UID, got["l"].GID})
		}
		u.xattr("bad", OwnerXattr, "short")
		require.ErrorIs(t, Diff(context.Background(), u.dir, io.Discard, DiffOptions{Ownership: OwnXattr}), ErrInvalid)
		set("bad", Owner{Type: unix.S_IFDIR})
		require.ErrorIs(t, Diff(context.Background(), u.dir, io.Discard, DiffOptions{Ownership: OwnXattr}), ErrInvalid)
	})

	t.Run("nobody may read", func(t *testing.T) {
		u := newUpper(t)
		u.file("d/f", "secret", 0)
		u.xattr2("d/f", "user.x", "1")
		u.file("d/e/g", "deep", 0o644)
		require.NoError(t, os.Chmod(u.path("d/e"), 0o300))
		require.NoError(t, os.Chmod(u.path("d"), 0))
		got := u.diff(DiffOptions{})
		assert.Len(t, got, 4)
		assert.Equal(t, []int64{0, 6}, []int64{got["d/f"].Mode, got["d/f"].Size})
		assert.Equal(t, map[string]string{"user.x": "1"}, got["d/f"].Xattrs)
		assert.Equal(t, []int64{0, 0o300}, []int64{got["d"].Mode, got["d/e"].Mode})
		st, err := os.Stat(u.path("d"))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0), st.Mode().Perm(), "given back")
	})

	t.Run("files that change", func(t *testing.T) {
		u := newUpper(t)
		u.file("f", strings.Repeat("x", 3<<20), 0o644)
		for name, change := range map[string]func() error{
			"grows":   func() error { return appendTo(u.path("f")) },
			"shrinks": func() error { return os.Truncate(u.path("f"), 1<<20) },
		} {
			u.file("f", strings.Repeat("x", 3<<20), 0o644)
			w := &hookWriter{at: 1 << 19, do: change}
			require.ErrorIs(t, Diff(context.Background(), u.dir, w, DiffOptions{Ownership: OwnXattr}), ErrChanged, name)
		}
		ctx, cancel := context.WithCancelCause(context.Background())
		stop := errors.New("stop")
		u.file("f", strings.Repeat("x", 60<<20), 0o644)
		require.ErrorIs(t, Diff(ctx, u.dir, &hookWriter{at: 1, do: func() error { cancel(stop); return nil }}, DiffOptions{Ownership: OwnXattr}), stop)
		full := errors.New("full")
		require.ErrorIs(t, Diff(context.Background(), u.dir, &hookWriter{at: 1, do: func() error { return full }}, DiffOptions{Ownership: OwnXattr}), full)
	})

	t.Run("names of whiteouts", func(t *testing.T) {
		u := newUpper(t)
		u.file("a/.wh.x", "", 0o644)
		err := Diff(context.Background(), u.dir, io.Discard, DiffOptions{Ownership: OwnXattr})
		require.ErrorIs(t, err, ErrInvalid)
		assert.ErrorContains(t, err, "a/.wh.x")
	})

	t.Run("the same bytes for everyone", func(t *testing.T) {
		build := func(order []string) []byte {
			u := newUpper(t)
			for _, n := range order {
				u.file(n, n, 0o644)
			}
			for _, n := range append(order, "b") {
				u.times(n, 5, 0)
			}
			var b bytes.Buffer
			require.NoError(t, Diff(context.Background(), u.dir, &b, DiffOptions{Ownership: OwnXattr}))
			return b.Bytes()
		}
		assert.Equal(t, build([]string{"b/c", "a", "b-", "b.d", "Z"}), build([]string{"Z", "b.d", "b-", "a", "b/c"}))
	})
}

// xattr2 sets an attribute of a file that its owner may not write.
func (u upper) xattr2(name, key, value string) {
	u.t.Helper()
	st, err := os.Stat(u.path(name))
	require.NoError(u.t, err)
	require.NoError(u.t, os.Chmod(u.path(name), 0o600))
	u.xattr(name, key, value)
	require.NoError(u.t, os.Chmod(u.path(name), st.Mode().Perm()))
}

func appendTo(name string) error {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("more")
	return errors.Join(err, f.Close())
}

// umask finds this process's umask without changing it.
func umask(t testing.TB) int64 {
	t.Helper()
	name := filepath.Join(t.TempDir(), "f")
	require.NoError(t, unix.Mkfifo(name, 0o777))
	st, err := os.Lstat(name)
	require.NoError(t, err)
	return int64(0o777 &^ st.Mode().Perm())
}

func TestRemoveAll(t *testing.T) {
	top := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(top, "keep"), []byte("x"), 0o644))
	require.NoError(t, RemoveAll(filepath.Join(top, "none")))
	require.NoError(t, RemoveAll(filepath.Join(top, "no", "parent")))
	for _, name := range []string{"", ".", "..", "/", "a/.."} {
		require.Error(t, RemoveAll(name), name)
	}
	tree := filepath.Join(top, "tree")
	require.NoError(t, os.MkdirAll(filepath.Join(tree, "a/b/c"), 0o755))
	require.NoError(t, os.Symlink("../keep", filepath.Join(tree, "l")))
	require.NoError(t, os.Symlink("/", filepath.Join(tree, "a/root")))
	require.NoError(t, unix.Mkfifo(filepath.Join(tree, "a/p"), 0o600))
	for _, d := range []string{"a/b/c", "a/b", "a", "."} {
		require.NoError(t, os.Chmod(filepath.Join(tree, d), 0))
	}
	require.NoError(t, RemoveAll(tree+"/"))
	assert.NoDirExists(t, tree)
	assert.FileExists(t, filepath.Join(top, "keep"))
	require.NoError(t, os.Symlink("keep", filepath.Join(top, "link")))
	require.NoError(t, RemoveAll(filepath.Join(top, "link")))
	assert.FileExists(t, filepath.Join(top, "keep"))
}

func TestOwnersFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tree")
	got, err := ReadOwners(dir)
	require.NoError(t, err)
	assert.Empty(t, got)
	owners := map[string]Owner{"a": {UID: 1}, "bad\xff\nname": {UID: 1<<32 - 1, GID: 2, Type: unix.S_IFCHR, Rdev: 1 << 40}}
	require.NoError(t, WriteOwners(dir, owners))
	got, err = ReadOwners(dir + "/")
	require.NoError(t, err)
	assert.Equal(t, owners, got)
	require.NoError(t, WriteOwners(dir, nil))
	assert.NoFileExists(t, OwnersFile(dir))
	require.NoError(t, os.WriteFile(OwnersFile(dir), []byte("{"), 0o600))
	_, err = ReadOwners(dir)
	require.Error(t, err)
}
