package source

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/layer"
)

// plant makes files in a new directory: a name that ends in a slash is a directory, text that begins with "-> " a symlink.
func plant(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		switch {
		case name[len(name)-1] == '/':
			require.NoError(t, os.MkdirAll(path, 0o755))
		case len(text) > 3 && text[:3] == "-> ":
			require.NoError(t, os.Symlink(text[3:], path))
		default:
			require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		}
	}
	return dir
}

func openFiles(t testing.TB, dir string, o FilesOptions, sums *Sums) *Files {
	t.Helper()
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	f, err := OpenFiles(t.Context(), root, o, sums)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

func names(f *Files) []string {
	out := []string{}
	for _, e := range f.TOC.Entries {
		out = append(out, e.Name)
	}
	return out
}

func TestFilesAreChosen(t *testing.T) {
	tree := map[string]string{
		"a.txt": "a", "b.log": "b", "sub/c.txt": "c", "sub/deep/d.log": "d", "sub/deep/e.txt": "e", "empty/": "", "other/f": "f",
		"link": "-> sub/c.txt", "dirlink": "-> sub", "rooted": "-> /other/f", "loop": "-> loop", "away": "-> ../../etc",
	}
	all := []string{"a.txt", "away", "b.log", "dirlink", "empty", "link", "loop", "other", "other/f", "rooted", "sub", "sub/c.txt", "sub/deep", "sub/deep/d.log", "sub/deep/e.txt"}
	for name, tc := range map[string]struct {
		o    FilesOptions
		want []string
	}{
		"all":                                {FilesOptions{}, all},
		"a directory":                        {FilesOptions{Include: []string{"sub"}}, []string{"sub", "sub/c.txt", "sub/deep", "sub/deep/d.log", "sub/deep/e.txt"}},
		"below a directory":                  {FilesOptions{Include: []string{"sub/deep"}}, []string{"sub", "sub/deep", "sub/deep/d.log", "sub/deep/e.txt"}},
		"a pattern":                          {FilesOptions{Include: []string{"**/*.txt"}}, []string{"a.txt", "sub", "sub/c.txt", "sub/deep", "sub/deep/e.txt"}},
		"a pattern of nothing":               {FilesOptions{Include: []string{"*.nothing"}}, []string{}},
		"excluded":                           {FilesOptions{Exclude: []string{"sub", "*link", "loop", "away", "rooted"}}, []string{"a.txt", "b.log", "empty", "other", "other/f"}},
		"excluded but for one":               {FilesOptions{Exclude: []string{"*", "!sub/deep/e.txt"}}, []string{"sub", "sub/deep", "sub/deep/e.txt"}},
		"excluded at any depth":              {FilesOptions{Include: []string{"sub"}, Exclude: []string{"**/*.log"}}, []string{"sub", "sub/c.txt", "sub/deep", "sub/deep/e.txt"}},
		"followed":                           {FilesOptions{Follow: []string{"link"}}, []string{"link", "sub", "sub/c.txt"}},
		"followed through a directory":       {FilesOptions{Follow: []string{"dirlink/deep/e.txt"}}, []string{"dirlink", "sub", "sub/deep", "sub/deep/e.txt"}},
		"followed from the root":             {FilesOptions{Follow: []string{"rooted"}}, []string{"other", "other/f", "rooted"}},
		"followed by a wildcard":             {FilesOptions{Follow: []string{"*.log"}}, []string{"b.log"}},
		"followed by a wildcard to a target": {FilesOptions{Follow: []string{"lin?"}}, []string{"link", "sub", "sub/c.txt"}},
		"followed in a circle":               {FilesOptions{Follow: []string{"loop"}}, []string{"loop"}},
		"followed out of it":                 {FilesOptions{Follow: []string{"away"}}, []string{"away"}},
		"followed everywhere":                {FilesOptions{Follow: []string{"."}}, all},
		"followed to nothing":                {FilesOptions{Follow: []string{"nothing"}}, []string{}},
		"included and followed":              {FilesOptions{Include: []string{"empty"}, Follow: []string{"a.txt"}}, []string{"a.txt", "empty"}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, tc.want, names(openFiles(t, plant(t, tree), tc.o, nil)))
		})
	}
	for name, o := range map[string]FilesOptions{"include": {Include: []string{"[a"}}, "exclude": {Exclude: []string{"[a"}}} {
		t.Run("no pattern/"+name, func(t *testing.T) {
			root, err := os.OpenRoot(plant(t, tree))
			require.NoError(t, err)
			defer root.Close()
			_, err = OpenFiles(t.Context(), root, o, nil)
			assert.Error(t, err)
		})
	}
}

