package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	waitFor = time.Minute
	tick    = 10 * time.Millisecond
)

func rootfs(t testing.TB) *View {
	t.Helper()
	return mustView(t, archive(t,
		dir("usr"), dir("usr/lib").moded(0o711), file("usr/lib/libc.so", "elf").moded(0o755), symlink("lib", "usr/lib"), symlink("lib64", "/lib"),
		dir("etc"), symlink("etc/self", "."), symlink("etc/up", "../../.."), symlink("etc/abs", "/usr/lib/libc.so"), symlink("dangling", "no/where"), symlink("loop", "loop"),
		file("etc/hosts", "h"), hardlink("etc/hosts2", "etc/hosts"), fifo("etc/pipe"), file("with space", "1"),
	))
}

func TestViewLookup(t *testing.T) {
	v := rootfs(t)
	for path, want := range map[string]struct {
		lstat, stat, resolve string // real names; "" is none
		err                  error
	}{
		"/":                   {".", ".", ".", nil},
		"":                    {".", ".", ".", nil},
		"..":                  {".", ".", ".", nil},
		"usr/lib/libc.so":     {"usr/lib/libc.so", "usr/lib/libc.so", "usr/lib/libc.so", nil},
		"/lib/libc.so":        {"usr/lib/libc.so", "usr/lib/libc.so", "usr/lib/libc.so", nil},
		"lib":                 {"lib", "usr/lib", "lib", nil},
		"lib/":                {"lib", "usr/lib", "lib", nil},
		"lib64/libc.so":       {"usr/lib/libc.so", "usr/lib/libc.so", "usr/lib/libc.so", nil},
		"etc/self/self/hosts": {"etc/hosts", "etc/hosts", "etc/hosts", nil},
		"etc/up/etc/hosts":    {"etc/hosts", "etc/hosts", "etc/hosts", nil},
		"etc/abs":             {"etc/abs", "usr/lib/libc.so", "etc/abs", nil},
		"../../etc/../lib":    {"lib", "usr/lib", "lib", nil},
		"dangling":            {"dangling", "", "dangling", nil},
		"dangling/x":          {"", "", "no/where/x", nil},
		"new/a/../b":          {"", "", "new/b", nil},
		"lib/new":             {"", "", "usr/lib/new", nil},
		"loop":                {"loop", "", "loop", nil},
		"loop/x":              {"", "", "", syscall.ELOOP},
		"etc/hosts/x":         {"", "", "", syscall.ENOTDIR},
		"etc/pipe/x":          {"", "", "", syscall.ENOTDIR},
	} {
		e, ok := v.Lstat(path)
		assert.Equal(t, want.lstat, e.Name, "Lstat %q", path)
		assert.Equal(t, want.lstat != "", ok, "Lstat %q", path)
		e, ok = v.Stat(path)
		assert.Equal(t, want.stat, e.Name, "Stat %q", path)
		assert.Equal(t, want.stat != "", ok, "Stat %q", path)
		real, err := v.Resolve(path)
		require.ErrorIs(t, err, want.err, "Resolve %q", path)
		assert.Equal(t, want.resolve, real, "Resolve %q", path)
	}
	e, ok := v.Lstat("etc/hosts2")
	require.True(t, ok)
	assert.Equal(t, []any{byte(tar.TypeReg), int64(1), "etc/hosts2"}, []any{e.Type, e.Size, e.Name})

	empty, err := NewView(nil)
	require.NoError(t, err)
	e, ok = empty.Lstat("/")
	require.True(t, ok)
	assert.Equal(t, []any{byte(tar.TypeDir), int64(0o755), 0, 0}, []any{e.Type, e.Mode, e.UID, e.GID})
	_, ok = empty.Lstat("x")
	assert.False(t, ok)
}

