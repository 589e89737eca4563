package runtimes

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/platform"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]Target{
		"": {}, "docker": {Kind: "docker"}, "podman": {Kind: "podman"}, "containerd": {Kind: "containerd"},
		"containerd:k8s.io": {Kind: "containerd", Space: "k8s.io"}, "nerdctl:x": {Kind: "nerdctl", Space: "x"},
		"crio": {Kind: "cri-o"}, "containers-storage": {Kind: "cri-o"}, "cri-o": {Kind: "cri-o"},
	} {
		got, err := Parse(in)
		require.NoError(t, err, in)
		assert.Equal(t, want, got)
	}
	for _, bad := range []string{"lxc", "docker:x", "containerd:", "containerd:a/b", "containerd:-x", "Docker"} {
		_, err := Parse(bad)
		require.ErrorIs(t, err, ErrInvalid, bad)
	}
}

func platforms(t *testing.T, names ...string) []platform.Platform {
	t.Helper()
	ps, err := platform.ParseList(names...)
	require.NoError(t, err)
	return ps
}

// engine is a fake of docker's API on a socket.
type engine struct {
	version, info string
	answer        string            // to a load
	images        map[string]string // ID by name
	got           string            // the archive
	status        int               // of a load; 0: 200
	deaf          bool              // a load is answered before it is read
}

func (e *engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/version":
		_, _ = io.WriteString(w, e.version)
	case r.URL.Path == "/info":
		_, _ = io.WriteString(w, e.info)
	case r.URL.Path == "/images/load" && r.Method == http.MethodPost:
		if !e.deaf {
			body, _ := io.ReadAll(r.Body)
			e.got = string(body)
		}
		if e.status != 0 {
			w.WriteHeader(e.status)
		}
		_, _ = io.WriteString(w, e.answer)
	case strings.HasPrefix(r.URL.Path, "/images/"):
		id, ok := e.images[strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/images/"), "/json")]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"message":"No such image"}`)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"Id": id})
	}
}

const (
	classicInfo    = `{"DriverStatus":[["Backing Filesystem","extfs"]]}`
	containerdInfo = `{"DriverStatus":[["driver-type","io.containerd.snapshotter.v1"]]}`
)

// start serves the engine and returns where.
func (e *engine) start(t *testing.T) string {
	t.Helper()
	if e.version == "" {
		e.version = `{"Version":"28.0","Os":"linux","Arch":"arm64","Components":[{"Name":"Engine"}]}`
	}
	dir, err := os.MkdirTemp("", "mctl-") // a socket's path is short
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: e}}
	srv.Start()
	t.Cleanup(srv.Close)
	return "unix://" + path
}

func envOf(vars map[string]string) Env {
	return Env{Getenv: func(n string) string { return vars[n] }, Root: "/nonexistent"}
}

func bundle(names ...string) Bundle {
	return Bundle{
		Names:  names,
		Images: []Image{{ID: "sha256:one"}},
		OCI: func(_ context.Context, w io.Writer, i int, named bool) error {
			what := "one"
			if i == All {
				what = "all"
			}
			if named {
				what += " named"
			}
			_, err := io.WriteString(w, what)
			return err
		},
		Docker: func(_ context.Context, w io.Writer, _ int) error {
			_, err := io.WriteString(w, "docker archive")
			return err
		},
	}
}

func TestDocker_classic(t *testing.T) {
	e := &engine{info: classicInfo, answer: `{"stream":"Loaded image: app:1\n"}`, images: map[string]string{"docker.io/library/app:1": "sha256:one", "sha256:one": "sha256:one"}}
	rt, err := Open(t.Context(), Target{}, envOf(map[string]string{"DOCKER_HOST": e.start(t)}))
	require.NoError(t, err)
	assert.Contains(t, rt.String(), "classic store")
	assert.True(t, rt.Expands())
	keep, why, err := rt.Holds(platforms(t, "linux/amd64", "linux/arm64"))
	require.NoError(t, err)
	assert.Equal(t, []int{1}, keep)
	assert.NotEmpty(t, why)
	keep, why, err = rt.Holds(platforms(t, "linux/s390x"))
	require.NoError(t, err)
	assert.Equal(t, []int{0}, keep, "who asks for one gets it")
	assert.Empty(t, why)
	_, _, err = rt.Holds(platforms(t, "linux/s390x", "linux/amd64"))
	require.ErrorIs(t, err, ErrPlatform)

	require.NoError(t, rt.Load(t.Context(), bundle("docker.io/library/app:1")))
	assert.Equal(t, "docker archive", e.got)
	require.NoError(t, rt.Load(t.Context(), bundle()))
	// What it says it has is looked at.
	e.images["docker.io/library/app:1"] = "sha256:other"
	require.ErrorContains(t, rt.Load(t.Context(), bundle("docker.io/library/app:1")), "sha256:other")
	require.ErrorContains(t, rt.Load(t.Context(), bundle("docker.io/library/app:2")), "No such image")
	// An error comes with status 200.
	e.answer = `{"stream":"..."}{"errorDetail":{"message":"no space"},"error":"no space left"}`
	require.ErrorContains(t, rt.Load(t.Context(), bundle("docker.io/library/app:1")), "no space left")
	e.answer, e.status = `{"message":"read-only"}`, 500
	require.ErrorContains(t, rt.Load(t.Context(), bundle("docker.io/library/app:1")), "read-only")
	// One that does not listen to the end ends the writer, too.
	e.deaf, e.status = true, 507
	b := bundle("docker.io/library/app:1")
	b.Docker = func(_ context.Context, w io.Writer, _ int) error {
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				return err
			}
		}
	}
	require.Error(t, rt.Load(t.Context(), b))
	// A writer that fails is the reason.
	e.deaf, e.status, e.answer = false, 0, ""
	broken := errors.New("broken")
	b.Docker = func(context.Context, io.Writer, int) error { return broken }
	require.ErrorIs(t, rt.Load(t.Context(), b), broken)
}

