package fileop_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/fileop"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
)

type data struct{ *bytes.Reader }

func (data) Close() error { return nil }

func view(t *testing.T, entries ...testimage.Entry) *layer.View {
	t.Helper()
	l := testimage.Layer(entries...)
	toc, err := layer.ReadTOC(t.Context(), bytes.NewReader(l.Tar), layer.Limits{})
	require.NoError(t, err)
	v, err := layer.NewView([]layer.Source{{TOC: toc, Open: func() (layer.ReaderAtCloser, error) { return data{bytes.NewReader(l.Tar)}, nil }}})
	require.NoError(t, err)
	return v
}

// members are the lines of a layer.
func members(t *testing.T, u *layer.Upper) (out []string) {
	t.Helper()
	var buf bytes.Buffer
	require.NoError(t, u.WriteTo(t.Context(), &buf))
	r := tar.NewReader(&buf)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		out = append(out, strings.TrimSpace(fmt.Sprintf("%c %o %d:%d %s %s", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Name, h.Linkname)))
	}
}

func TestActionsInOrder(t *testing.T) {
	base := view(t, testimage.Dir("etc"), testimage.File("etc/passwd", "app:x:7:8::/:\n"), testimage.Dir("d"), testimage.File("d/gone", "x"), testimage.Symlink("ln", "d"))
	u := layer.NewUpper(base, time.Unix(1_700_000_000, 0))
	op := graph.File{Actions: []graph.FileAction{
		{Mkdir: &graph.FileMkdir{Path: "/a/b", Mode: 0o750, Parents: true, Owner: &graph.Owner{User: &graph.Account{Name: "app"}}}},
		{Mkfile: &graph.FileMkfile{Path: "/ln/made", Mode: 0o600, Data: []byte("made")}},
		{Symlink: &graph.FileSymlink{Old: "made", New: "/d/link"}},
		{Rm: &graph.FileRm{Path: "/d/go*", Wildcard: true}},
		{Copy: &graph.FileCopy{Input: 0, Src: "/d", Dest: "/copy/", CreateDestPath: true}},
	}}
	require.NoError(t, fileop.Apply(t.Context(), u, op, fileop.Inputs{base}, fileop.Options{}))
	assert.Equal(t, []string{
		"5 750 7:8 a/", "5 750 7:8 a/b/", "5 755 0:0 copy/", "5 755 0:0 copy/d/", "2 777 0:0 copy/d/link made", "0 600 0:0 copy/d/made",
		"5 755 0:0 d/", "0 0 0:0 d/.wh.gone", "2 777 0:0 d/link made", "0 600 0:0 d/made",
	}, members(t, u))
}

func TestNothingLeavesTheRootfs(t *testing.T) {
	base := view(t, testimage.Symlink("up", "/../../../.."), testimage.Symlink("loop", "loop"), testimage.Dir("d"))
	src := view(t, testimage.Dir("s"), testimage.File("s/f", "x"), testimage.Symlink("out", "../../../s"))
	in := fileop.Inputs{base, src}
	copyTo := func(from, to string) error {
		u := layer.NewUpper(base, time.Time{})
		c := graph.FileCopy{Input: 1, Src: from, Dest: to, FollowSymlink: true, DirContents: true, CreateDestPath: true}
		err := fileop.Apply(t.Context(), u, graph.File{Actions: []graph.FileAction{{Copy: &c}}}, in, fileop.Options{})
		if err == nil {
			for _, m := range members(t, u) {
				assert.NotContains(t, m, "..")
			}
		}
		return err
	}
	require.NoError(t, copyTo("/out", "/up/x"))
	require.NoError(t, copyTo("/../../s/f", "/up/../../y"))
	require.Error(t, copyTo("/s", "/loop/x"))
	require.ErrorIs(t, copyTo("/nothing", "/x"), fs.ErrNotExist)
	require.ErrorIs(t, copyTo("/s/f", "/.wh.d"), layer.ErrInvalid, "a name that would delete")
}

func TestHashIsOfWhatIsCopied(t *testing.T) {
	c := graph.FileCopy{Src: "/s", Exclude: []string{"*.log"}}
	sum := func(c graph.FileCopy, entries ...testimage.Entry) string {
		d, err := fileop.Hash(t.Context(), view(t, append([]testimage.Entry{testimage.Dir("s")}, entries...)...), c)
		require.NoError(t, err)
		return d.String()
	}
	one := sum(c, testimage.File("s/a", "1"))
	later := testimage.File("s/a", "1")
	later.Header.ModTime = time.Unix(1, 0)
	assert.Equal(t, one, sum(c, later), "times do not count")
	assert.Equal(t, one, sum(c, testimage.File("s/a", "1"), testimage.File("s/x.log", "excluded"), testimage.File("beside", "x")))
	assert.NotEqual(t, one, sum(c, testimage.File("s/a", "2")))
	assert.NotEqual(t, one, sum(c, testimage.File("s/a", "1").Mode(0o600)))
	assert.NotEqual(t, one, sum(c, testimage.File("s/a", "1").Owner(1, 0)))
	assert.NotEqual(t, one, sum(c, testimage.File("s/b", "1")))
}
