package local_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gofrs/flock"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/worker/local"
)

func TestMain(m *testing.M) {
	sandbox.Main()
	os.Exit(m.Run())
}

// probe is a program for the rootfs: a shell of a few words, for any architecture.
const probe = `package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
)

func main() {
	for _, script := range os.Args[1:] {
		f := strings.Split(script, " ")
		var err error
		switch f[0] {
		case "uname":
			var u syscall.Utsname
			syscall.Uname(&u)
			for _, c := range u.Machine {
				if c != 0 {
					fmt.Printf("%c", byte(c))
				}
			}
			fmt.Println()
		case "write":
			err = os.WriteFile(f[1], []byte(f[2]), 0o644)
		case "append":
			var o *os.File
			if o, err = os.OpenFile(f[1], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err == nil {
				_, err = o.WriteString(f[2])
			}
		case "cat":
			var o *os.File
			if o, err = os.Open(f[1]); err == nil {
				_, err = io.Copy(os.Stdout, o)
			}
		case "rm":
			err = os.RemoveAll(f[1])
		case "mkdir":
			err = os.MkdirAll(f[1], 0o755)
		case "env":
			fmt.Println(os.Getenv(f[1]))
		case "exit":
			os.Exit(7)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
`

var built = struct {
	sync.Mutex
	paths map[string]string
}{paths: map[string]string{}}

// program compiles the probe for an architecture, once, into a context directory.
func program(t testing.TB, arch string) (dir, name string) {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	dir, ok := built.paths[arch]
	if !ok {
		var err error
		dir, err = os.MkdirTemp("", "probe-")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(probe), 0o644))
		c := exec.Command("go", "build", "-o", filepath.Join(dir, "probe"), filepath.Join(dir, "main.go"))
		c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch, "GOOS=linux", "GOFLAGS=")
		out, err := c.CombinedOutput()
		require.NoError(t, err, string(out))
		built.paths[arch] = dir
	}
	return dir, "probe"
}

// bench is a worker on a new store, and what its steps print.
type bench struct {
	*local.Worker
	store *store.Store
	out   *bytes.Buffer
}

func newBench(t testing.TB, root string, contexts map[string]string, secrets map[string]string) *bench {
	t.Helper()
	st, err := store.Open(t.Context(), root, store.Options{})
	require.NoError(t, err)
	b := &bench{store: st, out: &bytes.Buffer{}}
	b.Worker = local.New(local.Options{
		Store: st, Opener: &source.Opener{Store: st}, Contexts: contexts,
		Sandbox: sandbox.Options{Handlers: emulate.Handlers(t.Context(), emulate.Options{Path: os.Getenv("PATH")})},
		Secret: func(id string) ([]byte, bool, error) {
			s, ok := secrets[id]
			return []byte(s), ok, nil
		},
		Events: event.Serial(func(e event.Event) { b.out.Write(e.Data) }),
	})
	t.Cleanup(func() {
		assert.NoError(t, b.Close())
		assert.NoError(t, st.Close())
	})
	return b
}

func (b *bench) solve(t testing.TB, roots ...*graph.Vertex) ([]solve.Result, error) {
	t.Helper()
	return solve.Solve(t.Context(), b, solve.Records{Store: b.store}, roots, solve.Options{})
}

var meta = graph.Meta{Name: "step", Source: "rootfs.yaml:1"}

func base(entries ...graph.Entry) *graph.Vertex {
	entries = append([]graph.Entry{{Type: graph.TypeFile, Path: "/bin/probe", Context: "context", Source: "probe"}}, entries...)
	return graph.New(graph.Layer{Entries: entries}, platform.Platform{}, meta, nil)
}

func run(p platform.Platform, in *graph.Vertex, script ...string) *graph.Vertex {
	return graph.New(graph.Exec{Args: append([]string{"/bin/probe"}, script...), Network: graph.NetworkNone}, p, meta, in)
}