func TestDocker_containerd(t *testing.T) {
	e := &engine{info: containerdInfo, images: map[string]string{"docker.io/library/app:1": "sha256:index"}}
	rt, err := Open(t.Context(), Target{Kind: "docker"}, envOf(map[string]string{"DOCKER_HOST": e.start(t)}))
	require.NoError(t, err)
	keep, why, err := rt.Holds(platforms(t, "linux/amd64", "linux/s390x"))
	require.NoError(t, err)
	assert.Equal(t, []int{0, 1}, keep)
	assert.Empty(t, why)
	assert.False(t, rt.Expands(), "digests are those of a push")
	require.NoError(t, rt.Load(t.Context(), bundle("docker.io/library/app:1")))
	assert.Equal(t, "all named", e.got)
}

func TestDocker_context(t *testing.T) {
	host := (&engine{info: classicInfo}).start(t)
	dir := t.TempDir()
	sum := sha256.Sum256([]byte("there"))
	meta := filepath.Join(dir, "contexts", "meta", hex.EncodeToString(sum[:]))
	require.NoError(t, os.MkdirAll(meta, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(meta, "meta.json"), []byte(`{"Name":"there","Endpoints":{"docker":{"Host":"`+host+`"}}}`), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"currentContext":"there"}`), 0o600))
	rt, err := Open(t.Context(), Target{Kind: "docker"}, envOf(map[string]string{"DOCKER_CONFIG": dir}))
	require.NoError(t, err)
	assert.Contains(t, rt.String(), host)
	_, err = Open(t.Context(), Target{Kind: "docker"}, envOf(map[string]string{"DOCKER_CONFIG": dir, "DOCKER_CONTEXT": "nowhere"}))
	require.ErrorIs(t, err, ErrNone)
	for _, bad := range []string{"nothing", "npipe:////./pipe/docker"} {
		_, err = Open(t.Context(), Target{Kind: "docker"}, envOf(map[string]string{"DOCKER_HOST": bad}))
		require.ErrorIs(t, err, ErrInvalid, bad)
	}
}

func TestDocker_ssh(t *testing.T) {
	e := &engine{info: classicInfo, images: map[string]string{"docker.io/library/app:1": "sha256:one"}}
	host := strings.TrimPrefix(e.start(t), "unix://")
	exe, err := os.Executable()
	require.NoError(t, err)
	// An ssh that stays here and connects its streams to the engine.
	bin := program(t, "ssh", "echo \"$@\" > "+host+".args; RUNTIMES_TEST_DIAL="+host+" exec "+exe)
	rt, err := Open(t.Context(), Target{Kind: "docker"}, envOf(map[string]string{"DOCKER_HOST": "ssh://me@far.invalid:2222", "PATH": bin}))
	require.NoError(t, err)
	require.NoError(t, rt.Load(t.Context(), bundle("docker.io/library/app:1")))
	assert.Equal(t, "docker archive", e.got)
	args, err := os.ReadFile(host + ".args")
	require.NoError(t, err)
	assert.Equal(t, "-o ConnectTimeout=10 -T -l me -p 2222 -- far.invalid docker system dial-stdio\n", string(args))
	_, err = Open(t.Context(), Target{Kind: "docker"}, envOf(map[string]string{"DOCKER_HOST": "ssh://-oProxyCommand=x", "PATH": bin}))
	require.ErrorIs(t, err, ErrInvalid)
}

// TestMain is also the ssh of TestDocker_ssh.
func TestMain(m *testing.M) {
	if to := os.Getenv("RUNTIMES_TEST_DIAL"); to != "" {
		c, err := net.Dial("unix", to)
		if err != nil {
			os.Exit(1)
		}
		go func() { _, _ = io.Copy(c, os.Stdin) }()
		_, _ = io.Copy(os.Stdout, c)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// program makes a directory for $PATH with a shell script in it.
func program(t *testing.T, name, script string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	return dir
}

func TestPrograms(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	record := `echo "$(basename $0) $@" >> ` + log + `; case "$*" in load*|*" -") cat >> ` + log + `; echo >> ` + log + `;; esac`
	said := func() string {
		raw, err := os.ReadFile(log)
		require.NoError(t, err)
		require.NoError(t, os.Remove(log))
		return string(raw)
	}
	for name, tc := range map[string]struct {
		program string
		target  Target
		want    string
	}{
		"ctr":     {"ctr", Target{Kind: "containerd", Space: "k8s.io"}, "ctr -a /nonexistent/run/containerd/containerd.sock -n k8s.io version\nctr -a /nonexistent/run/containerd/containerd.sock -n k8s.io images import --all-platforms -\nall named\n"},
		"nerdctl": {"nerdctl", Target{Kind: "containerd"}, "nerdctl info\nnerdctl load --all-platforms\nall named\n"},
		"podman":  {"podman", Target{Kind: "cri-o"}, "podman load -q\none named\n"},
		"any":     {"nerdctl", Target{}, "nerdctl info\nnerdctl load --all-platforms\nall named\n"},
	} {
		t.Run(name, func(t *testing.T) {
			bin := program(t, tc.program, record)
			rt, err := Open(t.Context(), tc.target, envOf(map[string]string{"PATH": bin + ":" + "relative"}))
			require.NoError(t, err)
			require.NoError(t, rt.Load(t.Context(), bundle("docker.io/library/app:1")))
			assert.Equal(t, tc.want, said())
		})
	}
	t.Run("skopeo", func(t *testing.T) {
		bin := program(t, "skopeo", `echo "$5" >> `+log+`; cat "${4#oci-archive:}" >> `+log)
		rt, err := Open(t.Context(), Target{Kind: "cri-o"}, envOf(map[string]string{"PATH": bin}))
		require.NoError(t, err)
		require.NoError(t, rt.Load(t.Context(), bundle("docker.io/library/app:1")))
		assert.Equal(t, "containers-storage:docker.io/library/app:1\none", said())
		require.ErrorIs(t, rt.Load(t.Context(), bundle()), ErrInvalid)
	})
	t.Run("a program that fails", func(t *testing.T) {
		bin := program(t, "nerdctl", `[ "$1" = info ] || { echo "no room" >&2; exit 3; }`)
		rt, err := Open(t.Context(), Target{Kind: "nerdctl"}, envOf(map[string]string{"PATH": bin}))
		require.NoError(t, err)
		b := bundle("docker.io/library/app:1")
		b.OCI = func(_ context.Context, w io.Writer, _ int, _ bool) error {
			for range 64 {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return err
				}
			}
			return nil
		}
		require.ErrorContains(t, rt.Load(t.Context(), b), "no room")
		// And one that is fed half an archive does not take it for a whole.
		taken := filepath.Join(t.TempDir(), "taken")
		bin = program(t, "nerdctl", `[ "$1" = info ] || { cat > /dev/null; echo > `+taken+`; }`)
		rt, err = Open(t.Context(), Target{Kind: "nerdctl"}, envOf(map[string]string{"PATH": bin}))
		require.NoError(t, err)
		broken := errors.New("broken")
		b.OCI = func(context.Context, io.Writer, int, bool) error { return broken }
		require.ErrorIs(t, rt.Load(t.Context(), b), broken)
		assert.NoFileExists(t, taken)
	})
	t.Run("podman's list", func(t *testing.T) {
		bin := program(t, "podman", record+`; [ "$1" = version ] && echo 4.3.1; exit 0`)
		rt, err := Open(t.Context(), Target{Kind: "podman"}, envOf(map[string]string{"PATH": bin}))
		require.NoError(t, err)
		b := bundle("docker.io/library/app:1")
		b.Images = append(b.Images, Image{ID: "sha256:two"})
		require.NoError(t, rt.Load(t.Context(), b))
		lines := strings.Split(strings.TrimSpace(said()), "\n")
		require.Len(t, lines, 10, lines)
		temporary := strings.TrimPrefix(lines[5], "podman manifest create ")
		assert.Equal(t, []string{
			"podman load -q", "one", "podman load -q", "one", "podman manifest create " + temporary,
			"podman manifest add " + temporary + " containers-storage:one", "podman manifest add " + temporary + " containers-storage:two",
			"podman tag " + temporary + " docker.io/library/app:1", "podman manifest rm " + temporary,
		}, lines[1:])
		b.Names = nil
		require.ErrorIs(t, rt.Load(t.Context(), b), ErrInvalid)
	})
}

func TestNone(t *testing.T) {
	_, err := Open(t.Context(), Target{}, envOf(map[string]string{"PATH": "/nonexistent"}))
	require.ErrorIs(t, err, ErrNone)
	for _, kind := range Kinds {
		assert.ErrorContains(t, err, kind+": ")
		_, err := Open(t.Context(), Target{Kind: kind}, envOf(map[string]string{"PATH": "/nonexistent"}))
		require.ErrorIs(t, err, ErrNone, kind)
	}
	// Who is there and does not answer is none.
	_, err = Open(t.Context(), Target{Kind: "docker"}, envOf(map[string]string{"DOCKER_HOST": "unix:///nonexistent/socket"}))
	require.ErrorIs(t, err, ErrNone)
	_, err = Open(t.Context(), Target{Kind: "nerdctl"}, envOf(map[string]string{"PATH": program(t, "nerdctl", "exit 1")}))
	require.ErrorIs(t, err, ErrNone)
}
