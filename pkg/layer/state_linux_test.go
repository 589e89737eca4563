package layer

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestState: the layer of a tree that was changed in place has all changes, those too that leave mode, owner, size and
// mtime as they were, and nothing else.
func TestState(t *testing.T) {
	u := upper{t, filepath.Join(t.TempDir(), "tree")}
	require.NoError(t, os.Mkdir(u.dir, 0o755))
	for _, name := range []string{
		"same", "content", "put-back", "mode", "attr", "there-and-back", "gone", "dir/gone", "dir/kept", "renamed/deep/x",
		"file-to-dir", "dir-to-file/x", "linked", "whole/old", "time",
	} {
		u.file(name, "12345", 0o644)
		u.times(name, 100, 0)
	}
	require.NoError(t, os.Link(u.path("same"), u.path("same2")))
	require.NoError(t, os.Link(u.path("dir/kept"), u.path("kept2")))
	require.NoError(t, os.Symlink("same", u.path("link")))
	require.NoError(t, os.Symlink("same", u.path("link2")))
	for _, d := range []string{"dir", "renamed/deep", "renamed", "whole"} {
		u.times(d, 100, 0)
	}
	base := map[string]string{}
	for _, name := range []string{"there-and-back", "put-back", "linked"} {
		base[name] = "12345"
	}
	before, err := ReadState(context.Background(), u.dir, OwnIDs)
	require.NoError(t, err)
	var st unix.Stat_t
	require.NoError(t, unix.Lstat(u.path("same"), &st))
	assert.Equal(t, uint64(1), uint64(st.Nlink), "names are parted")
	require.NoError(t, unix.Lstat(u.path("dir"), &st))
	assert.Equal(t, int64(100), int64(st.Mtim.Sec), "and directories keep their time")

	var asked []string
	diff := func(o DiffOptions) []string {
		o.Ownership, o.Before = OwnIDs, before
		o.Content = func(name string) (io.ReadCloser, error) {
			asked = append(asked, name)
			return io.NopCloser(strings.NewReader(base[name])), nil
		}
		var b bytes.Buffer
		require.NoError(t, Diff(context.Background(), u.dir, &b, o))
		var names []string
		for _, e := range readTOC(t, b.Bytes()).Entries {
			name := e.Name
			if e.Whiteout {
				name = "-" + name
			}
			names = append(names, name)
		}
		return names
	}
	assert.Empty(t, diff(DiffOptions{}))
	assert.Empty(t, asked)

	u.file("content", "123456", 0o644)
	u.file("put-back", "54321", 0o644)
	u.times("put-back", 100, 0)
	require.NoError(t, os.Chmod(u.path("mode"), 0o600))
	u.xattr("attr", "user.x", "1")
	require.NoError(t, os.Chmod(u.path("there-and-back"), 0o600))
	require.NoError(t, os.Chmod(u.path("there-and-back"), 0o644))
	require.NoError(t, os.Remove(u.path("gone")))
	require.NoError(t, os.Remove(u.path("dir/gone")))
	require.NoError(t, os.Rename(u.path("renamed"), u.path("to")))
	require.NoError(t, os.Remove(u.path("file-to-dir")))
	u.file("file-to-dir/y", "", 0o644)
	require.NoError(t, os.RemoveAll(u.path("dir-to-file")))
	u.file("dir-to-file", "", 0o644)
	require.NoError(t, os.Link(u.path("linked"), u.path("linked-new")))
	require.NoError(t, os.RemoveAll(u.path("whole")))
	u.file("whole/new", "", 0o644)
	u.times("time", 200, 0)
	require.NoError(t, os.Remove(u.path("link2")))
	require.NoError(t, os.Symlink("other", u.path("link2")))
	u.file("new", "", 0o644)
	f, err := os.OpenFile(u.path("kept2"), os.O_APPEND|os.O_WRONLY, 0) // through one of two names
	require.NoError(t, err)
	_, err = f.WriteString("x")
	require.NoError(t, err)
	require.NoError(t, f.Close())
	assert.Equal(t, []string{
		"attr", "content", "dir", "-dir/gone", "dir-to-file", "file-to-dir", "file-to-dir/y", "-gone", "kept2", "link2",
		"linked-new", "mode", "new", "put-back", "-renamed", "time", "to", "to/deep", "to/deep/x", "whole", "whole/new", "-whole/old",
	}, diff(DiffOptions{}))
	assert.Equal(t, []string{"linked", "put-back", "there-and-back"}, asked, "bytes are compared only where nothing else tells")
}

// TestStateCoarse: a change right after the state was read is seen, whatever the kernel's clock; a file of the future
// counts as touched.
func TestStateCoarse(t *testing.T) {
	u := upper{t, filepath.Join(t.TempDir(), "tree")}
	require.NoError(t, os.Mkdir(u.dir, 0o755))
	u.file("f", "1", 0o644)
	s, err := ReadState(context.Background(), u.dir, OwnIDs)
	require.NoError(t, err)
	var st unix.Stat_t
	require.NoError(t, unix.Lstat(u.path("f"), &st))
	assert.True(t, s.untouched("f", &st))
	require.NoError(t, os.Chmod(u.path("f"), 0o644))
	require.NoError(t, unix.Lstat(u.path("f"), &st))
	assert.False(t, s.untouched("f", &st))
	s.files["f"] = fileState{st: st}
	s.read = time.Unix(1, 0)
	assert.False(t, s.untouched("f", &st))
}