// files lists what is in a view: names with mode, and the data of small files.
func files(t *testing.T, b *bench, layers []solve.Layer) map[string]string {
	t.Helper()
	view, err := b.View(context.Background(), layers)
	require.NoError(t, err)
	defer view.Close()
	out := map[string]string{}
	require.NoError(t, view.Walk("/", func(e layer.Entry, open func() (io.ReadCloser, error)) error {
		text := fmt.Sprintf("%c %04o %d:%d", e.Type, e.Mode, e.UID, e.GID)
		if open != nil && e.Size < 100 {
			r, err := open()
			if err != nil {
				return err
			}
			data, err := io.ReadAll(r)
			if err != nil {
				return err
			}
			text += " " + string(data)
		}
		out[e.Name] = text
		return nil
	}))
	return out
}

func TestStepsOnEveryArchitecture(t *testing.T) {
	for arch, machine := range map[string]string{"amd64": "x86_64", "arm64": "aarch64"} {
		t.Run(arch, func(t *testing.T) {
			dir, _ := program(t, arch)
			b := newBench(t, filepath.Join(t.TempDir(), "store"), map[string]string{"context": dir}, nil)
			p := platform.Platform{OS: "linux", Arch: arch}
			first := run(p, base(graph.Entry{Type: graph.TypeDirectory, Path: "/tmp"}, graph.Entry{Type: graph.TypeFile, Path: "/etc/old", Content: []byte("old")}),
				"uname x", "mkdir /var/lib/x", "write /var/lib/x/f one", "rm /etc/old", "append /bin/note n")
			second := run(p, first, "append /var/lib/x/f two", "cat /var/lib/x/f")
			r, err := b.solve(t, second)
			require.NoError(t, err, b.out.String())
			assert.Equal(t, machine+"\nonetwo", b.out.String())
			got := files(t, b, r[0].Layers)
			assert.Equal(t, "0 0644 0:0 onetwo", got["var/lib/x/f"])
			assert.NotContains(t, got, "etc/old")
			for _, stub := range []string{"proc", "sys", "dev"} {
				assert.Contains(t, got, stub, "BuildKit leaves %s behind", stub)
			}
			assert.NotContains(t, got, "etc/resolv.conf")
			assert.NotContains(t, got, "etc/hosts")

			again, err := b.solve(t, second)
			require.NoError(t, err)
			assert.Equal(t, machine+"\nonetwo", b.out.String(), "nothing ran again")
			assert.Equal(t, r[0].Identity(), again[0].Identity())
		})
	}
}

func TestMounts(t *testing.T) {
	dir, _ := program(t, "amd64")
	root := filepath.Join(t.TempDir(), "store")
	b := newBench(t, root, map[string]string{"context": dir}, map[string]string{"token": "s3cret"})
	p := platform.Platform{OS: "linux", Arch: "amd64"}
	other := graph.New(graph.Layer{Entries: []graph.Entry{{Type: graph.TypeFile, Path: "/data/in", Content: []byte("bound")}}}, platform.Platform{}, meta, nil)
	op := graph.Exec{
		Args:    []string{"/bin/probe", "cat /in/in", "cat /run/secrets/token", "env TOKEN", "append /cache/n x", "cat /cache/n", "write /scratch/big 1"},
		Network: graph.NetworkNone,
		Mounts: []graph.Mount{
			{Type: graph.MountBind, Target: "/in", Input: 1, Source: "/data"},
			{Type: graph.MountSecret, Target: "/run/secrets/token", ID: "token", Required: true},
			{Type: graph.MountSecret, ID: "token", Env: "TOKEN"},
			{Type: graph.MountCache, Target: "/cache", ID: "n"},
			{Type: graph.MountTmpfs, Target: "/scratch", Size: 1 << 20},
		},
	}
	r, err := b.solve(t, graph.New(op, p, meta, base(), other))
	require.NoError(t, err, b.out.String())
	assert.Equal(t, "bounds3crets3cret\nx", b.out.String())
	got := files(t, b, r[0].Layers)
	for name := range got {
		assert.False(t, strings.HasPrefix(name, "in") || strings.HasPrefix(name, "cache") || strings.HasPrefix(name, "scratch") || strings.HasPrefix(name, "run/secrets/"), name)
	}
	for _, l := range r[0].Layers {
		data, err := os.ReadFile(b.store.Path(l.DiffID))
		require.NoError(t, err)
		assert.NotContains(t, string(data), "s3cret")
	}

	op.Args = []string{"/bin/probe", "cat /cache/n"}
	b.out.Reset()
	_, err = b.solve(t, graph.New(op, p, meta, base(), other))
	require.NoError(t, err)
	assert.Equal(t, "x", b.out.String(), "a cache mount outlives its step")

	op.Mounts[1].ID = "absent"
	_, err = b.solve(t, graph.New(op, p, meta, base(), other))
	assert.ErrorIs(t, err, local.ErrSecret)
}

