package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
)

// noisy writes a layout with an image of that many bytes, which no compression makes smaller, in several layers for each of
// two platforms.
func noisy(t *testing.T, w who, name string, size int) string {
	t.Helper()
	dir := w.dir(t, name)
	r := rand.NewChaCha8([32]byte{1})
	var images []testimage.Content
	for _, platform := range []string{"linux/amd64", "linux/arm64"} {
		var layers []testimage.LayerData
		for i := range 4 {
			data := make([]byte, size/8)
			_, _ = r.Read(data) // never fails
			layers = append(layers, testimage.Layer(testimage.File(fmt.Sprint(i), string(data))))
		}
		images = append(images, testimage.Image(platform, layers...))
	}
	testimage.WriteLayout(t, dir, map[string]testimage.Content{"1": testimage.Index(images...)})
	w.own(t, dir)
	return dir
}

// mounting runs a shell script where it may mount: as root of a user namespace of its own.
func mounting(t *testing.T, w who, env []string, script string) result {
	t.Helper()
	probe := do(t, w.other(nil, tool(t, "unshare"), "-rm", "sh", "-c", "mount -t tmpfs t /mnt"))
	if probe.code != 0 {
		lacks(t, "this machine gives no user namespace with mounts: %s", probe.stderr)
	}
	return do(t, w.other(env, tool(t, "unshare"), "-rm", "sh", "-ec", script))
}

// TestD01_G13_noSpace: wherever the space ends, load, copy and save say so, leave nothing wrong, and succeed when there is room.
func TestD01_G13_noSpace(t *testing.T) {
	w := everybody(t)[0]
	src := noisy(t, w, "space", 2<<20)
	archive := filepath.Join(src, "a.tar")
	ok(t, w.command(nil, "save", "-q", "-o", archive, "oci:"+src+":1"))
	at := w.dir(t, "space-at")
	for what, c := range map[string]struct{ run, check string }{
		"load into the store": {"load -q -i " + archive + " store:loaded:1", "digest store:loaded:1"},
		"copy to a layout":    {"copy -q oci:" + src + ":1 oci:" + at + "/layout:1", "copy -q oci:" + at + "/layout:1 store:back:1"},
		"save":                {"save -q -o " + at + "/saved.tar oci:" + src + ":1", "load --check -i " + at + "/saved.tar"},
	} {
		t.Run(what, func(t *testing.T) {
			short := 0
			for _, kilobytes := range []int{64, 300, 700, 1100, 1500, 1900, 2030, 2100} {
				r := mounting(t, w, []string{"M=" + shared.bin, "AT=" + at}, fmt.Sprintf(`
mount -t tmpfs -o size=%dk t "$AT"
m() { "$M" --root "$AT/store" "$@"; }
code=0
m %s || code=$?
echo "code $code"
mount -t tmpfs -o remount,size=64m t "$AT"
if [ -e "$AT/store/blobs" ]; then m store gc >&2; m store check --read-data >&2; fi
m %s
m %s`, kilobytes, c.run, c.run, c.check))
				require.Zero(t, r.code, "%d KB: %s", kilobytes, r.stderr)
				if strings.Contains(r.stdout, "code 8") {
					short++
					assert.Contains(t, r.stderr, "no space")
				} else {
					assert.Contains(t, r.stdout, "code 0", r.stderr)
				}
			}
			assert.Greater(t, short, 4)
		})
	}
}

// TestD03_readOnlyStore: what writes to a store that is read-only fails before any registry is asked; what reads it works.
func TestD03_readOnlyStore(t *testing.T) {
	w := everybody(t)[0]
	src := noisy(t, w, "ro", 1<<16)
	at := w.dir(t, "ro-at")
	r := mounting(t, w, []string{"M=" + shared.bin, "AT=" + at}, `
mount -t tmpfs t "$AT"
m() { "$M" --root "$AT/store" "$@"; }
m copy -q oci:`+src+`:1 store:a:1
mount -t tmpfs -o remount,ro t "$AT"
code=0; m copy -q 127.0.0.1:1/none:1 store:b:1 || code=$?
echo "code $code"
code=0; m load -q -i /dev/null store:b:1 || code=$?
echo "code $code"
m copy -q store:a:1 oci:`+w.home+`/ro-out:1
m store ls
m store check --read-data`)
	require.Zero(t, r.code, r.stderr)
	assert.Contains(t, r.stderr, "read-only")
	assert.NotContains(t, r.stderr, "connection refused")
	assert.NotContains(t, r.stdout, "code 0")
}

// TestD10_gcBesideTransfers: collections beside pulls and saves take nothing that these use.
func TestD10_gcBesideTransfers(t *testing.T) {
	w := everybody(t)[0]
	src := noisy(t, w, "beside", 1<<18)
	ok(t, w.command(nil, "copy", "-q", "oci:"+src+":1", "store:beside:kept"))
	var all sync.WaitGroup
	failed := make(chan string, 100)
	loop := func(n int, args func(i int) []string) {
		all.Go(func() {
			for i := range n {
				var errs bytes.Buffer
				c := w.command(nil, args(i)...)
				c.Stderr = &errs
				if err := c.Run(); err != nil {
					failed <- fmt.Sprintf("%v: %v: %s", args(i), err, errs.String())
				}
			}
		})
	}
	loop(12, func(i int) []string {
		return []string{"copy", "-q", "oci:" + src + ":1", fmt.Sprintf("store:beside:%d", i)}
	})
	loop(12, func(i int) []string {
		return []string{"save", "-q", "-o", filepath.Join(src, "beside.tar"), "store:beside:kept"}
	})
	loop(25, func(int) []string { return []string{"store", "gc"} })
	all.Wait()
	close(failed)
	for f := range failed {
		t.Error(f)
	}
	sound(t, filepath.Join(w.home, "store"), "after all")
	ok(t, w.command(nil, "load", "--check", "-i", filepath.Join(src, "beside.tar")))
}

