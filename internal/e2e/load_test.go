package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// loadable makes a context of an image for this machine, which prints its architecture, and one for another.
func loadable(t *testing.T, w who) (dir, native, foreign string) {
	t.Helper()
	native, foreign = runtime.GOARCH, "arm64"
	if native == foreign {
		foreign = "amd64"
	}
	box, err := os.ReadFile(tool(t, "busybox"))
	require.NoError(t, err)
	dir = w.dir(t, "loadable")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "busybox"), box, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "rootfs.yaml"), fmt.Appendf(nil, `version: 1
platforms: [linux/%s, linux/%s]
from: scratch
steps:
  - files: [{path: /bin/busybox, source: busybox, mode: "0755"}]
    when: {platforms: [linux/%s]}
  - files: [{path: /who, content: "${TARGETARCH}", expand: true}]
config: {cmd: [/bin/busybox, cat, /who]}
`, foreign, native, native), 0o644))
	return dir, native, foreign
}

// imageID is the digest of a config in what the program has built.
func imageID(t *testing.T, w who, ref, arch string) digest.Digest {
	t.Helper()
	var m ocispec.Manifest
	raw := ok(t, w.command(nil, "inspect", "--raw", "--platform", "linux/"+arch, ref)).stdout
	require.NoError(t, json.Unmarshal([]byte(raw), &m), raw)
	return m.Config.Digest
}

// TestLoad: --load brings images of two platforms into the runtimes of Debian, and those run this machine's.
func TestLoad(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the runtimes want to be root")
	}
	t.Run("podman", loadPodman)
	t.Run("podman's socket", loadPodmanSocket)
	t.Run("containerd", loadContainerd)
	t.Run("dockerd", loadDockerd)
}

// podmanHere is podman with a storage of its own, as a program in a directory for $PATH.
func podmanHere(t *testing.T) (path string, podman func(args ...string) *exec.Cmd) {
	t.Helper()
	needs(t, "podman", "runc")
	dir := shortDir(t)
	bin := filepath.Join(dir, "bin")
	require.NoError(t, os.Mkdir(bin, 0o755))
	policy := filepath.Join(dir, "policy.json")
	require.NoError(t, os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(bin, "podman"), fmt.Appendf(nil,
		"#!/bin/sh\nexec %s --root %s/root --runroot %s/run --storage-driver vfs --cgroup-manager cgroupfs --runtime runc \"$@\"\n", tool(t, "podman"), dir, dir), 0o755))
	return bin, func(args ...string) *exec.Cmd {
		c := exec.Command(filepath.Join(bin, "podman"), args...)
		c.Env = append(os.Environ(), "HOME="+dir, "XDG_RUNTIME_DIR="+dir)
		return c
	}
}