func TestCacheBeginsWithItsSource(t *testing.T) {
	dir, _ := program(t, "amd64")
	b := newBench(t, filepath.Join(t.TempDir(), "store"), map[string]string{"context": dir}, nil)
	p := platform.Platform{OS: "linux", Arch: "amd64"}
	seed := graph.New(graph.Layer{Entries: []graph.Entry{{Type: graph.TypeFile, Path: "/seed/n", Content: []byte("seed")}}}, platform.Platform{}, meta, nil)
	for _, sharing := range []string{"shared", "locked", "private"} {
		t.Run(sharing, func(t *testing.T) {
			op := graph.Exec{
				Args: []string{"/bin/probe", "append /cache/n +" + sharing, "cat /cache/n"}, Network: graph.NetworkNone,
				Mounts: []graph.Mount{{Type: graph.MountCache, Target: "/cache", ID: sharing, Sharing: sharing, Input: 1, Source: "/seed"}},
			}
			b.out.Reset()
			_, err := b.solve(t, graph.New(op, p, meta, base(), seed))
			require.NoError(t, err, b.out.String())
			assert.Equal(t, "seed+"+sharing, b.out.String())
			op.Args = []string{"/bin/probe", "cat /cache/n"}
			b.out.Reset()
			again := meta
			again.NoCache = true // the name of a cache is in no key
			_, err = b.solve(t, graph.New(op, p, again, base(), seed))
			require.NoError(t, err)
			assert.Equal(t, "seed+"+sharing, b.out.String(), "filled once")
		})
	}
}

func TestDroppedCaches(t *testing.T) {
	dir, _ := program(t, "amd64")
	b := newBench(t, filepath.Join(t.TempDir(), "store"), map[string]string{"context": dir}, nil)
	p := platform.Platform{OS: "linux", Arch: "amd64"}
	appended := func(t *testing.T, id, sharing string) string {
		t.Helper()
		op := graph.Exec{
			Args: []string{"/bin/probe", "append /cache/n +", "cat /cache/n"}, Network: graph.NetworkNone,
			Mounts: []graph.Mount{{Type: graph.MountCache, Target: "/cache", ID: id, Sharing: sharing}},
		}
		again := meta
		again.NoCache = true
		b.out.Reset()
		_, err := b.solve(t, graph.New(op, p, again, base()))
		require.NoError(t, err, b.out.String())
		return b.out.String()
	}
	for _, sharing := range []string{"shared", "locked", "private"} {
		t.Run(sharing, func(t *testing.T) {
			for range 2 { // the second time there is a generation already
				require.Equal(t, "+", appended(t, sharing, sharing))
				require.Equal(t, "++", appended(t, sharing, sharing))
				require.NoError(t, b.DropCaches(t.Context(), []string{sharing}))
			}
			require.NoError(t, b.DropCaches(t.Context(), []string{sharing, "never used"}))
			trees, err := filepath.Glob(filepath.Join(b.store.SnapshotDir(), "*-mounts", digest.FromString(sharing).Encoded()[:32]+"*"+store.UsedSuffix))
			require.NoError(t, err)
			assert.Empty(t, trees, "nothing is left of what nobody uses")
		})
	}
	t.Run("in use", func(t *testing.T) {
		require.Equal(t, "+", appended(t, "busy", "shared"))
		name := filepath.Join("*-mounts", digest.FromString("busy").Encoded()[:32])
		dirs, err := filepath.Glob(filepath.Join(b.store.SnapshotDir(), name))
		require.NoError(t, err)
		require.Len(t, dirs, 1)
		step := flock.New(dirs[0] + store.UsedSuffix) // as a step of another build holds it
		require.NoError(t, step.RLock())
		require.NoError(t, b.DropCaches(t.Context(), []string{"busy"}))
		assert.FileExists(t, filepath.Join(dirs[0], "n"), "what a step of another build uses stays for it")
		assert.Equal(t, "+", appended(t, "busy", "shared"), "and is not found any more")
		require.NoError(t, step.Unlock())
		require.NoError(t, b.DropCaches(t.Context(), []string{"busy"}))
		assert.NoDirExists(t, dirs[0])
	})
}

