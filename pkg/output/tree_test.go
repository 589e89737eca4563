//go:build unix

package output

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/event"
)

// odd is a layer with everything that a directory of a user cannot hold as it is.
func odd() testimage.LayerData {
	return testimage.Layer(
		testimage.Dir("d").Mode(0o555).Owner(7, 8),
		testimage.Dir("d/e").Mode(0),
		testimage.File("d/e/f", "deep").Mode(0o400),
		testimage.Dir("tmp").Mode(0o1777),
		testimage.Exec("su", "x").Mode(0o6755),
		testimage.CharDevice("null", 1, 3),
		testimage.Hardlink("null2", "null"),
		testimage.Fifo("fifo"),
		testimage.Symlink("link", "/etc/passwd"),
		testimage.Symlink("broken", "no/where"),
		testimage.Hardlink("tmp/su", "su"),
		testimage.File("cap", "x").Xattr("security.capability", "\x01"),
		testimage.File("-rf", ""),
	)
}

func TestLocal(t *testing.T) {
	env := Env{Dir: t.TempDir()}
	var warnings []string
	env.Events = func(e event.Event) {
		if e.Kind == event.Warning {
			warnings = append(warnings, e.Text)
		}
	}
	p := productOf(t, nil, testimage.Image("linux/amd64", odd().Gzip()))
	require.NoError(t, open(t, env, "out/deeper/").Write(t.Context(), p))
	dir := filepath.Join(env.Dir, "out", "deeper")
	t.Cleanup(func() { _ = removeTree(dir) })
	mode := func(name string) fs.FileMode {
		info, err := os.Lstat(filepath.Join(dir, name))
		require.NoError(t, err)
		return info.Mode()
	}
	assert.Equal(t, fs.ModeDir|0o555, mode("d"))
	assert.Equal(t, fs.ModeDir, mode("d/e"))
	assert.Equal(t, fs.ModeDir|fs.ModeSticky|0o777, mode("tmp"))
	assert.Equal(t, fs.FileMode(0o755), mode("su"), "without its owner, set-user-ID would be another's")
	if runtime.GOOS == "linux" {
		assert.Equal(t, fs.ModeNamedPipe|0o644, mode("fifo"))
	}
	for name, target := range map[string]string{"link": "/etc/passwd", "broken": "no/where"} {
		got, err := os.Readlink(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.Equal(t, target, got)
	}
	for _, name := range []string{"null", "null2"} {
		_, err := os.Lstat(filepath.Join(dir, name))
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
	a, err := os.Stat(filepath.Join(dir, "su"))
	require.NoError(t, err)
	b, err := os.Stat(filepath.Join(dir, "tmp", "su"))
	require.NoError(t, err)
	assert.True(t, os.SameFile(a, b))
	for _, name := range []string{"d", "su", "tmp", "link"} {
		info, err := os.Lstat(filepath.Join(dir, name))
		require.NoError(t, err)
		assert.True(t, testimage.Epoch.Equal(info.ModTime()), name)
	}
	if st, ok := a.Sys().(*syscall.Stat_t); ok {
		assert.Equal(t, os.Geteuid(), int(st.Uid))
	}
	assert.Len(t, warnings, 3, "devices, set-user-ID bits and attributes: %q", warnings)
	assert.Equal(t, []string{"deeper"}, files(t, filepath.Join(env.Dir, "out")))

	// Again, over what is there and cannot be written.
	require.NoError(t, open(t, env, "out/deeper").Write(t.Context(), p))
	assert.Equal(t, fs.ModeDir, mode("d/e"))
}

func TestLocalPlatforms(t *testing.T) {
	env := Env{Dir: t.TempDir()}
	require.NoError(t, open(t, env, "type=local,dest=out").Write(t.Context(), productOf(t, nil, amd64(), arm())))
	assert.Equal(t, []string{"linux_amd64", "linux_arm_v7"}, files(t, filepath.Join(env.Dir, "out")))
	assert.Equal(t, []string{"bin", "etc", "new", "usr"}, files(t, filepath.Join(env.Dir, "out", "linux_arm_v7")))
	assert.Empty(t, files(t, filepath.Join(env.Dir, "out", "linux_arm_v7", "etc")))
}

// TestLocalOverOthers/A02: links in the directory lead nowhere else, and what is not in the image stays.
func TestLocalOverOthers(t *testing.T) {
	env := Env{Dir: t.TempDir()}
	outside := filepath.Join(env.Dir, "outside")
	dir := filepath.Join(env.Dir, "out")
	for _, d := range []string{outside, dir, filepath.Join(dir, "usr"), filepath.Join(dir, "mine")} {
		require.NoError(t, os.Mkdir(d, 0o755))
	}
	write := func(name, text string) { require.NoError(t, os.WriteFile(name, []byte(text), 0o444)) }
	write(filepath.Join(outside, "motd"), "outside")
	write(filepath.Join(outside, "hello"), "outside")
	write(filepath.Join(dir, "mine", "file"), "mine")
	write(filepath.Join(dir, "bin"), "a file where a link goes")
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "etc")))
	require.NoError(t, os.Symlink("../../outside", filepath.Join(dir, "usr", "bin")))

	require.NoError(t, open(t, env, "out").Write(t.Context(), productOf(t, nil, amd64())))
	for name, want := range map[string]string{
		"outside/motd": "outside", "outside/hello": "outside", "out/mine/file": "mine",
		"out/etc/motd": "amd64\n", "out/usr/bin/hi": "#!/bin/sh\necho hello\n",
	} {
		data, err := os.ReadFile(filepath.Join(env.Dir, name))
		require.NoError(t, err)
		assert.Equal(t, want, string(data), name)
	}
	assert.Equal(t, []string{"hello", "motd"}, files(t, outside))
	target, err := os.Readlink(filepath.Join(dir, "bin"))
	require.NoError(t, err)
	assert.Equal(t, "usr/bin", target)

	// A file is replaced, not written to: whoever reads the old one goes on reading it.
	old, err := os.Open(filepath.Join(dir, "etc", "motd"))
	require.NoError(t, err)
	defer old.Close()
	require.NoError(t, open(t, env, "out").Write(t.Context(), productOf(t, nil, testimage.Image("linux/amd64", base("new\n").Gzip()))))
	data, err := io.ReadAll(old)
	require.NoError(t, err)
	assert.Equal(t, "amd64\n", string(data))

	// A directory with something in it is not thrown away for a file.
	full := testimage.Image("linux/amd64", testimage.Layer(testimage.File("mine", "")).Gzip())
	require.Error(t, open(t, env, "out").Write(t.Context(), productOf(t, nil, full)))
	assert.Equal(t, []string{"file"}, files(t, filepath.Join(dir, "mine")))
	assert.Empty(t, filesWith(t, dir, tempMark))
}

