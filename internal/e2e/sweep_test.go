package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/store"
)

// sweepSpec is an image without steps: what is swept is what writes to the disk, not what runs.
const sweepSpec = `version: 1
platforms: [linux/amd64, linux/arm64]
from: scratch
steps:
  - files: [{path: /a, content: "text of ${TARGETARCH}", expand: true}]
  - files: [{path: /b, content: "shared"}]
`

// swept is a command that is killed at its calls.
type swept struct {
	prepare [][]string                     // commands that make the state before it, once
	run     []string                       // $DIR is where the state is
	partial func(t *testing.T, dir string) // what holds when it was killed
	check   func(t *testing.T, dir string) // after the command was run again
}

// diskCalls are the system calls that change a disk, and what makes them count for it. Several calls stand for one, by
// architecture.
var diskCalls = []string{
	"?rename,?renameat,renameat2", "?link,linkat", "?unlink,unlinkat", "?open,openat", "write,pwrite64", "fsync,fdatasync,?syncfs", "flock",
	"?mkdir,mkdirat", "?chmod,?fchmod,fchmodat", "?truncate,ftruncate",
}

// TestD06_sweep kills pull, build, gc, load, copy and save at the n-th call of each kind that changes the disk: what is
// there stays sound, no name is of something that is not whole, and the same command then succeeds. In `make test` n is a
// sample of each doubling; `make sweep` takes every n.
func TestD06_sweep(t *testing.T) {
	strace := tool(t, "strace")
	w := everybody(t)[0]
	registry := ourRegistry(t, w)
	src := w.dir(t, "sweep-src")
	require.NoError(t, os.WriteFile(filepath.Join(src, "rootfs.yaml"), []byte(sweepSpec), 0o644))
	ok(t, w.command(nil, "build", "-q", "-t", registry+"/sweep:1", "--push", src))
	want := digestOf(t, ok(t, w.command(nil, "digest", registry+"/sweep:1")))
	archive := filepath.Join(src, "sweep.tar")
	ok(t, w.command(nil, "save", "-q", "-o", archive, registry+"/sweep:1"))

	in := func(dir string, args ...string) *exec.Cmd {
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "$DIR", dir)
		}
		return w.other([]string{"GOMAXPROCS=1"}, shared.bin, append([]string{"--root", filepath.Join(dir, "store")}, args...)...)
	}
	digestIs := func(name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			require.Equal(t, want, digestOf(t, ok(t, in(dir, "digest", name))))
		}
	}
	name := registry + "/sweep:1"
	for what, s := range map[string]swept{
		"pull":  {run: []string{"copy", "-q", name, "store:pulled:1"}, check: digestIs("store:pulled:1")},
		"build": {run: []string{"build", "-q", "-t", "built:1", src}, check: digestIs("store:built:1")},
		"gc": {
			prepare: [][]string{{"copy", "-q", name, "store:kept:1"}, {"build", "-q", "-t", "gone:1", src}, {"store", "rm", "gone:1"}},
			run:     []string{"store", "gc", "--cache"}, check: digestIs("store:kept:1"),
		},
		"load": {run: []string{"load", "-q", "-i", archive, "store:loaded:1"}, check: digestIs("store:loaded:1")},
		"copy": {
			prepare: [][]string{{"copy", "-q", name, "store:copied:1"}},
			run:     []string{"copy", "-q", "store:copied:1", "oci:$DIR/layout:1"}, check: digestIs("oci:$DIR/layout:1"),
			partial: func(t *testing.T, dir string) { // a name is of something whole
				if do(t, in(dir, "digest", "oci:$DIR/layout:1")).code == 0 {
					ok(t, in(dir, "copy", "-q", "oci:$DIR/layout:1", "oci:$DIR/whole:1"))
				}
			},
		},
		"save": {
			prepare: [][]string{{"copy", "-q", name, "store:saved:1"}},
			run:     []string{"save", "-q", "-o", "$DIR/saved.tar", "store:saved:1"},
			partial: func(t *testing.T, dir string) {
				if _, err := os.Stat(filepath.Join(dir, "saved.tar")); err == nil {
					ok(t, in(dir, "load", "--check", "-i", "$DIR/saved.tar"))
				}
			},
			check: func(t *testing.T, dir string) {
				ok(t, in(dir, "load", "--check", "-i", "$DIR/saved.tar"))
				require.NoFileExists(t, filepath.Join(dir, "saved.tar.partial"))
			},
		},
	} {
		t.Run(what, func(t *testing.T) {
			template := w.dir(t, "sweep-"+what)
			for _, args := range s.prepare {
				ok(t, in(template, args...))
			}
			total := 0
			for _, calls := range diskCalls {
				total += sweep(t, w, strace, template, calls, s, in)
			}
			t.Logf("killed %d times", total)
			require.Greater(t, total, 8, "hardly anything was hit")
		})
	}
}

// sweep kills one command at calls of one kind, and returns how often.
func sweep(t *testing.T, w who, strace, template, calls string, s swept, in func(string, ...string) *exec.Cmd) (hits int) {
	t.Helper()
	all := os.Getenv("MANIFESTCTL_SOAK") != ""
	for from := 1; from <= 4096; {
		n := from
		if all {
			from++
		} else {
			n, from = from+rand.IntN(from), 2*from
		}
		dir := template + "-run"
		must(t, exec.Command("rm", "-rf", dir))
		must(t, exec.Command("cp", "-a", template, dir))
		plain := in(dir, append([]string(nil), s.run...)...)
		killed := w.other([]string{"GOMAXPROCS=1"}, strace, append([]string{
			"-f", "-qq", "-o", os.DevNull, "-e", "trace=" + calls, "-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", calls, n), plain.Path,
		}, plain.Args[1:]...)...)
		r := do(t, killed)
		if strings.Contains(r.stderr, "Operation not permitted") || strings.Contains(r.stderr, "ptrace") {
			lacks(t, "strace cannot trace here: %s", r.stderr)
		}
		if r.code == 0 {
			return hits // fewer calls than n
		}
		hits++
		at := fmt.Sprintf("killed at call %d of %s", n, calls)
		sound(t, filepath.Join(dir, "store"), at)
		if s.partial != nil {
			s.partial(t, dir)
		}
		again := do(t, plain)
		require.Zero(t, again.code, "%s, the same again: %s", at, again.stderr)
		s.check(t, dir)
		sound(t, filepath.Join(dir, "store"), at+", and run again")
	}
	return hits
}

// sound is `store check --read-data`, and names of what is whole: nothing wrong but what a killed process leaves, which gc
// removes.
func sound(t *testing.T, root, at string) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(root, "blobs")); err != nil {
		return // it was killed before there was a store
	}
	st, err := store.Open(context.Background(), root, store.Options{})
	require.NoError(t, err, at)
	defer st.Close()
	found, err := st.Check(context.Background(), store.CheckOptions{ReadData: true})
	require.NoError(t, err, at)
	for _, f := range found {
		require.True(t, f.Harmless, "%s: %s", at, f)
	}
}
