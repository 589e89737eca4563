package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func text(s string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
}

// members lists a layer as written, in order.
func membersOf(t testing.TB, b []byte) (out []string) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return out
		}
		require.NoError(t, err)
		s := fmt.Sprintf("%s %c %o %d:%d @%d", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid, h.ModTime.Unix())
		if h.Linkname != "" {
			s += " " + h.Linkname
		}
		assert.Empty(t, h.Uname+h.Gname)
		assert.True(t, h.AccessTime.IsZero() && h.ChangeTime.IsZero())
		out = append(out, s)
	}
}

func written(t testing.TB, b *Builder) []byte {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, b.WriteTo(context.Background(), &out))
	return out.Bytes()
}

func TestBuilder(t *testing.T) {
	base := archive(t, dir("usr").at(1), dir("usr/lib").moded(0o711).owned(3, 4).at(2), symlink("lib", "usr/lib"), dir("tmp").moded(0o1777).at(3), file("usr/lib/old", "old"), dir("etc").at(4), file("etc/a", "a").owned(7, 7), file("etc/b", "b"), hardlink("etc/c", "etc/b"))
	reg := func(name, data string) Entry {
		return Entry{Name: name, Type: tar.TypeReg, Mode: 0o644, Size: int64(len(data)), ModTime: time.Unix(9, 5)}
	}
	d := func(name string) Entry {
		return Entry{Name: name, Type: tar.TypeDir, Mode: 0o750, ModTime: time.Unix(9, 0)}
	}
	for name, tc := range map[string]struct {
		do   func(t *testing.T, b *Builder)
		want []string
	}{
		"nothing": {func(*testing.T, *Builder) {}, nil},
		"parents": {func(t *testing.T, b *Builder) {
			require.NoError(t, b.Add(reg("/opt/x/y", "1"), text("1")))
			require.NoError(t, b.Add(reg("tmp/t", "1"), text("1")))
			require.NoError(t, b.Add(reg("lib/new", "1"), text("1")))
			require.NoError(t, b.Add(reg("./etc//d", ""), nil))
		}, []string{"etc/d 0 644 0:0 @9", "opt/ 5 755 0:0 @99", "opt/x/ 5 755 0:0 @99", "opt/x/y 0 644 0:0 @9", "tmp/ 5 1777 0:0 @3", "tmp/t 0 644 0:0 @9", "usr/lib/ 5 711 3:4 @2", "usr/lib/new 0 644 0:0 @9"}},
		"sorted, each once": {func(t *testing.T, b *Builder) {
			for _, n := range []string{"z", "a.b", "a/b", "a", "a-b"} {
				if n == "a" {
					require.NoError(t, b.Add(d(n), nil))
					continue
				}
				require.NoError(t, b.Add(reg(n, "0"), text("0")))
				require.NoError(t, b.Add(reg(n, "12"), text("12")))
			}
		}, []string{"a/ 5 750 0:0 @9", "a/b 0 644 0:0 @9", "a-b 0 644 0:0 @9", "a.b 0 644 0:0 @9", "z 0 644 0:0 @9"}},
		"remove": {func(t *testing.T, b *Builder) {
			require.NoError(t, b.Remove("/etc/a"))
			require.NoError(t, b.Remove("lib/old"))
			require.NoError(t, b.Remove("tmp"))
			require.NoError(t, b.Add(reg("mine", ""), nil))
			require.NoError(t, b.Remove("mine"))
			require.ErrorIs(t, b.Remove("mine"), fs.ErrNotExist)
			require.ErrorIs(t, b.Remove("nope"), fs.ErrNotExist)
			require.ErrorIs(t, b.Remove("etc/a"), fs.ErrNotExist, "twice")
			require.ErrorIs(t, b.Remove("/"), ErrUnsafe)
			require.ErrorIs(t, b.Remove("etc/b/x"), syscall.ENOTDIR)
		}, []string{"etc/.wh.a 0 0 0:0 @0", ".wh.tmp 0 0 0:0 @0", "usr/lib/ 5 711 3:4 @2", "usr/lib/.wh.old 0 0 0:0 @0"}},
		"remove a symlink, not where it leads": {func(t *testing.T, b *Builder) {
			require.NoError(t, b.Remove("lib"))
			require.NoError(t, b.Add(reg("lib/x", ""), nil))
		}, []string{"lib/ 5 755 0:0 @99", "lib/x 0 644 0:0 @9"}},
		"remove and make again": {func(t *testing.T, b *Builder) {
			require.NoError(t, b.Remove("etc"))
			require.ErrorIs(t, b.Remove("etc/b"), fs.ErrNotExist)
			require.NoError(t, b.Add(reg("etc/new", ""), nil))
			require.NoError(t, b.Remove("usr/lib"))
			require.NoError(t, b.Add(d("usr/lib"), nil))
			require.NoError(t, b.Remove("tmp"))
			require.NoError(t, b.Add(reg("tmp", ""), nil))
		}, []string{"etc/ 5 755 0:0 @99", "etc/.wh..wh..opq 0 0 0:0 @0", "etc/new 0 644 0:0 @9", "tmp 0 644 0:0 @9", "usr/lib/ 5 750 0:0 @9", "usr/lib/.wh..wh..opq 0 0 0:0 @0"}},
		"directory over file and back": {func(t *testing.T, b *Builder) {
			require.NoError(t, b.Add(d("etc/a"), nil))
			require.NoError(t, b.Add(reg("etc/a/x", ""), nil))
			require.NoError(t, b.Add(reg("tmp", ""), nil))
			require.NoError(t, b.Add(d("tmp"), nil))
			require.NoError(t, b.Add(d("q"), nil))
			require.NoError(t, b.Add(reg("q/x", ""), nil))
			require.NoError(t, b.Add(reg("q", ""), nil))
			require.NoError(t, b.Add(d("q"), nil))
		}, []string{"etc/a/ 5 750 0:0 @9", "etc/a/x 0 644 0:0 @9", "q/ 5 750 0:0 @9", "tmp/ 5 750 0:0 @9", "tmp/.wh..wh..opq 0 0 0:0 @0"}},
		"hard links": {func(t *testing.T, b *Builder) {
			require.NoError(t, b.Add(reg("z", "1"), text("1")))
			require.NoError(t, b.Add(Entry{Name: "a", Type: tar.TypeLink, Link: "/z"}, nil))
			require.NoError(t, b.Add(Entry{Name: "lib/l", Type: tar.TypeLink, Link: "lib/../z"}, nil))
			require.NoError(t, b.Add(Entry{Name: "m", Type: tar.TypeLink, Link: "etc/a"}, nil), "copied from the base")
			require.ErrorIs(t, b.Add(Entry{Name: "n", Type: tar.TypeLink, Link: "nope"}, nil), fs.ErrNotExist)
			require.ErrorIs(t, b.Add(Entry{Name: "n", Type: tar.TypeLink, Link: "usr"}, nil), ErrInvalid)
		}, []string{"a 0 644 0:0 @9", "etc/a 0 644 7:7 @0", "m 1 644 7:7 @0 etc/a", "usr/lib/ 5 711 3:4 @2", "usr/lib/l 1 644 0:0 @9 a", "z 1 644 0:0 @9 a"}},
		"root": {func(t *testing.T, b *Builder) {
			require.NoError(t, b.Add(Entry{Name: "/", Type: tar.TypeDir, Mode: 0o700}, nil))
			require.ErrorIs(t, b.Add(reg(".", ""), nil), ErrUnsafe)
		}, []string{"./ 5 700 0:0 @0"}},
		"special files": {func(t *testing.T, b *Builder) {
			require.NoError(t, b.Add(Entry{Name: "n", Type: tar.TypeChar, Major: 1, Minor: 3, Mode: 0o666}, nil))
			require.NoError(t, b.Add(Entry{Name: "p", Type: tar.TypeFifo, Mode: 0o600}, nil))
			require.NoError(t, b.Add(Entry{Name: "s", Type: tar.TypeSymlink, Link: "/x"}, nil))
		}, []string{"n 3 666 0:0 @0", "p 6 600 0:0 @0", "s 2 777 0:0 @0 /x"}},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBuilder(mustView(t, base), time.Unix(99, 0))
			tc.do(t, b)
			out := written(t, b)
			assert.Equal(t, tc.want, membersOf(t, out))
			_, err := viewOf(base, out)
			require.NoError(t, err)
		})
	}
}

func TestBuilderRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		e    Entry
		want error
	}{
		"outside":       {Entry{Name: "../x", Type: tar.TypeReg}, ErrUnsafe},
		"whiteout":      {Entry{Name: "a/.wh.x", Type: tar.TypeReg}, ErrInvalid},
		"opaque":        {Entry{Name: ".wh..wh..opq", Type: tar.TypeReg}, ErrInvalid},
		"long":          {Entry{Name: strings.Repeat("x", 256), Type: tar.TypeReg}, syscall.ENAMETOOLONG},
		"type":          {Entry{Name: "x", Type: 'Z'}, ErrType},
		"owner":         {Entry{Name: "x", Type: tar.TypeReg, UID: -1}, ErrInvalid},
		"size":          {Entry{Name: "x", Type: tar.TypeReg, Size: -1}, ErrInvalid},
		"no data":       {Entry{Name: "x", Type: tar.TypeReg, Size: 1}, ErrInvalid},
		"symlink":       {Entry{Name: "x", Type: tar.TypeSymlink}, ErrInvalid},
		"device":        {Entry{Name: "x", Type: tar.TypeChar, Major: -1}, ErrInvalid},
		"below a file":  {Entry{Name: "file/x", Type: tar.TypeReg}, syscall.ENOTDIR},
		"through loops": {Entry{Name: "loop/x", Type: tar.TypeReg}, syscall.ELOOP},
	} {
		t.Run(name, func(t *testing.T) {
			b := NewBuilder(mustView(t, archive(t, file("file", ""), symlink("loop", "loop"))), time.Unix(0, 0))
			err := b.Add(tc.e, nil)
			require.ErrorIs(t, err, tc.want)
			assert.Empty(t, membersOf(t, written(t, b)))
		})
	}

	b := NewBuilder(nil, time.Unix(0, 0))
	require.NoError(t, b.Add(Entry{Name: "x", Type: tar.TypeReg, Size: 3}, text("four")))
	require.ErrorIs(t, b.WriteTo(context.Background(), io.Discard), ErrChanged)
	require.NoError(t, b.Add(Entry{Name: "x", Type: tar.TypeReg, Size: 5}, text("four")))
	require.ErrorIs(t, b.WriteTo(context.Background(), io.Discard), ErrChanged)
	boom := errors.New("boom")
	require.NoError(t, b.Add(Entry{Name: "x", Type: tar.TypeReg, Size: 5}, func() (io.ReadCloser, error) { return nil, boom }))
	require.ErrorIs(t, b.WriteTo(context.Background(), io.Discard), boom)
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(boom)
	require.ErrorIs(t, b.WriteTo(ctx, io.Discard), boom)
}

