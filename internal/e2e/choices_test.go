package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/serve"
	"github.com/manifestctl/manifestctl/pkg/store"
)

var updateChoices = flag.Bool("update-choices", false, "write what the runtimes chose to pkg/index/testdata/choices.json")

// choices is pkg/index/testdata/choices.json: by case the entries, and by machine and runtime the position of the one
// that was taken, or -1. An entry is "OS/ARCH[/VARIANT]"; "-OS/ARCH" says it only in its config, and "+" is an attestation.
type choices map[string]*choiceCase

type choiceCase struct {
	Entries []string                         `json:"entries"`
	Hosts   []string                         `json:"hosts"`
	Choices map[string]map[index.Runtime]int `json:"choices"`
}

const choicesFile = "../../pkg/index/testdata/choices.json"

// chooser is a real runtime: it pulls for a platform and tells the diffID of the layer that it got.
type chooser func(t *testing.T, ref, host string) (digest.Digest, error)

// TestChoices lets the real runtimes pull constructed indexes; what they take is what pkg/index predicts from the same records.
func TestChoices(t *testing.T) {
	data, err := os.ReadFile(choicesFile)
	require.NoError(t, err)
	var cases choices
	require.NoError(t, json.Unmarshal(data, &cases))

	st, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	require.NoError(t, err)
	defer st.Close()
	handler, err := serve.Handler(t.Context(), serve.Options{Store: st})
	require.NoError(t, err)
	server := httptest.NewServer(handler)
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	layers := map[string][]digest.Digest{}
	for i, name := range caseNames(cases) {
		repo := fmt.Sprintf("choices/case%d", i)
		c, diffIDs := constructed(name, cases[name].Entries)
		testimage.WriteStore(t, st, repo+":1", c)
		layers[name] = diffIDs
	}
	for _, rt := range []index.Runtime{index.Crane, index.Podman, index.Containerd, index.DockerEngine20} {
		t.Run(string(rt), func(t *testing.T) {
			choose := choosers[rt](t)
			for i, name := range caseNames(cases) {
				for _, machine := range cases[name].Hosts {
					got, err := choose(t, fmt.Sprintf("%s/choices/case%d:1", host, i), machine)
					at := -1
					if err == nil {
						at = slices.Index(layers[name], got)
						require.GreaterOrEqual(t, at, 0, "%s on %s took something else: %s", name, machine, got)
					} else {
						t.Logf("%s on %s: %v", name, machine, err)
					}
					if *updateChoices {
						if cases[name].Choices[machine] == nil {
							if cases[name].Choices == nil {
								cases[name].Choices = map[string]map[index.Runtime]int{}
							}
							cases[name].Choices[machine] = map[index.Runtime]int{}
						}
						cases[name].Choices[machine][rt] = at
						continue
					}
					assert.Equal(t, cases[name].Choices[machine][rt], at, "%s on %s", name, machine)
				}
			}
		})
	}
	if *updateChoices {
		data, err := json.MarshalIndent(cases, "", "  ")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(choicesFile, append(data, '\n'), 0o644))
	}
}

func caseNames(cases choices) []string {
	names := make([]string, 0, len(cases))
	for n := range cases {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// constructed makes the index of a case, and tells the layer of each entry.
func constructed(name string, entries []string) (testimage.Content, []digest.Digest) {
	var children []testimage.Content
	var diffIDs []digest.Digest
	for i, e := range entries {
		platform, bare := strings.CutPrefix(e, "-")
		if e == "+" {
			platform = "unknown/unknown"
		}
		layer := testimage.Layer(testimage.File("who", fmt.Sprintf("%s %d", name, i)))
		c := testimage.Image(platform, layer)
		if bare {
			c.Desc.Platform = nil
		}
		if e == "+" {
			c.Desc.Annotations = map[string]string{index.AnnotationReferenceType: "attestation-manifest"}
		}
		children, diffIDs = append(children, c), append(diffIDs, layer.DiffID())
	}
	return testimage.Index(children...), diffIDs
}

// choosers starts the runtimes; one that is not installed skips its test.
var choosers = map[index.Runtime]func(*testing.T) chooser{
	index.Crane:          startCrane,
	index.Podman:         startSkopeo,
	index.Containerd:     startContainerd,
	index.DockerEngine20: startDocker, // Debian's
}

func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			lacks(t, "%s is not installed (Debian has it)", p)
		}
	}
}

// lacks ends a test for which this machine lacks something: what decides (CI=true) must have it.
func lacks(t *testing.T, format string, a ...any) {
	t.Helper()
	if os.Getenv("CI") == "true" && os.Getuid() == 0 {
		t.Fatalf(format, a...)
	}
	t.Skipf(format, a...)
}

// startCrane is the library that crane is made of.
func startCrane(*testing.T) chooser {
	return func(t *testing.T, ref, host string) (digest.Digest, error) {
		r, err := name.ParseReference(ref, name.Insecure)
		require.NoError(t, err)
		p, err := v1.ParsePlatform(host)
		require.NoError(t, err)
		img, err := remote.Image(r, remote.WithPlatform(*p), remote.WithContext(t.Context()))
		if err != nil {
			return "", err
		}
		config, err := img.ConfigFile()
		if err != nil {
			return "", err
		}
		return digest.Digest(config.RootFS.DiffIDs[0].String()), nil
	}
}