func TestViewOpen(t *testing.T) {
	v := rootfs(t)
	assert.Equal(t, "elf", cat(t, v, "/lib64/libc.so"))
	assert.Equal(t, "elf", cat(t, v, "etc/abs"))
	assert.Equal(t, "h", cat(t, v, "etc/hosts2"))
	for path, want := range map[string]error{"nope": fs.ErrNotExist, "etc": fs.ErrInvalid, "etc/pipe": fs.ErrInvalid, "dangling": fs.ErrNotExist, "loop": syscall.ELOOP} {
		_, err := v.Open(path)
		require.ErrorIs(t, err, want, path)
	}

	b := archive(t, file("a", "hello"), file("empty", ""))
	toc := readTOC(t, b)
	opened := 0
	v, err := NewView([]Source{{TOC: toc, Open: func() (ReaderAtCloser, error) { opened++; return bytesAt{bytes.NewReader(b)}, nil }}})
	require.NoError(t, err)
	assert.Empty(t, cat(t, v, "empty"))
	assert.Zero(t, opened, "only when data is read")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			r, err := v.Open("a")
			if assert.NoError(t, err) {
				data, err := io.ReadAll(r)
				assert.NoError(t, err)
				assert.Equal(t, "hello", string(data))
			}
		})
	}
	wg.Wait()
	assert.Equal(t, 1, opened)
	require.NoError(t, v.Close())
	_, err = v.Open("a")
	require.ErrorIs(t, err, fs.ErrClosed)

	// A layer that is shorter than its table says is an error, not a short file.
	v, err = NewView([]Source{{TOC: toc, Open: func() (ReaderAtCloser, error) { return bytesAt{bytes.NewReader(b[:514])}, nil }}})
	require.NoError(t, err)
	r, err := v.Open("a")
	require.NoError(t, err)
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	boom := errors.New("boom")
	v, err = NewView([]Source{{TOC: toc, Open: func() (ReaderAtCloser, error) { return nil, boom }}, {TOC: toc}})
	require.NoError(t, err)
	_, err = v.Open("a")
	require.Error(t, err, "the second layer has no data")
	v, err = NewView([]Source{{TOC: toc, Open: func() (ReaderAtCloser, error) { return nil, boom }}})
	require.NoError(t, err)
	_, err = v.Digest("a")
	require.ErrorIs(t, err, boom)
}

func TestViewWalk(t *testing.T) {
	v := rootfs(t)
	walk := func(path string, stop func(Entry) error) (out []string) {
		require.NoError(t, v.Walk(path, func(e Entry, open func() (io.ReadCloser, error)) error {
			assert.Equal(t, e.Type == tar.TypeReg, open != nil, e.Name)
			s := e.Name
			if e.Type == tar.TypeLink {
				s += "=" + e.Link
			}
			out = append(out, s)
			if stop != nil {
				return stop(e)
			}
			return nil
		}))
		return out
	}
	assert.Equal(t, []string{"etc", "etc/abs", "etc/hosts", "etc/hosts2=etc/hosts", "etc/pipe", "etc/self", "etc/up"}, walk("/etc", nil))
	assert.Equal(t, []string{"etc/hosts2"}, walk("etc/hosts2", nil), "alone it is a file")
	assert.Equal(t, []string{"lib"}, walk("lib", nil), "a symlink is not followed")
	assert.Equal(t, []string{".", "dangling", "etc", "lib", "lib64", "loop", "usr", "usr/lib", "usr/lib/libc.so", "with space"}, walk(".", func(e Entry) error {
		if e.Name == "etc" {
			return fs.SkipDir
		}
		return nil
	}))
	assert.Equal(t, []string{".", "dangling"}, walk(".", func(e Entry) error {
		if e.Name == "dangling" {
			return fs.SkipAll
		}
		return nil
	}))
	require.ErrorIs(t, v.Walk("nope", nil), fs.ErrNotExist)
	boom := errors.New("boom")
	require.ErrorIs(t, v.Walk("etc", func(Entry, func() (io.ReadCloser, error)) error { return boom }), boom)
}