func TestFailingStepSaysHow(t *testing.T) {
	dir, _ := program(t, "amd64")
	b := newBench(t, filepath.Join(t.TempDir(), "store"), map[string]string{"context": dir}, nil)
	_, err := b.solve(t, run(platform.Platform{OS: "linux", Arch: "amd64"}, base(), "exit now"))
	var exit *sandbox.ExitError
	require.ErrorAs(t, err, &exit)
	assert.Equal(t, 7, exit.Code)
}

func TestCopyAndRemove(t *testing.T) {
	dir, _ := program(t, "amd64")
	b := newBench(t, filepath.Join(t.TempDir(), "store"), map[string]string{"context": dir}, nil)
	from := graph.New(graph.Layer{Entries: []graph.Entry{
		{Type: graph.TypeFile, Path: "/out/a", Content: []byte("a")},
		{Type: graph.TypeFile, Path: "/out/sub/b", Content: []byte("b"), Owner: "7:8"},
		{Type: graph.TypeHardlink, Path: "/out/sub/c", Target: "/out/sub/b"},
		{Type: graph.TypeSymlink, Path: "/out/l", Target: "a"},
	}}, platform.Platform{}, meta, nil)
	for name, tc := range map[string]struct {
		op   graph.Copy
		want map[string]string
	}{
		"directory": {
			op:   graph.Copy{Source: "/out", Path: "/opt"},
			want: map[string]string{"opt/a": "0 0644 0:0 a", "opt/sub/b": "0 0644 7:8 b", "opt/l": "2 0777 0:0"},
		},
		"file under another name": {
			op:   graph.Copy{Source: "/out/sub/b", Path: "/etc/x", Owner: "1:2"},
			want: map[string]string{"etc/x": "0 0644 1:2 b"},
		},
		"glob": {
			op:   graph.Copy{Source: "/out/[ab]", Path: "/g"},
			want: map[string]string{"g/a": "0 0644 0:0 a"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := b.solve(t, graph.New(tc.op, platform.Platform{}, meta, base(), from))
			require.NoError(t, err)
			got := files(t, b, r[0].Layers)
			for path, want := range tc.want {
				assert.Equal(t, want, got[path], path)
			}
		})
	}
	t.Run("remove", func(t *testing.T) {
		r, err := b.solve(t, graph.New(graph.Remove{Paths: []string{"/out/sub", "/out/[a]"}}, platform.Platform{}, meta, from))
		require.NoError(t, err)
		got := files(t, b, r[0].Layers)
		assert.NotContains(t, got, "out/sub/b")
		assert.NotContains(t, got, "out/a")
		assert.Contains(t, got, "out/l")
	})
	t.Run("remove what is not there", func(t *testing.T) {
		_, err := b.solve(t, graph.New(graph.Remove{Paths: []string{"/nowhere"}}, platform.Platform{}, meta, from))
		assert.Error(t, err)
	})
}

