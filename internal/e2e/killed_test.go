package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// soaked is short, or long with MANIFESTCTL_SOAK.
func soaked[T any](short, long T) T {
	if os.Getenv("MANIFESTCTL_SOAK") != "" {
		return long
	}
	return short
}

// everyStep are steps of every kind, for both platforms: processes, files of the context, a cache mount, a removal.
const everyStep = `  - run: echo one > /one
  - files: [{path: /app, source: app}, {path: /conf, content: "x=${TARGETARCH}", expand: true}]
  - run: cat /app > /copied && touch /two
    mounts: [{type: cache, target: /var/cache/x}]
  - remove: [/one]
  - run: cat /conf > /three && chown 7:7 /three
`

// TestKilledAnywhere kills builds that push and write an archive at any moment: the store is sound, the tag is not there or whole, the
// archive is not there or whole, and the same build then gives the digest of one that was never killed. `make soak` is 150 rounds.
func TestKilledAnywhere(t *testing.T) {
	w := everybody(t)[0]
	registry := ourRegistry(t, w)
	src := busybox(t, w, "anywhere", everyStep)
	require.NoError(t, os.WriteFile(filepath.Join(src, "app"), bytes.Repeat([]byte("some text of an application\n"), 40_000), 0o644))
	w.own(t, src)
	build := func(dir, tag string) *exec.Cmd {
		return w.other([]string{"SOURCE_DATE_EPOCH=0"}, shared.bin, "--root", filepath.Join(dir, "store"), "build", "-q",
			"-o", "type=registry,rewrite-timestamp=true,name="+registry+"/"+tag, "-o", "type=oci,rewrite-timestamp=true,dest="+filepath.Join(dir, "out.tar"), src)
	}
	first := w.dir(t, "anywhere-0")
	start := time.Now()
	want := digestOf(t, ok(t, build(first, "whole:1")))
	whole, err := os.ReadFile(filepath.Join(first, "out.tar"))
	require.NoError(t, err)
	took := time.Since(start)
	kills := 0
	for round := 0; round < soaked(4, 150) || kills == 0 && round < 30; round++ { // all may have ended before: the first took longest
		dir := w.dir(t, fmt.Sprintf("anywhere-%d", round+1))
		tag := fmt.Sprintf("killed%d:1", round)
		for range 3 { // what one leaves, the next meets
			c := build(dir, tag)
			require.NoError(t, c.Start())
			after := rand.N(took)
			timer := time.AfterFunc(after, func() { _ = c.Process.Signal(syscall.SIGKILL) })
			err := c.Wait()
			timer.Stop()
			if err != nil {
				kills++
			}
			at := fmt.Sprintf("killed after %v of %v", after, took)
			sound(t, filepath.Join(dir, "store"), at)
			if r := do(t, w.command(nil, "digest", registry+"/"+tag)); r.code == 0 {
				require.Equal(t, want, digestOf(t, r), at)
				ok(t, w.command(nil, "copy", "-q", registry+"/"+tag, "oci:"+filepath.Join(dir, "read:1")))
			}
			if got, err := os.ReadFile(filepath.Join(dir, "out.tar")); err == nil {
				require.True(t, bytes.Equal(whole[:1024], got[:1024]) && len(whole) == len(got), at)
			}
		}
		require.Equal(t, want, digestOf(t, ok(t, build(dir, tag))), "the same build after kills")
		require.Equal(t, want, digestOf(t, ok(t, w.command(nil, "digest", registry+"/"+tag))))
		sound(t, filepath.Join(dir, "store"), "after the last build")
		require.NoError(t, os.RemoveAll(dir))
	}
	t.Logf("killed %d times", kills)
	require.Positive(t, kills)
}

// TestCollectionsBesideBuilds: builds of changing files run beside collections, prunings of the cache and a small --keep-storage, and
// none loses what it uses. `make soak` is ten minutes.
func TestCollectionsBesideBuilds(t *testing.T) {
	w := everybody(t)[0]
	src := busybox(t, w, "collected", "")
	spec, err := os.ReadFile(filepath.Join(src, "rootfs.yaml"))
	require.NoError(t, err)
	until := time.Now().Add(soaked(6*time.Second, 10*time.Minute))
	var all sync.WaitGroup
	var mu sync.Mutex
	runs := map[string]int{}
	loop := func(what string, command func(i int) *exec.Cmd) {
		all.Go(func() {
			for i := 0; time.Now().Before(until) && !t.Failed(); i++ {
				c := command(i)
				if out, err := c.CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", strings.Join(c.Args, " "), err, out)
				}
				mu.Lock()
				runs[what]++
				mu.Unlock()
			}
		})
	}
	for b := range 3 {
		dir := w.dir(t, fmt.Sprintf("collected-%d", b))
		loop("builds", func(i int) *exec.Cmd {
			text := string(spec) + fmt.Sprintf("  - run: echo %d > /run\n  - files: [{path: /f, content: \"%d of %d\"}]\n  - run: cat /f > /g\n", i%4, i%3, b%2)
			if err := os.WriteFile(filepath.Join(dir, "rootfs.yaml"), []byte(text), 0o644); err != nil {
				t.Error(err)
			}
			for _, arch := range []string{"amd64", "arm64"} {
				_ = os.Link(filepath.Join(src, arch+".tar"), filepath.Join(dir, arch+".tar"))
			}
			args := []string{"build", "-q", "-t", fmt.Sprintf("collected:%d", b), "-o", "type=image", "-o", "type=oci,dest=" + filepath.Join(dir, "out.tar")}
			if i%3 == 0 {
				args = append(args, "--keep-storage", "1MB")
			}
			return w.command(nil, append(args, dir)...)
		})
		loop("reads", func(i int) *exec.Cmd {
			if i == 0 || do(t, w.command(nil, "digest", fmt.Sprintf("store:collected:%d", b))).code != 0 {
				time.Sleep(20 * time.Millisecond)
				return w.command(nil, "version")
			}
			return w.command(nil, "save", "-q", "-o", filepath.Join(w.home, fmt.Sprintf("collected-%d.tar", b)), fmt.Sprintf("store:collected:%d", b))
		})
	}
	loop("collections", func(i int) *exec.Cmd {
		time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
		switch i % 3 {
		case 0:
			return w.command(nil, "cache", "prune")
		case 1:
			return w.command(nil, "store", "gc", "--cache")
		}
		return w.command(nil, "store", "gc")
	})
	all.Wait()
	t.Logf("%v", runs)
	assert.Positive(t, runs["builds"])
	assert.Positive(t, runs["collections"])
	sound(t, filepath.Join(w.home, "store"), "after all")
	for b := range 3 {
		ok(t, w.command(nil, "copy", "-q", fmt.Sprintf("store:collected:%d", b), "oci:"+filepath.Join(w.home, fmt.Sprintf("last%d:1", b))))
	}
}