func TestViewGlob(t *testing.T) {
	v := rootfs(t)
	for pattern, want := range map[string][]string{
		"etc/hosts":     {"etc/hosts"},
		"/etc/host*":    {"etc/hosts", "etc/hosts2"},
		"e?c/h*":        {"etc/hosts", "etc/hosts2"},
		"[eu]*":         {"etc", "usr"},
		"lib*/*":        {"lib/libc.so", "lib64/libc.so"},
		"lib/*.so":      {"lib/libc.so"},
		"**/libc.so":    {"usr/lib/libc.so"},
		"**/lib*":       {"lib", "lib64", "usr/lib", "usr/lib/libc.so"},
		"usr/**":        {"usr/lib", "usr/lib/libc.so"},
		"usr/**/**/*so": {"usr/lib/libc.so"},
		"*/../lib":      {"lib", "usr/lib"}, // lib/.. is usr
		"nope*":         nil,
		"etc/hosts/*":   nil,
		"dangling/*":    nil,
		"loop/*":        nil,
		"with*":         {"with space"},
		".":             {"."},
	} {
		got, err := v.Glob(pattern)
		require.NoError(t, err, pattern)
		assert.Equal(t, want, got, pattern)
	}
	_, err := v.Glob("a/[")
	require.Error(t, err)
}