// TestD14_environments: no HOME, no runtime directory, no directory for temporary files: copies, saves and loads need none.
func TestD14_environments(t *testing.T) {
	w := everybody(t)[0]
	src := noisy(t, w, "bare", 1<<16)
	root := w.dir(t, "bare-root")
	for what, env := range map[string][]string{
		"nothing":              {},
		"TMPDIR is no place":   {"TMPDIR=/nonexistent", "HOME=/nonexistent"},
		"HOME is read-only":    {"HOME=/proc", "TMPDIR=/proc"},
		"XDG is somewhere odd": {"XDG_RUNTIME_DIR=/nonexistent", "XDG_DATA_HOME=relative", "XDG_CONFIG_HOME=/nonexistent"},
	} {
		t.Run(what, func(t *testing.T) {
			m := func(args ...string) *exec.Cmd {
				c := exec.Command(shared.bin, append([]string{"--root", filepath.Join(root, "store")}, args...)...)
				c.Env, c.Dir = append([]string{"PATH=/usr/bin:/bin"}, env...), w.home
				if w.cred != nil {
					c.SysProcAttr = &syscall.SysProcAttr{Credential: w.cred}
				}
				return c
			}
			ok(t, m("copy", "-q", "oci:"+src+":1", "store:bare:1"))
			ok(t, m("save", "-q", "-o", filepath.Join(root, "bare.tar"), "store:bare:1"))
			ok(t, m("load", "-q", "-i", filepath.Join(root, "bare.tar"), "store:bare:2"))
			ok(t, m("store", "gc"))
		})
	}
	t.Run("a compressed archive says that it needs room", func(t *testing.T) {
		packed := filepath.Join(root, "bare.tar.gz")
		must(t, exec.Command("sh", "-c", "gzip -c "+filepath.Join(root, "bare.tar")+" >"+packed))
		r := do(t, w.other([]string{"TMPDIR=/nonexistent"}, shared.bin, "--root", filepath.Join(root, "store"), "load", "-i", packed, "store:bare:3"))
		assert.NotZero(t, r.code)
		assert.Contains(t, r.stderr, "/nonexistent")
	})
}

// TestD19_pipe: a reader that has seen enough ends a save, without a word of panic and without a half of anything.
func TestD19_pipe(t *testing.T) {
	w := everybody(t)[0]
	src := noisy(t, w, "pipe", 4<<20)
	r := do(t, w.other([]string{"M=" + shared.bin}, "bash", "-c", `set -o pipefail; "$M" save -q -o - oci:`+src+`:1 | head -c 100000 >/dev/null; echo "${PIPESTATUS[0]}"`))
	assert.NotEqual(t, "0", strings.TrimSpace(r.stdout))
	assert.NotContains(t, r.stderr, "goroutine")
	entries, err := os.ReadDir(w.home)
	require.NoError(t, err)
	for _, e := range entries {
		assert.NotContains(t, e.Name(), "partial")
	}
}

const measureEnv = "MANIFESTCTL_E2E_MEASURE"

// init makes this program one that runs another and prints its peak of memory in KB: what a process is started from counts
// for it, too, and the tests are large.
func init() {
	if os.Getenv(measureEnv) == "" {
		return
	}
	c := exec.Command(os.Args[1], os.Args[2:]...)
	c.Stderr = os.Stderr
	if err := c.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	usage, _ := c.ProcessState.SysUsage().(*syscall.Rusage)
	fmt.Println(usage.Maxrss)
	os.Exit(0)
}

// peakMemory runs a command, which must end well, and returns its peak of memory in KB.
func peakMemory(t *testing.T, c *exec.Cmd) int64 {
	t.Helper()
	c.Args = append([]string{os.Args[0], c.Path}, c.Args[1:]...)
	c.Path, c.Env = os.Args[0], append(c.Env, measureEnv+"=1")
	peak, err := strconv.ParseInt(strings.TrimSpace(ok(t, c).stdout), 10, 64)
	require.NoError(t, err)
	return peak
}

// TestD20_memory: every way of a large image streams: the peak of memory does not depend on its size.
func TestD20_memory(t *testing.T) {
	w := everybody(t)[0]
	src := noisy(t, w, "memory", 96<<20)
	registry := ourRegistry(t, w)
	archive := filepath.Join(src, "memory.tar")
	for _, step := range [][]string{
		{"copy", "-q", "oci:" + src + ":1", registry + "/memory:1"},
		{"copy", "-q", registry + "/memory:1", "oci:" + w.home + "/memory-layout:1"},
		{"copy", "-q", registry + "/memory:1", "store:memory:1"},
		{"copy", "-q", registry + "/memory:1", "oci-archive:" + w.home + "/memory-archive.tar:1"},
		{"save", "-q", "-o", archive, registry + "/memory:1"},
		{"load", "-q", "-i", archive, registry + "/loaded:1"},
	} {
		peak := peakMemory(t, w.command(nil, step...))
		t.Logf("%-6s %s: %d KB", step[0], strings.ReplaceAll(strings.Join(step[2:], " "), w.home, "~"), peak)
		assert.Less(t, peak, int64(48<<10), "%v", step)
	}
}