// E30: whatever a step can see of its inputs is in its key; names and places are not.
func TestE30KeysOfSteps(t *testing.T) {
	dir, _ := program(t, "amd64")
	dir2 := t.TempDir()
	data, err := os.ReadFile(filepath.Join(dir, "probe"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir2, "probe"), append(data, 0), 0o755))
	contexts := map[string]string{"context": dir, "other": dir2}
	b := newBench(t, filepath.Join(t.TempDir(), "store"), contexts, map[string]string{"s": "1"})
	amd64 := platform.Platform{OS: "linux", Arch: "amd64"}
	source := func(content string) *graph.Vertex {
		return graph.New(graph.Layer{Entries: []graph.Entry{{Type: graph.TypeFile, Path: "/d/f", Content: []byte(content)}, {Type: graph.TypeFile, Path: "/x", Content: []byte(content)}}}, platform.Platform{}, meta, nil)
	}
	op := func(change func(*graph.Exec)) graph.Exec {
		e := graph.Exec{
			Args: []string{"/bin/probe", "append /ran x"}, Env: []string{"A=1"}, Network: graph.NetworkNone,
			Mounts: []graph.Mount{{Type: graph.MountBind, Target: "/in", Input: 1, Source: "/d"}, {Type: graph.MountSecret, ID: "s", Target: "/run/secrets/s"}},
		}
		if change != nil {
			change(&e)
		}
		return e
	}
	ran := func(v *graph.Vertex) bool {
		var done bool
		_, err := solve.Solve(t.Context(), b, solve.Records{Store: b.store}, []*graph.Vertex{v}, solve.Options{Events: func(e event.Event) {
			if e.Kind == event.VertexDone && e.ID == v.Digest().String() {
				done = !e.Cached
			}
		}})
		require.NoError(t, err, b.out.String())
		return done
	}
	require.True(t, ran(graph.New(op(nil), amd64, meta, base(), source("1"))))
	for name, tc := range map[string]struct {
		v    *graph.Vertex
		want bool
	}{
		"the same": {v: graph.New(op(nil), amd64, graph.Meta{Name: "other name", Source: "elsewhere:9"}, base(), source("1"))},
		"another base": {v: graph.New(op(nil), amd64, meta, graph.New(graph.Layer{Entries: []graph.Entry{
			{Type: graph.TypeFile, Path: "/bin/probe", Context: "other", Source: "probe"},
		}}, platform.Platform{}, meta, nil), source("1")), want: true},
		"another platform":            {v: graph.New(op(nil), platform.Platform{OS: "linux", Arch: "amd64", Variant: "v2"}, meta, base(), source("1")), want: true},
		"another variable":            {v: graph.New(op(func(e *graph.Exec) { e.Env = []string{"A=2"} }), amd64, meta, base(), source("1")), want: true},
		"another argument":            {v: graph.New(op(func(e *graph.Exec) { e.Args = append(e.Args, "uname x") }), amd64, meta, base(), source("1")), want: true},
		"another network":             {v: graph.New(op(func(e *graph.Exec) { e.Network = graph.NetworkHost }), amd64, meta, base(), source("1")), want: true},
		"other content of a mount":    {v: graph.New(op(nil), amd64, meta, base(), source("2")), want: true},
		"another path of a mount":     {v: graph.New(op(func(e *graph.Exec) { e.Mounts[0].Source = "/" }), amd64, meta, base(), source("1")), want: true},
		"another target of a mount":   {v: graph.New(op(func(e *graph.Exec) { e.Mounts[0].Target = "/in2" }), amd64, meta, base(), source("1")), want: true},
		"without the secret's mount":  {v: graph.New(op(func(e *graph.Exec) { e.Mounts = e.Mounts[:1] }), amd64, meta, base(), source("1")), want: true},
		"content beside what is seen": {v: graph.New(op(nil), amd64, meta, base(), graph.New(graph.Layer{Entries: []graph.Entry{{Type: graph.TypeFile, Path: "/d/f", Content: []byte("1")}}}, platform.Platform{}, meta, nil))},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, tc.want, ran(tc.v)) })
	}
}