func TestAccounts(t *testing.T) {
	passwd := strings.Join([]string{
		"root:x:0:0:root:/root:/bin/bash", "# comment", "", "bad line", "short:x:5", "nan:x:abc:1::/:", "neg:x:-5:1::/:", "huge:x:4294967296:1::/:",
		"www:x:33:34:www:/var/www:/bin/sh", "www:x:99:99::/second:", "nohome:x:50:51", "1234:x:77:78:a name like a number:/n:", " spaced:x:60:61::/s:", strings.Repeat("x", 100_000) + ":x:1:1::/:", "last:x:70:71::/last:",
	}, "\n")
	group := "root:x:0:root\nwheel:x:10:root,www\nbad\nwww:x:34:\nextra:x:40:www, other ,www\nneg:x:-1:www\ndup:x:10:www\nnum:x:x:www"
	v := mustView(t, archive(t, dir("etc"), file("usr/passwd", passwd), symlink("etc/passwd", "../usr/passwd"), file("etc/group", group)))
	bare, err := NewView(nil)
	require.NoError(t, err)

	for owner, want := range map[string]struct {
		uid, gid int
		err      error
	}{
		"root": {0, 0, nil}, "www": {33, 34, nil}, "www:wheel": {33, 10, nil}, "33": {33, 0, nil}, "33:wheel": {33, 10, nil}, "www:5": {33, 5, nil}, "7:8": {7, 8, nil},
		"1234": {1234, 0, nil}, "last": {70, 71, nil}, "nohome": {50, 51, nil}, "4294967294:0": {4294967294, 0, nil},
		"nobody": {err: ErrAccount}, "www:nogroup": {err: ErrAccount}, "nan": {err: ErrAccount}, "neg": {err: ErrAccount}, "bad line": {err: ErrAccount},
		"": {err: fs.ErrInvalid}, ":wheel": {err: fs.ErrInvalid}, "www:": {err: fs.ErrInvalid}, "4294967295": {err: fs.ErrInvalid}, "4294967296": {err: fs.ErrInvalid}, "-1": {err: fs.ErrInvalid},
		"0:99999999999999999999": {err: fs.ErrInvalid}, "a:b:c": {err: ErrAccount},
	} {
		uid, gid, err := v.LookupOwner(owner)
		require.ErrorIs(t, err, want.err, "%q", owner)
		if err == nil {
			assert.Equal(t, []int{want.uid, want.gid}, []int{uid, gid}, "%q", owner)
		}
	}
	uid, gid, err := bare.LookupOwner("5:6")
	require.NoError(t, err)
	assert.Equal(t, []int{5, 6}, []int{uid, gid})
	_, _, err = bare.LookupOwner("root")
	require.ErrorIs(t, err, ErrAccount)

	for user, want := range map[string]Account{
		"":          {Home: "/root", Name: "root", Groups: []int{0, 10}},
		"root":      {Home: "/root", Name: "root", Groups: []int{0, 10}},
		"0":         {Home: "/root", Name: "root", Groups: []int{0, 10}},
		"www":       {UID: 33, GID: 34, Home: "/var/www", Name: "www", Groups: []int{10, 40}},
		"33":        {UID: 33, GID: 34, Home: "/var/www", Name: "www", Groups: []int{10, 40}},
		"www:wheel": {UID: 33, GID: 10, Home: "/var/www", Name: "www"},
		"33:7":      {UID: 33, GID: 7, Home: "/var/www", Name: "www"},
		"1234":      {UID: 1234, Home: "/"},
		"500:600":   {UID: 500, GID: 600, Home: "/"},
		"nohome":    {UID: 50, GID: 51, Home: "/", Name: "nohome"},
	} {
		got, err := v.LookupUser(user)
		require.NoError(t, err, "%q", user)
		assert.Equal(t, want, got, "%q", user)
	}
	for user, want := range map[string]error{"nobody": ErrAccount, "www:nogroup": ErrAccount, ":0": fs.ErrInvalid, "4294967296": fs.ErrInvalid, "0:-1": fs.ErrInvalid} {
		_, err := v.LookupUser(user)
		require.ErrorIs(t, err, want, "%q", user)
	}
	got, err := bare.LookupUser("")
	require.NoError(t, err)
	assert.Equal(t, Account{Home: "/"}, got)

	odd := mustView(t, archive(t, dir("etc"), fifo("etc/passwd"), dir("etc/group")))
	_, _, err = odd.LookupOwner("www")
	require.ErrorIs(t, err, fs.ErrInvalid)
	_, _, err = odd.LookupOwner("1:www")
	require.ErrorIs(t, err, fs.ErrInvalid)
	// A line of a gigabyte is skipped in little memory.
	long := mustView(t, archive(t, dir("etc"), file("etc/passwd", "x:x:1:1:"+strings.Repeat("y", 2<<20)+"\nok:x:2:3::/:\n")))
	uid, _, err = long.LookupOwner("ok")
	require.NoError(t, err)
	assert.Equal(t, 2, uid)
	_, _, err = long.LookupOwner("x")
	require.ErrorIs(t, err, ErrAccount)
}

