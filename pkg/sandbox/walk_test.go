//go:build linux

package sandbox

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// walkTree makes a rootfs of entries ("d/", "f", "l -> target") beside a canary, and opens it.
func walkTree(t testing.TB, entries []string) (tr *tree, outside string) {
	t.Helper()
	base := t.TempDir()
	root := filepath.Join(base, "root")
	outside = filepath.Join(base, "outside")
	require.NoError(t, os.Mkdir(root, 0o755))
	require.NoError(t, os.Mkdir(outside, 0o755))
	for _, e := range entries {
		name, target, link := strings.Cut(e, " -> ")
		path := filepath.Join(root, name)
		switch {
		case link:
			_ = os.Symlink(target, path) // one that is there stays
		case strings.HasSuffix(name, "/"):
			_ = os.Mkdir(path, 0o755)
		default:
			_ = os.WriteFile(path, nil, 0o644)
		}
	}
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	tr, err = newTree(fd)
	require.NoError(t, err)
	return tr, outside
}

var walkEntries = []string{
	"a/", "a/b/", "a/b/c/", "f", "a/f", "up -> ..", "root -> /", "far -> ../../../../../../..", "abs -> /a/b", "rel -> a/b", "loop -> loop",
	"one -> two", "two -> one", "a/b/back -> ../../a", "a/file -> ../f", "dangling -> /nowhere/at/all", "out -> ../outside", "dots -> ./././a/./b/.", "chain -> abs/back/b",
}

// sameAsKernel compares our walk with openat2(RESOLVE_IN_ROOT), which cannot make what is missing.
func sameAsKernel(t testing.TB, tr *tree, name string) {
	t.Helper()
	var want unix.Stat_t
	kfd, kerr := openat2(tr.fd, cmp.Or(name, "."), &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS})
	if kerr == nil {
		require.NoError(t, unix.Fstat(kfd, &want))
		unix.Close(kfd)
	}
	fd, err := tr.find(name)
	if err != nil {
		if strings.HasSuffix(strings.TrimRight(name, "."), "/") && errors.Is(kerr, unix.ENOTDIR) {
			return
		}
		assert.Error(t, kerr, "%q: %v", name, err)
		return
	}
	defer unix.Close(fd)
	var got unix.Stat_t
	require.NoError(t, unix.Fstat(fd, &got))
	if errors.Is(kerr, unix.ENOTDIR) { // "file/" and "file/.": we do not mind
		return
	}
	require.NoError(t, kerr, name)
	assert.Equal(t, want.Ino, got.Ino, name)
}

func TestWalk(t *testing.T) {
	tr, outside := walkTree(t, walkEntries)
	for _, name := range []string{
		"", "/", ".", "..", "a", "/a/b", "a/../f", "up/a", "root/root/a", "far/a/b", "abs", "rel/c", "loop", "one", "a/b/back/b/c", "a/file",
		"dangling", "out", "dots/c", "chain/c", "absent", "a/absent/x", "f/x", "chain/../../f", "../../../a", "a//b", "a/f", "up/../up/a",
	} {
		sameAsKernel(t, tr, name)
	}
	t.Run("what is missing is made inside", func(t *testing.T) {
		for _, name := range []string{"dangling", "out/x", "new/dir", "far/y", "abs/z", "chain/w"} {
			fd, err := tr.open(name, want{stub: true})
			require.NoError(t, err, name)
			unix.Close(fd)
			sameAsKernel(t, tr, name)
		}
		fd, err := tr.open("new/file", want{file: true, stub: true})
		require.NoError(t, err)
		unix.Close(fd)
		var names []string
		for _, s := range tr.stubs {
			names = append(names, s.name)
		}
		assert.Equal(t, []string{"nowhere", "nowhere/at", "nowhere/at/all", "outside", "outside/x", "new", "new/dir", "y", "a/b/z", "a/b/w", "new/file"}, names)
		es, err := os.ReadDir(outside)
		require.NoError(t, err)
		assert.Empty(t, es)
	})
	for name, w := range map[string]want{"loop/x": {}, "f/x": {}, "f": {}, "a": {file: true}} {
		_, err := tr.open(name, w)
		require.Error(t, err, name)
	}
}

func FuzzWalk(f *testing.F) {
	f.Add(strings.Join(walkEntries, "\n"), "chain/../../f")
	f.Add("a/\na/l -> ../..\nl -> a/l/a", "l/l/a/..")
	f.Add("x -> y\ny -> z\nz -> /x", "x")
	f.Add("d/\nd/e -> .\n", "d/e/e/e/../d/e/new")
	f.Fuzz(func(t *testing.T, entries, name string) {
		if len(entries) > 2000 || len(name) > 500 || strings.ContainsRune(entries+name, 0) {
			return
		}
		var safe []string
		for e := range strings.SplitSeq(entries, "\n") {
			// Only the links are hostile: names are those of an unpacked tree.
			n, _, _ := strings.Cut(e, " -> ")
			if n = strings.TrimSuffix(n, "/"); n != "" && filepath.IsLocal(n) && n != "." {
				safe = append(safe, e)
			}
		}
		tr, outside := walkTree(t, noLinksAbove(safe))
		sameAsKernel(t, tr, name)
		if fd, err := tr.open(name, want{stub: true}); err == nil {
			unix.Close(fd)
			sameAsKernel(t, tr, name)
		}
		es, err := os.ReadDir(outside)
		require.NoError(t, err)
		assert.Empty(t, es, "nothing is made outside")
		up, err := os.ReadDir(filepath.Dir(outside))
		require.NoError(t, err)
		assert.Len(t, up, 2)
		for _, s := range tr.stubs {
			assert.True(t, filepath.IsLocal(s.name), s.name)
		}
	})
}

// noLinksAbove leaves out entries below a link: making those would follow it on the host.
func noLinksAbove(entries []string) []string {
	links := map[string]bool{}
	var out []string
	for _, e := range entries {
		name, _, link := strings.Cut(e, " -> ")
		name = filepath.Clean(name)
		below := false
		for d := filepath.Dir(name); d != "."; d = filepath.Dir(d) {
			below = below || links[d]
		}
		if below || links[name] {
			continue
		}
		if link {
			links[name] = true
		}
		out = append(out, e)
	}
	return out
}