// TestBuilderBytes pins the bytes that a layer has: they are in everybody's digests.
func TestBuilderBytes(t *testing.T) {
	build := func(order []int) []byte {
		b := NewBuilder(nil, time.Unix(7, 0))
		entries := []Entry{
			{Name: "bin/sh", Type: tar.TypeReg, Mode: 0o4755, Size: 3, ModTime: time.Unix(1_700_000_000, 999)},
			{Name: strings.Repeat("long/", 30) + "name", Type: tar.TypeReg, Mode: 0o644, UID: 1 << 31, GID: 5, Size: 0, ModTime: time.Unix(-5, 0)},
			{Name: "dev/null", Type: tar.TypeChar, Mode: 0o666, Major: 1, Minor: 3},
			{Name: "bad\xff", Type: tar.TypeSymlink, Link: strings.Repeat("t", 150)},
			{Name: "x", Type: tar.TypeReg, Mode: 0o600, Xattrs: map[string]string{"user.b": "2", "user.a": "1\x00\xff", "security.capability": "cap"}},
		}
		for _, i := range order {
			require.NoError(t, b.Add(entries[i], text("abc")))
		}
		return written(t, b)
	}
	b := build([]int{0, 1, 2, 3, 4})
	assert.Equal(t, b, build([]int{4, 2, 0, 3, 1}))
	assert.Equal(t, "sha256:4fa6960c814bc94378cdd34e0a051b67070bf20c78ceb9670ff9cab777a02082", readTOC(t, b).DiffID.String())
	v := mustView(t, b)
	e, _ := v.Lstat("x")
	assert.Equal(t, map[string]string{"user.b": "2", "user.a": "1\x00\xff", "security.capability": "cap"}, e.Xattrs)
	assert.Equal(t, "abc", cat(t, v, "bin/sh"))
}

