//go:build linux

package sandbox

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testuser"
	"github.com/manifestctl/manifestctl/pkg/emulate"
)

func TestMain(m *testing.M) {
	Main()
	code := m.Run()
	testuser.Cleanup()
	os.Exit(code)
}

// probe is the path of testdata/probe, compiled for arch.
func probe(t testing.TB, arch string) string {
	t.Helper()
	dir := testuser.Shared(t, "probe-"+arch, func(dir string) {
		src, err := filepath.Abs("testdata/probe")
		require.NoError(t, err)
		cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", filepath.Join(dir, "probe"), ".")
		cmd.Dir = src
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=-buildvcs=false")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
	})
	return filepath.Join(dir, "probe")
}

// mode is the mode that the test's variant is about; "" for an ordinary user, whose host decides.
func mode(t testing.TB) Mode {
	t.Helper()
	for _, v := range testuser.Variants(t) {
		if v.Current && v.Name != "user" {
			return Mode(v.Name)
		}
	}
	return ""
}

// newPool starts agents in the variant's mode, with every emulator that is installed.
func newPool(t testing.TB, o Options) *Pool {
	t.Helper()
	if o.Mode == "" {
		o.Mode = mode(t)
	}
	if o.Handlers == nil {
		o.Handlers = emulate.Handlers(t.Context(), emulate.Options{})
	}
	p, err := NewPool(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

// box is a pool with one rootfs: /bin/probe, /bin/probe-ARCH.
type box struct {
	t    testing.TB
	pool *Pool
	dir  string
	root string
}

func newBox(t testing.TB) *box {
	t.Helper()
	return boxOf(t, newPool(t, Options{}))
}

func boxOf(t testing.TB, p *Pool) *box {
	t.Helper()
	b := &box{t: t, pool: p, dir: t.TempDir()}
	t.Cleanup(func() { // before TempDir's, which may not be allowed to
		require.NoError(t, p.Remove(context.Background(), b.dir))
		require.NoError(t, os.MkdirAll(b.dir, 0o755))
	})
	b.root = b.tree("root", "bin/")
	b.install(runtime.GOARCH, "bin/probe")
	return b
}

// install puts the probe for arch into the rootfs.
func (b *box) install(arch, name string) {
	b.t.Helper()
	data, err := os.ReadFile(probe(b.t, arch))
	require.NoError(b.t, err)
	require.NoError(b.t, os.WriteFile(filepath.Join(b.root, name), data, 0o755))
}

// tree makes a directory of files: "name/" is a directory, "name -> target" a symlink, "name=content" a file.
func (b *box) tree(name string, entries ...string) string {
	b.t.Helper()
	dir := filepath.Join(b.dir, name)
	require.NoError(b.t, os.MkdirAll(dir, 0o755))
	require.NoError(b.t, os.Chmod(dir, 0o755))
	for _, e := range entries {
		switch {
		case strings.HasSuffix(e, "/"):
			require.NoError(b.t, os.MkdirAll(filepath.Join(dir, e), 0o755))
		case strings.Contains(e, " -> "):
			name, target, _ := strings.Cut(e, " -> ")
			require.NoError(b.t, os.Symlink(target, filepath.Join(dir, name)))
		default:
			name, content, _ := strings.Cut(e, "=")
			require.NoError(b.t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644))
		}
	}
	return dir
}

// scratch makes an empty directory.
func (b *box) scratch() string {
	b.t.Helper()
	dir, err := os.MkdirTemp(b.dir, "scratch")
	require.NoError(b.t, err)
	return dir
}

// step is a step that runs the probe with args.
func (b *box) step(args ...string) Step {
	return Step{
		Lowers: []string{b.root}, Scratch: b.scratch(), Args: append([]string{"probe"}, args...), Env: []string{"PATH=/bin"},
	}
}

// result is what came of a step.
type result struct {
	out, err string
	failure  error
	took     time.Duration
}

// run runs a step and keeps its output.
func (b *box) run(s Step) result {
	b.t.Helper()
	var out, errOut bytes.Buffer
	if s.Stdout == nil {
		s.Stdout = &out
	}
	if s.Stderr == nil {
		s.Stderr = &errOut
	}
	start := time.Now()
	err := b.pool.Run(b.t.Context(), s)
	return result{out: out.String(), err: errOut.String(), failure: err, took: time.Since(start)}
}

// ok runs verbs of the probe, which must succeed, and returns stdout.
func (b *box) ok(args ...string) string {
	b.t.Helper()
	r := b.run(b.step(args...))
	require.NoError(b.t, r.failure, "stderr: %s", r.err)
	return r.out
}
