package source

import (
	"cmp"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Both ways to read a directory say the same of everything that can be in one.
func TestListDirSaysWhatOSSays(t *testing.T) {
	dir := plant(t, map[string]string{"f": "text", "sub/deep/g": "x", "l": "-> f", "empty": "", "away": "-> ../../etc"})
	for name, mode := range map[string]os.FileMode{"f": 0o4751, "sub": 0o2755, "sub/deep": 0o1700} {
		require.NoError(t, unix.Chmod(filepath.Join(dir, name), uint32(mode)))
	}
	require.NoError(t, os.Link(filepath.Join(dir, "f"), filepath.Join(dir, "hard")))
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	if l, err := net.Listen("unix", filepath.Join(dir, "s")); err == nil { // the name may be too long for one
		defer l.Close()
	}
	for i := range 2000 { // more than one buffer of names
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-with-a-long-name-%04d", i)), nil, 0o644))
	}
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	for _, name := range []string{".", "sub", "sub/deep"} {
		want, err := listing(root, name)
		require.NoError(t, err)
		got, err := listDir(root, name)
		require.NoError(t, err)
		for _, l := range [][]dirName{want, got} {
			slices.SortFunc(l, func(a, b dirName) int { return cmp.Compare(a.name, b.name) })
		}
		for i := range got {
			if got[i].mode&fs.ModeSymlink != 0 {
				want[i].target, err = root.Readlink(filepath.Join(name, got[i].name))
				require.NoError(t, err)
			}
		}
		assert.Equal(t, want, got)
	}
	for _, name := range []string{"none", "f", "away"} {
		_, err := listDir(root, name)
		assert.Error(t, err, name)
	}
}

// A file that grows after stat was asked is read beyond what it had: whoever expects its size finds out.
func TestAFileThatGrowsIsReadToItsEnd(t *testing.T) {
	dir := plant(t, map[string]string{"sub/f": "text", "sub/none": ""})
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	var d fileDir
	defer func() { require.NoError(t, d.close()) }()
	read := func(name string, between func()) (string, int) {
		f, err := d.open(root, name)
		require.NoError(t, err)
		require.IsType(t, &handFile{}, f)
		defer func() { require.NoError(t, f.Close()) }()
		_, regular, err := f.stat()
		require.NoError(t, err)
		assert.True(t, regular)
		between()
		text, reads, buf := "", 0, make([]byte, 3)
		for {
			n, err := f.Read(buf)
			text, reads = text+string(buf[:n]), reads+1
			if err != nil {
				n, err = f.Read(buf)
				require.Error(t, err)
				require.Zero(t, n)
				return text, reads
			}
		}
	}
	text, reads := read("sub/f", func() {})
	assert.Equal(t, "text", text)
	assert.Equal(t, 2, reads, "the end comes with the last bytes")
	text, _ = read("sub/f", func() { require.NoError(t, os.WriteFile(filepath.Join(dir, "sub/f"), []byte("more than that"), 0o644)) })
	assert.Equal(t, "more than that", text)
	text, _ = read("sub/none", func() {})
	assert.Empty(t, text)
}