func TestBuilderArchive(t *testing.T) {
	ctx := context.Background()
	base := archive(t, dir("opt").moded(0o700), file("opt/old", "old"), dir("opt/d"), file("opt/d/x", "x"), symlink("link", "opt"))
	inner := archive(t, dir(".").moded(0o711), dir("d").moded(0o711).owned(4, 5), file("d/a", strings.Repeat("data", 100)).xattr("user.x", "y"), hardlink("h", "d/a"), hardlink("early", "late"), file("late", "l"),
		symlink("s", "d"), file("s/through", "t"), file("d/.wh.x", ""), file(".wh.nope", ""))
	sparse := ended(oldSparse("sp", 4, 1<<16, "100", "4"), blocks("abcd"))
	tarFile := filepath.Join(t.TempDir(), "a.tar")
	require.NoError(t, os.WriteFile(tarFile, inner, 0o600))
	zipped := func(b []byte) func() (io.ReadCloser, error) {
		var z bytes.Buffer
		require.NoError(t, Compress(ctx, &z, bytes.NewReader(b), Compression{Algorithm: Zstd}))
		return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(z.Bytes())), nil }
	}
	want := []string{
		"opt/ 5 700 0:0 @0", "opt/d/ 5 711 4:5 @0", "opt/d/a 0 644 0:0 @0", "opt/d/through 0 644 0:0 @0", "opt/d/.wh.x 0 0 0:0 @0", "opt/early 0 644 0:0 @0", "opt/h 1 644 0:0 @0 opt/d/a", "opt/late 1 644 0:0 @0 opt/early", "opt/s 2 777 0:0 @0 d",
	}
	for name, open := range map[string]func() (io.ReadCloser, error){
		"file":       func() (io.ReadCloser, error) { return os.Open(tarFile) },
		"stream":     func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(inner)), nil },
		"compressed": zipped(inner),
	} {
		for _, to := range []string{"/opt", "link"} {
			t.Run(name+" to "+to, func(t *testing.T) {
				spool := t.TempDir()
				b := NewBuilder(mustView(t, base), time.Unix(99, 0))
				require.NoError(t, b.Archive(ctx, to, open, spool, Limits{}))
				out := written(t, b)
				assert.Equal(t, want, membersOf(t, out))
				v := mustView(t, base, out)
				assert.Equal(t, strings.Repeat("data", 100), cat(t, v, "link/h"))
				assert.Equal(t, "t", cat(t, v, "opt/d/through"))
				assert.Equal(t, "l", cat(t, v, "opt/early"))
				require.NoError(t, b.Close())
				left, err := os.ReadDir(spool)
				require.NoError(t, err)
				assert.Empty(t, left)
			})
		}
	}
	t.Run("a new directory gets the archive's root", func(t *testing.T) {
		b := NewBuilder(nil, time.Unix(99, 0))
		require.NoError(t, b.Archive(ctx, "/a/b", func() (io.ReadCloser, error) { return os.Open(tarFile) }, t.TempDir(), Limits{}))
		got := membersOf(t, written(t, b))
		assert.Equal(t, []string{"a/ 5 755 0:0 @99", "a/b/ 5 711 0:0 @0"}, got[:2])
		require.NoError(t, b.Close())
	})
	t.Run("sparse", func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "s.tar")
		require.NoError(t, os.WriteFile(name, sparse, 0o600))
		for _, open := range []func() (io.ReadCloser, error){zipped(sparse), func() (io.ReadCloser, error) { return os.Open(name) }} {
			b := NewBuilder(nil, time.Unix(0, 0))
			require.NoError(t, b.Archive(ctx, "/", open, t.TempDir(), Limits{}))
			data := cat(t, mustView(t, written(t, b)), "sp")
			assert.Equal(t, strings.Repeat("\x00", 100)+"abcd"+strings.Repeat("\x00", 1<<16-104), data)
			require.NoError(t, b.Close())
		}
	})
	t.Run("opaque", func(t *testing.T) {
		b := NewBuilder(mustView(t, base), time.Unix(0, 0))
		require.NoError(t, b.Add(Entry{Name: "opt/d/mine", Type: tar.TypeReg}, nil))
		require.NoError(t, b.Archive(ctx, "/", zipped(archive(t, file("opt/.wh..wh..opq", ""), file("opt/new", ""))), t.TempDir(), Limits{}))
		out := written(t, b)
		assert.Equal(t, []string{"link", "opt", "opt/d", "opt/d/mine", "opt/new"}, names(t, mustView(t, base, out)))
		require.NoError(t, b.Close())
	})
	t.Run("errors", func(t *testing.T) {
		b := NewBuilder(mustView(t, base), time.Unix(0, 0))
		boom := errors.New("boom")
		require.ErrorIs(t, b.Archive(ctx, "/", func() (io.ReadCloser, error) { return nil, boom }, t.TempDir(), Limits{}), boom)
		require.ErrorIs(t, b.Archive(ctx, "/", func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("no tar")), nil }, t.TempDir(), Limits{}), ErrInvalid)
		require.ErrorIs(t, b.Archive(ctx, "../x", zipped(inner), t.TempDir(), Limits{}), ErrUnsafe)
		require.ErrorIs(t, b.Archive(ctx, "opt/old", zipped(inner), t.TempDir(), Limits{}), syscall.ENOTDIR)
		require.ErrorIs(t, b.Archive(ctx, "/", zipped(inner), t.TempDir(), Limits{Entries: 2}), ErrLimit)
		require.ErrorIs(t, b.Archive(ctx, "/", zipped(archive(t, hardlink("a", "missing"))), t.TempDir(), Limits{}), ErrInvalid)
		require.ErrorIs(t, b.Archive(ctx, "/", zipped(inner), filepath.Join(t.TempDir(), "none"), Limits{}), fs.ErrNotExist)
		require.NoError(t, b.Close())
	})
}

func ExampleBuilder() {
	b := NewBuilder(nil, time.Unix(0, 0))
	hello := "#!/bin/sh\necho hello\n"
	err := b.Add(Entry{Name: "/usr/bin/hello", Type: tar.TypeReg, Mode: 0o755, Size: int64(len(hello))},
		func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(hello)), nil })
	if err != nil {
		fmt.Println(err)
		return
	}
	var layer bytes.Buffer
	if err := b.WriteTo(context.Background(), &layer); err != nil {
		fmt.Println(err)
		return
	}
	toc, err := ReadTOC(context.Background(), &layer, Limits{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, e := range toc.Entries {
		fmt.Printf("%04o %s\n", e.Mode, e.Name)
	}
	// Output:
	// 0755 usr
	// 0755 usr/bin
	// 0755 usr/bin/hello
}
