//go:build linux

package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// fill makes files below dir: "name/" is a directory, "name -> target" a symlink, "name=content" a file. All are of some time ago.
func fill(t testing.TB, dir string, entries ...string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for _, e := range entries {
		name, content, isFile := strings.Cut(e, "=")
		switch link, target, isLink := strings.Cut(e, " -> "); {
		case isLink:
			require.NoError(t, os.Symlink(target, filepath.Join(dir, link)))
		case isFile:
			require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o640))
		default:
			require.NoError(t, os.MkdirAll(filepath.Join(dir, e), 0o755))
		}
	}
	age(t, dir)
}

func age(t testing.TB, dir string) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type() == fs.ModeSymlink {
			return err
		}
		return os.Chtimes(path, time.Unix(1000, 0), time.Unix(1000, 5))
	}))
}

// listing is all that is below dir, with modes, times and contents, but for the directory of a swap.
func listing(t testing.TB, dir string) []string {
	t.Helper()
	var out []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Name() == swapDir {
			return fs.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		line := fmt.Sprint(rel, " ", info.Mode())
		switch d.Type() {
		case fs.ModeSymlink:
			target, _ := os.Readlink(path)
			line += " " + target
		case 0:
			b, _ := os.ReadFile(path)
			line += " " + string(b)
		}
		if d.Type() != fs.ModeSymlink {
			line += fmt.Sprint(" ", info.ModTime().UnixNano())
		}
		out = append(out, line)
		return nil
	}))
	return out
}

// someRoot is a root with what stays and what goes, and a tree for it.
func someRoot(t testing.TB) (w *rootSwap, tree string) {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	fill(t, root, "bin/tool=own", "bin/link -> tool", "etc/hosts=mounted", "etc/passwd=own", "etc/deep/own=x", "root/.share/store/blob=b", "root/.profile=own",
		"home/u/f=own", "top=own", "tmp/", "lib -> usr/lib")
	require.NoError(t, os.Chmod(filepath.Join(root, "root"), 0o700))
	require.NoError(t, os.Chmod(filepath.Join(root, "tmp"), fs.ModeSticky|0o777))
	age(t, root)
	w = &rootSwap{root: root, keep: []string{"/etc/hosts", "/root/.share/store"}}
	_, err := w.claim()
	require.NoError(t, err)
	age(t, root)
	tree = filepath.Join(w.path(swapTrees), "t")
	fill(t, tree, "usr/bin/sh=step", "bin -> usr/bin", "etc/passwd=step", "etc/hosts=", "top/x=step", "var/lib/y=step")
	return w, tree
}

// TestRootSwap: a step's tree takes the place of all that does not have to stay, and what the step made of it is the tree afterwards.
func TestRootSwap(t *testing.T) {
	w, tree := someRoot(t)
	in := func(name string) string { return filepath.Join(w.root, name) }
	before, was := listing(t, w.root), listing(t, tree)
	require.NoError(t, w.enter(tree))
	got := listing(t, w.root)
	assert.Contains(t, strings.Join(got, "\n"), "etc/hosts -rw-r----- mounted")
	assert.Contains(t, strings.Join(got, "\n"), "root/.share/store/blob -rw-r----- b")
	for _, line := range got {
		assert.NotContains(t, line, " own ")
	}
	assert.Contains(t, strings.Join(got, "\n"), "usr/bin/sh -rw-r----- step 1000")
	require.NoError(t, w.leave(tree))
	assert.Equal(t, before, listing(t, w.root))
	assert.Equal(t, was, listing(t, tree), "nothing changed")

	require.NoError(t, w.enter(tree))
	require.NoError(t, os.WriteFile(in("new"), []byte("n"), 0o600))
	require.NoError(t, os.WriteFile(in("etc/new"), []byte("n"), 0o600))
	require.NoError(t, os.Remove(in("etc/passwd")))
	require.NoError(t, os.RemoveAll(in("top")))
	require.NoError(t, os.Chmod(in("etc"), 0o711))
	require.NoError(t, os.WriteFile(in("root/.bashrc"), []byte("n"), 0o600))
	require.NoError(t, w.leave(tree))
	assert.Equal(t, before, listing(t, w.root))
	names := strings.Join(listing(t, tree), "\n")
	for _, want := range []string{"new -rw------- n", "etc/new -rw------- n", "etc drwx--x--x", "etc/hosts -rw-r-----  ", "root/.bashrc -rw------- n"} {
		assert.Contains(t, names, want)
	}
	for _, no := range []string{"etc/passwd", "top", "store", "mounted"} {
		assert.NotContains(t, names, no)
	}
	require.NoError(t, w.end())
	_, err := os.Lstat(w.path(""))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// TestRootSwapRefuses: a tree that has something where a name stays is refused, by that name, before anything is moved.
func TestRootSwapRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ entry, says string }{
		"a link in the way": {"root -> /elsewhere", "/root is no directory in the image"},
		"a file in the way": {"root=x", "/root is no directory in the image"},
		"files below":       {"root/.share/store/x=y", "the image has something at /root/.share/store"},
	} {
		t.Run(name, func(t *testing.T) {
			w, tree := someRoot(t)
			before := listing(t, w.root)
			fill(t, tree, tc.entry)
			err := w.enter(tree)
			require.ErrorIs(t, err, ErrRootfs)
			assert.Contains(t, err.Error(), tc.says)
			require.NoError(t, w.leave(tree))
			assert.Equal(t, before, listing(t, w.root))
		})
	}
	w, tree := someRoot(t)
	fill(t, tree, "root/.share/store/")
	require.NoError(t, w.enter(tree), "an empty directory is only what is mounted on")
	require.NoError(t, w.leave(tree))
}