func TestFilesHaveTheirAttributes(t *testing.T) {
	dir := plant(t, map[string]string{"f": "text", "l": "-> f"})
	at := time.Unix(1_600_000_000, 0)
	require.NoError(t, os.Chtimes(filepath.Join(dir, "f"), at, at))
	require.NoError(t, os.Chmod(filepath.Join(dir, "f"), 0o751|os.ModeSetuid|os.ModeSticky))
	require.NoError(t, os.Link(filepath.Join(dir, "f"), filepath.Join(dir, "g")))
	f := openFiles(t, dir, FilesOptions{}, nil)
	require.Len(t, f.TOC.Entries, 3)
	file, link, sym := f.TOC.Entries[0], f.TOC.Entries[1], f.TOC.Entries[2]
	assert.Equal(t, layer.Entry{Name: "f", Type: tar.TypeReg, Mode: 0o5751, Size: 4, ModTime: file.ModTime}, file)
	assert.True(t, at.Equal(file.ModTime))
	assert.Equal(t, "f", link.Link)
	assert.EqualValues(t, tar.TypeLink, link.Type)
	assert.EqualValues(t, tar.TypeSymlink, sym.Type)
	assert.Equal(t, "f", sym.Link)
	assert.EqualValues(t, 4, f.TOC.Size)
}

func TestFilesAreIdentifiedByWhatStatSays(t *testing.T) {
	dir := plant(t, map[string]string{"f": "text"})
	at := time.Unix(1_600_000_000, 0)
	require.NoError(t, os.Chtimes(filepath.Join(dir, "f"), at, at))
	first := openFiles(t, dir, FilesOptions{}, nil).TOC.DiffID
	assert.Equal(t, first, openFiles(t, dir, FilesOptions{}, nil).TOC.DiffID)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), []byte("TEXT"), 0o644))
	require.NoError(t, os.Chtimes(filepath.Join(dir, "f"), at, at))
	assert.NotEqual(t, first, openFiles(t, dir, FilesOptions{}, nil).TOC.DiffID, "the same size and mtime")
}

func TestAFileThatChangedIsNotRead(t *testing.T) {
	dir := plant(t, map[string]string{"f": "text", "g": "text"})
	f := openFiles(t, dir, FilesOptions{}, nil)
	read := func(i int) (string, error) {
		r, err := f.Source().OpenEntry(&f.TOC.Entries[i])
		if err != nil {
			return "", err
		}
		text, err := io.ReadAll(r)
		return string(text), errors.Join(err, r.Close())
	}
	text, err := read(0)
	require.NoError(t, err)
	assert.Equal(t, "text", text)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "f"), []byte("longer"), 0o644))
	_, err = read(0)
	require.ErrorIs(t, err, layer.ErrChanged)
	require.NoError(t, os.Remove(filepath.Join(dir, "g")))
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(dir, "g")))
	_, err = read(1)
	require.Error(t, err, "a link out of the directory is not followed")
}

func TestSumsAreRemembered(t *testing.T) {
	dir := plant(t, map[string]string{"f": "text"})
	at := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(filepath.Join(dir, "f"), at, at))
	sums := LoadSums(nil)
	f := openFiles(t, dir, FilesOptions{}, sums)
	entry := &f.TOC.Entries[0]
	first, ok := f.Source().Sum(entry)
	require.True(t, ok)
	require.NoError(t, os.Chtimes(filepath.Join(dir, "f"), at, at)) // a new ctime: nothing is remembered of the old
	again := openFiles(t, dir, FilesOptions{}, sums)
	second, ok := again.Source().Sum(&again.TOC.Entries[0])
	require.True(t, ok)
	assert.Equal(t, first, second)
	_, ok = openFiles(t, dir, FilesOptions{}, nil).Source().Sum(entry)
	assert.False(t, ok, "without sums none is known")
	require.NoError(t, os.Remove(filepath.Join(dir, "f")))
	_, ok = openFiles(t, plant(t, nil), FilesOptions{}, LoadSums(nil)).Source().Sum(entry)
	assert.False(t, ok, "what cannot be read has none")
}

func TestOpenFilesEndsWithItsContext(t *testing.T) {
	root, err := os.OpenRoot(plant(t, map[string]string{"f": ""}))
	require.NoError(t, err)
	defer root.Close()
	stop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	_, err = OpenFiles(ctx, root, FilesOptions{}, nil)
	require.ErrorIs(t, err, stop)
}