func TestLocalPlatformDirectoryIsALink(t *testing.T) {
	env := Env{Dir: t.TempDir()}
	outside := filepath.Join(env.Dir, "outside")
	require.NoError(t, os.Mkdir(outside, 0o755))
	require.NoError(t, os.Mkdir(filepath.Join(env.Dir, "out"), 0o755))
	require.NoError(t, os.Symlink(outside, filepath.Join(env.Dir, "out", "linux_amd64")))
	require.Error(t, open(t, env, "out").Write(t.Context(), productOf(t, nil, amd64(), arm())))
	assert.Empty(t, files(t, outside))
}

func TestTar(t *testing.T) {
	env := Env{Stdout: &bytes.Buffer{}, Dir: t.TempDir()}
	require.NoError(t, open(t, env, "-").Write(t.Context(), productOf(t, nil, testimage.Image("linux/amd64", odd().Gzip()))))
	buf, ok := env.Stdout.(*bytes.Buffer)
	require.True(t, ok)
	tr := tar.NewReader(buf)
	got := map[string]*tar.Header{}
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		got[h.Name] = h
	}
	assert.Equal(t, int64(0o6755), got["su"].Mode)
	assert.Equal(t, byte(tar.TypeChar), got["null"].Typeflag)
	assert.Equal(t, 7, got["d/"].Uid)
	assert.Equal(t, "\x01", got["cap"].PAXRecords["SCHILY.xattr.security.capability"])
}

func TestTarPlatforms(t *testing.T) {
	env := Env{Dir: t.TempDir()}
	require.NoError(t, open(t, env, "type=tar,dest=out.tar").Write(t.Context(), productOf(t, nil, amd64(), arm())))
	data, err := os.ReadFile(filepath.Join(env.Dir, "out.tar"))
	require.NoError(t, err)
	members := untar(t, data)
	assert.Equal(t, "amd64\n", string(members["linux_amd64/etc/motd"]))
	assert.Equal(t, "x", string(members["linux_arm_v7/new"]))
	assert.Contains(t, members, "linux_arm_v7/")
	assert.NotContains(t, members, "linux_arm_v7/etc/motd")
}

func TestJoiner(t *testing.T) {
	piece := func(n int, fill byte) []byte { // a "tar" of n bytes and its end
		return append(bytes.Repeat([]byte{fill}, n), make([]byte, tarEnd)...)
	}
	want := append(append(bytes.Repeat([]byte{1}, 1536), bytes.Repeat([]byte{2}, 512)...), make([]byte, tarEnd)...)
	for _, chunk := range []int{1, 7, 512, 1000, 1024, 4096} {
		var out bytes.Buffer
		j := &joiner{w: &out}
		for _, p := range [][]byte{piece(1536, 1), piece(0, 9), piece(512, 2)} {
			j.next()
			for len(p) > 0 {
				n := min(chunk, len(p))
				wrote, err := j.Write(p[:n])
				require.NoError(t, err)
				require.Equal(t, n, wrote)
				p = p[n:]
			}
		}
		require.NoError(t, j.close())
		assert.Equal(t, want, out.Bytes(), "in chunks of %d", chunk)
	}
	var out bytes.Buffer
	require.NoError(t, (&joiner{w: &out}).close())
	assert.Len(t, out.Bytes(), tarEnd)
}