// TestRootSwapOnce: a root is one build's at a time.
func TestRootSwapOnce(t *testing.T) {
	w, _ := someRoot(t)
	_, err := (&rootSwap{root: w.root}).claim()
	require.ErrorIs(t, err, ErrHost)
	require.ErrorIs(t, err, unix.EWOULDBLOCK)
	require.NoError(t, w.end())
	again := &rootSwap{root: w.root}
	restored, err := again.claim()
	require.NoError(t, err)
	assert.False(t, restored)
	require.NoError(t, again.end())
}

const swapHelperEnv = "SWAP_HELPER"

// TestSwapHelper is a process that lends a root to a step and is killed before its nth change.
func TestSwapHelper(t *testing.T) {
	text := os.Getenv(swapHelperEnv)
	if text == "" {
		t.Skip("part of TestRootSwapKilled")
	}
	root, rest, _ := strings.Cut(text, "|")
	n, err := strconv.Atoi(rest)
	require.NoError(t, err)
	betweenMoves = func() {
		if n--; n == 0 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	}
	w := &rootSwap{root: root, keep: []string{"/etc/hosts", "/root/.share/store"}}
	tree := filepath.Join(w.path(swapTrees), "t")
	require.NoError(t, w.enter(tree))
	require.NoError(t, os.WriteFile(filepath.Join(root, "made"), []byte("step"), 0o600))
	require.NoError(t, w.leave(tree))
}

// TestRootSwapKilled kills the process before every single change, and whoever comes next gives the root back.
func TestRootSwapKilled(t *testing.T) {
	killed := 0
	for n := 1; ; n++ {
		w, _ := someRoot(t)
		before := listing(t, w.root)
		unix.Close(w.lock)
		cmd := exec.Command(os.Args[0], "-test.run=^TestSwapHelper$")
		cmd.Env = append(os.Environ(), swapHelperEnv+"="+w.root+"|"+strconv.Itoa(n))
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || !exit.Sys().(syscall.WaitStatus).Signaled()) {
			require.NoError(t, err, "%s", out)
		}
		next := &rootSwap{root: w.root, keep: w.keep}
		_, claimErr := next.claim()
		require.NoError(t, claimErr, "killed before change %d", n)
		now := listing(t, w.root)
		assert.Equal(t, withoutTimes(before), withoutTimes(now), "killed before change %d", n)
		require.NoError(t, next.end())
		if err == nil {
			assert.Equal(t, before, now)
			break
		}
		killed++
	}
	assert.Greater(t, killed, 30)
}

// withoutTimes leaves out the times, of which those of directories that stay may be new after a kill.
func withoutTimes(lines []string) []string {
	out := make([]string, 0, len(lines))
	for _, l := range lines {
		if i := strings.LastIndexByte(l, ' '); i >= 0 && !strings.Contains(l, "L") {
			l = l[:i]
		}
		out = append(out, l)
	}
	return out
}

// TestMoveEntry moves everything there is between file systems, and begins again where it was interrupted.
func TestMoveEntry(t *testing.T) {
	other, err := os.MkdirTemp("/dev/shm", "manifestctl-move")
	if err != nil {
		t.Skip("no other file system")
	}
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(other)) })
	dir := t.TempDir()
	fill(t, dir, "d/sub/f=content", "d/sub/ln -> f", "d/ro/f=x", "d/partly/a=1", "d/partly/b=2")
	require.NoError(t, unix.Mkfifo(filepath.Join(dir, "d/p"), 0o600))
	require.NoError(t, os.Chmod(filepath.Join(dir, "d/ro"), 0o555))
	age(t, dir)
	want := listing(t, filepath.Join(dir, "d"))
	fill(t, other, "d/partly/")
	require.NoError(t, os.Rename(filepath.Join(dir, "d/partly/a"), filepath.Join(dir, "a")))
	from, err := readDir(dir)
	require.NoError(t, err)
	defer unix.Close(from)
	require.NoError(t, moveIn(filepath.Join(dir, "a"), mustDir(t, other+"/d/partly"), "a"))
	age(t, dir)
	require.NoError(t, moveEntry(from, "d", mustDir(t, other)))
	assert.Equal(t, want, listing(t, filepath.Join(other, "d")))
	_, err = os.Lstat(filepath.Join(dir, "d"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, moveOut(mustDir(t, other), "d", filepath.Join(dir, "back")))
	assert.Equal(t, want, listing(t, filepath.Join(dir, "back")))
	require.NoError(t, os.Chmod(filepath.Join(dir, "back/ro"), 0o755)) // to be removed by whoever this is
}

func mustDir(t testing.TB, name string) int {
	t.Helper()
	fd, err := readDir(name)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}