// startSkopeo stands for what podman, buildah and CRI-O choose by: the same library. The machine's variant is given as
// that library finds it on such a machine.
func startSkopeo(t *testing.T) chooser {
	needs(t, "skopeo")
	policy := filepath.Join(t.TempDir(), "policy.json")
	require.NoError(t, os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600))
	return func(t *testing.T, ref, host string) (digest.Digest, error) {
		p := testimage.Platform(host)
		if p.Architecture == "arm64" && p.Variant == "" {
			p.Variant = "v8"
		}
		args := []string{"--policy", policy, "--override-os", p.OS, "--override-arch", p.Architecture}
		if p.Variant != "" {
			args = append(args, "--override-variant", p.Variant)
		}
		out, err := output(exec.Command("skopeo", append(args, "inspect", "--config", "--tls-verify=false", "docker://"+ref)...))
		if err != nil {
			return "", err
		}
		var config ocispec.Image
		require.NoError(t, json.Unmarshal(out, &config))
		return config.RootFS.DiffIDs[0], nil
	}
}

// daemon starts a program and waits until ready succeeds.
func daemon(t *testing.T, ready func() error, program string, args ...string) {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	for range 1200 { // two minutes
		err := ready()
		if err == nil {
			return
		}
		select {
		case <-ended:
			lacks(t, "%s does not run here: %s", program, tail(log.String()))
		case <-time.After(100 * time.Millisecond):
		}
	}
	t.Fatalf("%s does not answer: %s", program, tail(log.String()))
}

func tail(s string) string { return s[max(0, len(s)-1000):] }

func output(cmd *exec.Cmd) ([]byte, error) {
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, tail(string(exit.Stderr)))
	}
	return out, err
}

// startContainerd runs one of its own. What was taken is what is mounted.
func startContainerd(t *testing.T) chooser {
	needs(t, "containerd", "ctr")
	if os.Getuid() != 0 {
		t.Skip("containerd wants to be root")
	}
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	config := filepath.Join(dir, "config.toml")
	require.NoError(t, os.WriteFile(config, []byte("version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n"), 0o600))
	ctr := func(args ...string) *exec.Cmd { return exec.Command("ctr", append([]string{"-a", socket}, args...)...) }
	daemon(t, func() error { return ctr("version").Run() },
		"containerd", "--config", config, "--root", filepath.Join(dir, "root"), "--state", filepath.Join(dir, "state"), "--address", socket)
	n := 0
	return func(t *testing.T, ref, host string) (digest.Digest, error) {
		n++
		space := fmt.Sprintf("n%d", n)
		// Everything is fetched, so that what is taken is decided by what a client mounts or runs, as on a machine of that platform.
		if _, err := output(ctr("-n", space, "content", "fetch", "--all-platforms", "--plain-http", ref)); err != nil {
			return "", err
		}
		at := filepath.Join(dir, space)
		require.NoError(t, os.Mkdir(at, 0o755))
		if _, err := output(ctr("-n", space, "images", "mount", "--snapshotter", "native", "--platform", host, ref, at)); err != nil {
			return "", err
		}
		defer func() {
			_, err := output(ctr("-n", space, "images", "unmount", at))
			assert.NoError(t, err)
		}()
		who, err := os.ReadFile(filepath.Join(at, "who"))
		if err != nil {
			return "", err
		}
		layer := testimage.Layer(testimage.File("who", string(who)))
		return layer.DiffID(), nil
	}
}

// startDocker runs a dockerd of its own, without a network.
func startDocker(t *testing.T) chooser {
	docker := dockerd(t)
	return func(t *testing.T, ref, machine string) (digest.Digest, error) {
		if _, err := output(docker("pull", "-q", "--platform", machine, ref)); err != nil {
			return "", err
		}
		out, err := output(docker("image", "inspect", "--format", "{{index .RootFS.Layers 0}}", ref))
		if err != nil {
			return "", err
		}
		_, err = output(docker("image", "rm", "-f", ref))
		return digest.Digest(strings.TrimSpace(string(out))), err
	}
}

// dockerd starts a daemon, and returns its client.
func dockerd(t *testing.T) func(args ...string) *exec.Cmd {
	t.Helper()
	needs(t, "dockerd", "docker", "containerd")
	if os.Getuid() != 0 {
		t.Skip("dockerd wants to be root")
	}
	dir := t.TempDir()
	t.Cleanup(func() { unmountBelow(t, dir) }) // a network namespace, when it ran something
	host := "unix://" + filepath.Join(dir, "s")
	docker := func(args ...string) *exec.Cmd {
		c := exec.Command("docker", append([]string{"-H", host}, args...)...)
		c.Env = append(os.Environ(), "DOCKER_CONFIG="+dir, "HOME="+dir, "DOCKER_CLI_EXPERIMENTAL=enabled")
		return c
	}
	daemon(t, func() error { return docker("version").Run() },
		"dockerd", "-H", host, "--data-root", filepath.Join(dir, "root"), "--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"),
		"--storage-driver", "vfs", "--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-masq=false")
	return docker
}