func TestViewDigest(t *testing.T) {
	base := []member{dir("d"), file("d/a", "1").owned(1, 2).xattr("user.x", "y"), symlink("d/l", "a"), hardlink("d/h", "d/a"), char("d/c", 1, 2)}
	digestOf := func(path string, members ...member) string {
		d, err := mustView(t, archive(t, members...)).Digest(path)
		require.NoError(t, err)
		return d.String()
	}
	want := digestOf("d", base...)
	later := make([]member, len(base))
	for i, m := range base {
		later[i] = m.at(99)
	}
	assert.Equal(t, want, digestOf("/d/", later...), "times do not count")
	moved := []member{dir("x"), dir("x/y"), file("x/y/a", "1").owned(1, 2).xattr("user.x", "y"), symlink("x/y/l", "a"), hardlink("x/y/h", "x/y/a"), char("x/y/c", 1, 2)}
	assert.Equal(t, want, digestOf("x/y", moved...), "the place does not count")
	assert.Equal(t, digestOf("/", base[1].named("a")), digestOf("/", base[1].named("a")))
	seen := map[string]string{want: "base"}
	for name, m := range map[string]member{
		"data": file("d/a", "2").owned(1, 2).xattr("user.x", "y"), "mode": file("d/a", "1").owned(1, 2).xattr("user.x", "y").moded(0o600), "owner": file("d/a", "1").owned(1, 3).xattr("user.x", "y"),
		"xattr": file("d/a", "1").owned(1, 2).xattr("user.x", "z"), "type": symlink("d/a", "1"),
	} {
		changed := append([]member{}, base...)
		changed[1] = m
		d := digestOf("d", changed...)
		assert.Empty(t, seen[d], name)
		seen[d] = name
	}
	for name, members := range map[string][]member{
		"one less": base[:4], "one more": append(base[:5:5], dir("d/z")), "other name": append(base[:4:4], char("d/d", 1, 2)), "other device": append(base[:4:4], char("d/c", 1, 3)),
		"no hard link": append(append(base[:3:3], file("d/h", "1").owned(1, 2).xattr("user.x", "y")), base[4]),
	} {
		d := digestOf("d", members...)
		assert.Empty(t, seen[d], name)
		seen[d] = name
	}
	_, err := mustView(t).Digest("nope")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func (m member) named(name string) member { m.name = name; return m }

func TestFlatten(t *testing.T) {
	layers := [][]byte{
		archive(t, dir("a").moded(0o700), file("a/x", "1"), hardlink("b", "a/x"), symlink("l", "a"), file("gone", ""), file("nano", "2").at(7)),
		archive(t, file(".wh.gone", ""), ended0(t)),
	}
	v := mustView(t, layers...)
	var out bytes.Buffer
	require.NoError(t, Flatten(context.Background(), v, &out, ""))
	assert.Equal(t, list(t, v), list(t, mustView(t, out.Bytes())))
	out.Reset()
	require.NoError(t, Flatten(context.Background(), v, &out, "linux_arm64/"))
	got := names(t, mustView(t, out.Bytes()))
	assert.Equal(t, []string{"linux_arm64", "linux_arm64/a", "linux_arm64/a/x", "linux_arm64/b", "linux_arm64/l", "linux_arm64/nano", "linux_arm64/sparse"}, got)
	assert.Equal(t, "1", cat(t, mustView(t, out.Bytes()), "linux_arm64/b"))
	boom := errors.New("boom")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(boom)
	require.ErrorIs(t, Flatten(ctx, v, io.Discard, ""), boom)
	require.ErrorIs(t, Flatten(context.Background(), v, &hookWriter{at: 1, do: func() error { return boom }}, ""), boom)
}

// ended0 is a sparse file's member, which comes out with its zeros.
func ended0(t testing.TB) member {
	t.Helper()
	return file("sparse", strings.Repeat("\x00", 100)+"x")
}

func TestRewrite(t *testing.T) {
	in := archive(t, dir("d").at(500), file("d/a", "1").at(5), file("d/b", "2").at(2000).xattr("user.x", "y"), symlink("l", strings.Repeat("long/", 50)).at(3000), hardlink("h", "d/a").at(9999))
	var out, again bytes.Buffer
	require.NoError(t, Rewrite(context.Background(), &out, bytes.NewReader(in), time.Unix(1000, 0)))
	var got []int64
	for _, e := range readTOC(t, out.Bytes()).Entries {
		got = append(got, e.ModTime.Unix())
	}
	assert.Equal(t, []int64{500, 5, 1000, 1000, 1000}, got)
	v := mustView(t, out.Bytes())
	assert.Equal(t, "2", cat(t, v, "d/b"))
	e, _ := v.Lstat("d/b")
	assert.Equal(t, map[string]string{"user.x": "y"}, e.Xattrs)
	require.NoError(t, Rewrite(context.Background(), &again, bytes.NewReader(out.Bytes()), time.Unix(1000, 0)))
	assert.Equal(t, out.Bytes(), again.Bytes())
	require.Error(t, Rewrite(context.Background(), io.Discard, bytes.NewReader(in[:700]), time.Unix(1000, 0)))
}