// holdsTwo checks that podman has the list, and runs this machine's image of it.
func holdsTwo(t *testing.T, podman func(args ...string) *exec.Cmd, name, native, foreign string) {
	t.Helper()
	list := ran(t, podman("manifest", "inspect", name))
	assert.Contains(t, list, `"architecture": "`+native+`"`)
	assert.Contains(t, list, `"architecture": "`+foreign+`"`)
	// The limits: whoever may not raise them, as in a container, cannot have podman's own.
	assert.Equal(t, native, ran(t, podman("run", "--rm", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", name)))
}

func loadPodman(t *testing.T) {
	w := root(t)
	dir, native, foreign := loadable(t, w)
	bin, podman := podmanHere(t)
	env := []string{"PATH=" + bin + ":" + os.Getenv("PATH")}
	ok(t, w.command(env, "build", "-q", "--verify=off", "--load=podman", "-t", "registry.invalid/app:1", "-t", "registry.invalid/app:latest", dir))
	holdsTwo(t, podman, "registry.invalid/app:1", native, foreign)
	holdsTwo(t, podman, "registry.invalid/app:latest", native, foreign)
	// Again, over what is there; what is there for the moment is gone.
	ok(t, w.command(env, "build", "-q", "--verify=off", "--load=podman", "--label", "again=yes", "-t", "registry.invalid/app:1", dir))
	holdsTwo(t, podman, "registry.invalid/app:1", native, foreign)
	assert.Equal(t, "yes", ran(t, podman("image", "inspect", "--format", `{{index .Config.Labels "again"}}`, "registry.invalid/app:1")))
	assert.NotContains(t, ran(t, podman("images")), "manifestctl-load")
	// One platform, without a name and with one.
	ok(t, w.command(env, "build", "-q", "--verify=off", "--load=podman", "--platform", "linux/"+native, dir))
	ok(t, w.command(env, "build", "-q", "--verify=off", "--load=podman", "--platform", "linux/"+native, "-t", "single", dir))
	assert.Equal(t, native, ran(t, podman("image", "inspect", "--format", "{{.Architecture}}", "docker.io/library/single")))
	r := do(t, w.command(env, "build", "-q", "--verify=off", "--load=podman", dir))
	assert.Equal(t, 2, r.code, r.stderr)
	// CRI-O's way: the storage has this machine's image.
	r = ok(t, w.command(env, "build", "--progress", "plain", "--verify=off", "--load=cri-o", "-t", "registry.invalid/node:1", dir))
	assert.Contains(t, r.stderr, "linux/"+native+" is loaded, and linux/"+foreign+" is not")
	assert.Equal(t, native, ran(t, podman("image", "inspect", "--format", "{{.Architecture}}", "registry.invalid/node:1")))
}

func loadPodmanSocket(t *testing.T) {
	w := root(t)
	dir, native, foreign := loadable(t, w)
	_, podman := podmanHere(t)
	socket := "unix://" + filepath.Join(shortDir(t), "s")
	service := podman("system", "service", "-t", "0", socket)
	daemon(t, func() error {
		c, err := net.Dial("unix", strings.TrimPrefix(socket, "unix://"))
		if err == nil {
			err = c.Close()
		}
		return err
	}, service.Path, service.Args[1:]...)
	ok(t, w.command([]string{"CONTAINER_HOST=" + socket, "PATH=/nowhere"}, "build", "-q", "--verify=off", "--load=podman", "-t", "registry.invalid/app:1", dir))
	holdsTwo(t, podman, "registry.invalid/app:1", native, foreign)
	// Under docker's name it is podman still.
	ok(t, w.command([]string{"DOCKER_HOST=" + socket, "PATH=/nowhere"}, "build", "-q", "--verify=off", "--load", "-t", "registry.invalid/app:2", dir))
	holdsTwo(t, podman, "registry.invalid/app:2", native, foreign)
}

func loadContainerd(t *testing.T) {
	w := root(t)
	needs(t, "containerd", "ctr", "runc")
	dir, native, foreign := loadable(t, w)
	at := shortDir(t)
	config := filepath.Join(at, "config.toml")
	require.NoError(t, os.WriteFile(config, []byte("version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n"), 0o600))
	socket := filepath.Join(at, "s")
	ctr := func(args ...string) *exec.Cmd {
		return exec.Command("ctr", append([]string{"-a", socket, "-n", "tests"}, args...)...)
	}
	daemon(t, func() error { return ctr("version").Run() },
		"containerd", "--config", config, "--root", filepath.Join(at, "root"), "--state", filepath.Join(at, "state"), "--address", socket)
	env := []string{"CONTAINERD_ADDRESS=" + socket, "CONTAINERD_SNAPSHOTTER=native"}
	built := strings.TrimSpace(ok(t, w.command(env, "build", "-q", "--verify=off", "--load=containerd:tests", "-t", "registry.invalid/app:1", dir)).stdout)
	line := ""
	for l := range strings.Lines(ran(t, ctr("images", "ls"))) {
		if strings.HasPrefix(l, "registry.invalid/app:1 ") {
			line = l
		}
	}
	assert.Contains(t, line, built, "the digest is that of a push")
	assert.Contains(t, line, "linux/"+native)
	assert.Contains(t, line, "linux/"+foreign)
	assert.Equal(t, native, ran(t, ctr("run", "--rm", "--snapshotter", "native", "registry.invalid/app:1", "one")))
	r := do(t, w.command(env, "build", "-q", "--verify=off", "--load=containerd:tests", dir))
	assert.Equal(t, 2, r.code, r.stderr)
}

func loadDockerd(t *testing.T) {
	w := root(t)
	dir, native, foreign := loadable(t, w)
	docker := dockerd(t)
	host := docker("version").Args[2]
	env := []string{"DOCKER_HOST=" + host}
	r := ok(t, w.command(env, "build", "--progress", "plain", "--verify=off", "--load", "-t", "app:1", "-o", "type=image", dir))
	assert.Contains(t, r.stderr, "docker's classic store holds one platform: linux/"+native+" is loaded, and linux/"+foreign+" is not")
	got := ran(t, docker("image", "inspect", "--format", "{{.Architecture}} {{.Id}}", "app:1"))
	assert.Equal(t, native+" "+imageID(t, w, "store:app:1", native).String(), got)
	// It is whole: read back, it has the file.
	saved := filepath.Join(w.home, "saved.tar")
	ran(t, docker("save", "-o", saved, "app:1"))
	back := filepath.Join(w.home, "back")
	ok(t, w.command(nil, "copy", "docker-archive:"+saved, "oci:"+back+":1"))
	assert.Equal(t, imageID(t, w, "store:app:1", native), imageID(t, w, "oci:"+back+":1", native))
	// A context instead of the variable.
	config := w.dir(t, "docker")
	ran(t, exec.Command("docker", "--config", config, "context", "create", "here", "--docker", "host="+host))
	ok(t, w.command([]string{"DOCKER_CONFIG=" + config, "DOCKER_CONTEXT=here"}, "build", "-q", "--verify=off", "--load=docker", "--platform", "linux/"+foreign, dir))
	ran(t, docker("image", "inspect", imageID(t, w, "store:app:1", foreign).String()))
	// Nothing for its machine; and no engine at all.
	r = do(t, w.command(env, "build", "-q", "--verify=off", "--load", "--platform", "linux/s390x,linux/riscv64", "-t", "app:2", dir))
	assert.Equal(t, 2, r.code, r.stderr)
	start := time.Now()
	r = do(t, w.command([]string{"DOCKER_HOST=unix://" + filepath.Join(w.home, "none")}, "build", "-q", "--verify=off", "--load=docker", "-t", "app:2", dir))
	assert.Equal(t, 8, r.code, r.stderr)
	assert.Less(t, time.Since(start), 5*time.Minute)
}
