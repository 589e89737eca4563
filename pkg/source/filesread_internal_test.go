package source

import (
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// old makes files whose digests may be remembered.
func old(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		p := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(t, os.WriteFile(p, []byte(text), 0o644))
	}
	time.Sleep(2 * racy)
}

func openTree(t *testing.T, dir string, sums *Sums) *Files {
	t.Helper()
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	f, err := OpenFiles(t.Context(), root, FilesOptions{}, sums)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

// statOf is what stat said of a file.
func (t *Files) statOf(name string) fileStat {
	for _, e := range t.TOC.Entries {
		if e.Name == name {
			return t.stats[e.Offset].fileStat
		}
	}
	return fileStat{}
}

func TestReadingAFileMakesItsDigestKnown(t *testing.T) {
	dir := t.TempDir()
	old(t, dir, map[string]string{"a/b/c": "hello", "a/b/half": "hello", "top": "x"})
	sums := LoadSums(nil)
	f := openTree(t, dir, sums)
	for i := range f.TOC.Entries {
		e := &f.TOC.Entries[i]
		if e.Size == 0 {
			continue
		}
		r, err := f.open(e)
		require.NoError(t, err)
		if e.Name == "a/b/half" {
			_, err = r.Read(make([]byte, 2))
		} else {
			_, err = io.Copy(io.Discard, r)
		}
		require.NoError(t, err)
		require.NoError(t, r.Close())
	}
	got := sums.get("a/b/c", f.statOf("a/b/c"))
	if f.statOf("a/b/c").Ctime == 0 {
		t.Skip("this system says too little of files to remember their digests")
	}
	require.NotNil(t, got)
	assert.Equal(t, sha256.Sum256([]byte("hello")), got.sum)
	assert.NotNil(t, sums.get("top", f.statOf("top")))
	assert.Nil(t, sums.get("a/b/half", f.statOf("a/b/half")), "it was not read to its end")
}

func TestADigestOfAFileThatChangedIsNotKept(t *testing.T) {
	dir := t.TempDir()
	old(t, dir, map[string]string{"a": "hello"})
	sums := LoadSums(nil)
	f := openTree(t, dir, sums)
	e := &f.TOC.Entries[0]
	r, err := f.open(e)
	require.NoError(t, err)
	_, err = io.ReadFull(r, make([]byte, 3))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), []byte("world"), 0o644)) // as long as before
	_, err = io.Copy(io.Discard, r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	assert.Nil(t, sums.get("a", f.statOf("a")))
}

func TestDirOpensWhatRootOpens(t *testing.T) {
	dir := t.TempDir()
	old(t, dir, map[string]string{"in/a": "1", "in/sub/b": "2", "other/c": "3", "top": "4"})
	outside := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(outside, []byte("secret"), 0o644))
	for link, to := range map[string]string{"in/up": "../other/c", "in/here": "a", "in/out": outside, "in/dots": "../../" + filepath.Base(outside), "way": "in"} {
		require.NoError(t, os.Symlink(to, filepath.Join(dir, link)))
	}
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	d := &Dir{Root: root}
	defer func() { require.NoError(t, d.Close()) }()
	names := []string{"in/a", "in/sub/b", "other/c", "top", "in/up", "in/here", "in/out", "in/dots", "way/a", "way/sub/b", "none/x", "in/none", "in/a/x"}
	for _, name := range names {
		want, wantErr := root.ReadFile(name)
		f, err := d.Open(name)
		if wantErr != nil {
			assert.Error(t, err, name)
			continue
		}
		require.NoError(t, err, name)
		got, err := io.ReadAll(f)
		require.NoError(t, err, name)
		assert.Equal(t, want, got, name)
		require.NoError(t, f.Close())
	}
	var wg sync.WaitGroup
	for i := range 8 { // they take each other's directory away
		wg.Go(func() {
			for j := range 200 {
				f, err := d.Open(names[(i+j)%4])
				if assert.NoError(t, err) {
					f.Close()
				}
			}
		})
	}
	wg.Wait()
}

func TestSumsAreKept(t *testing.T) {
	s := LoadSums([]byte("nonsense"))
	at := time.Now().Add(-time.Hour).UnixNano()
	names := []string{"a", "a/b", "a/bc", "", "z\xff"}
	for i, n := range names {
		s.put(n, fileStat{Size: int64(i * 100), Mtime: at - int64(i), Ctime: at + 1, Inode: 1<<63 + uint64(i), Dev: uint64(i)}, sha256.Sum256([]byte(n)))
	}
	data, changed, err := s.Save()
	require.NoError(t, err)
	require.True(t, changed)
	again := LoadSums(data)
	for i, n := range names {
		st := fileStat{Size: int64(i * 100), Mtime: at - int64(i), Ctime: at + 1, Inode: 1<<63 + uint64(i), Dev: uint64(i)}
		sum := again.get(n, st)
		require.NotNil(t, sum, "%q", n)
		assert.Equal(t, sha256.Sum256([]byte(n)), sum.sum)
		for what, change := range map[string]func(*fileStat){
			"size": func(s *fileStat) { s.Size++ }, "mtime": func(s *fileStat) { s.Mtime++ }, "ctime": func(s *fileStat) { s.Ctime++ },
			"inode": func(s *fileStat) { s.Inode++ }, "device": func(s *fileStat) { s.Dev++ },
		} {
			other := st
			change(&other)
			assert.Nil(t, again.get(n, other), "%s of %q changed", what, n)
		}
	}
	_, changed, err = again.Save()
	require.NoError(t, err)
	assert.False(t, changed)
	for cut := range data {
		LoadSums(data[:cut])
	}
	raw := []byte{sumsVersion, 2, 0, 2, 'a'}
	assert.False(t, new(Sums).decode(raw))
}
