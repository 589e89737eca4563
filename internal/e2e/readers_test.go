package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/index"
)

// result of a way to make a list: where it is.
type made struct {
	name string
	ref  string
	args [][]string
	form string // media type
}

// TestReaders: what every command on manifest lists makes is read by podman, buildah, skopeo and dockerd from Debian, in
// their own ways, with the same entries.
func TestReaders(t *testing.T) {
	w := root(t)
	if os.Getuid() != 0 {
		w = who{name: "self", home: t.TempDir()}
	}
	addr := debianRegistry(t)
	layer := func(text string) testimage.LayerData {
		return testimage.Layer(testimage.Dir("etc"), testimage.File("etc/who", text)).Gzip()
	}
	images := map[string]testimage.Content{}
	for _, p := range []string{"amd64", "arm64", "s390x"} {
		images[p] = testimage.Image("linux/"+p, layer("base"), layer(p))
		images["docker-"+p] = testimage.ImageWith(testimage.ImageOptions{Docker: true}, "linux/"+p, layer("base"), layer(p))
	}
	images["base"] = testimage.Index(testimage.Image("linux/amd64", layer("base")), testimage.Image("linux/arm64", layer("base")), testimage.Image("linux/s390x", layer("base")))
	images["new"] = testimage.Index(testimage.Image("linux/amd64", layer("new")), testimage.Image("linux/arm64", layer("new")), testimage.Image("linux/s390x", layer("new")))
	testimage.WriteLayout(t, filepath.Join(w.home, "layout"), images)
	require.NoError(t, os.WriteFile(filepath.Join(w.home, "more.tar"), testimage.Layer(testimage.File("more", "x")).Tar, 0o600))
	for name := range images {
		ok(t, w.command(nil, "copy", "oci:"+filepath.Join(w.home, "layout")+":"+name, addr+"/app:"+name))
	}
	at := func(tag string) string { return addr + "/app:" + tag }
	all := []string{at("amd64"), at("arm64"), at("s390x")}
	ways := []made{
		{"create", at("created"), [][]string{append([]string{"create", at("created")}, all...), {"annotate", "--annotation", "k=v", at("created"), "linux/arm64", "--variant", "v8"}, {"push", at("created")}}, ocispec.MediaTypeImageIndex},
		{"create, docker's form", at("created-docker"), [][]string{{"create", "--format", "docker", at("created-docker"), at("docker-amd64"), at("docker-arm64"), at("docker-s390x")}, {"push", at("created-docker")}}, index.MediaTypeDockerList},
		{"merge", at("merged"), [][]string{append([]string{"merge", "-t", at("merged"), "--annotation", "a=b"}, all...)}, ocispec.MediaTypeImageIndex},
		{"merge --append", at("appended"), [][]string{{"merge", "--append", "-t", at("appended"), at("amd64")}, {"merge", "--append", "-t", at("appended"), at("arm64")}, {"merge", "--append", "-t", at("appended"), at("s390x")}}, ocispec.MediaTypeImageIndex},
		{"mutate", at("mutated"), [][]string{{"mutate", at("merged"), "-t", at("mutated"), "--label", "a=b", "--user", "1000", "-a", "x=y"}}, ocispec.MediaTypeImageIndex},
		{"mutate to docker's form", at("mutated-docker"), [][]string{{"mutate", at("merged"), "-t", at("mutated-docker"), "--format", "docker", "--remove-annotation", "index:a"}}, index.MediaTypeDockerList},
		{"append", at("layered"), [][]string{{"append", at("merged"), filepath.Join(w.home, "more.tar"), "-t", at("layered")}}, ocispec.MediaTypeImageIndex},
		{"flatten", at("flat"), [][]string{{"flatten", at("merged"), "-t", at("flat")}}, ocispec.MediaTypeImageIndex},
		{"rebase", at("rebased"), [][]string{{"rebase", at("merged"), "--old-base", at("base"), "--new-base", at("new"), "-t", at("rebased")}}, ocispec.MediaTypeImageIndex},
		{"copy", at("copied"), [][]string{{"copy", at("merged"), "oci:" + filepath.Join(w.home, "copied")}, {"copy", "oci:" + filepath.Join(w.home, "copied"), at("copied")}}, ocispec.MediaTypeImageIndex},
	}
	for _, m := range ways {
		for _, args := range m.args {
			ok(t, w.command(nil, args...))
		}
	}
	readers := map[string]func(t *testing.T, addr string) func(t *testing.T, m made, d digest.Digest, raw []byte){
		"skopeo": readBySkopeo, "podman": readByPodman, "buildah": readByBuildah, "dockerd": readByDockerd,
	}
	for name, start := range readers {
		t.Run(name, func(t *testing.T) {
			read := start(t, addr)
			for _, m := range ways {
				t.Run(m.name, func(t *testing.T) {
					raw := []byte(ok(t, w.command(nil, "inspect", "--raw", m.ref)).stdout)
					idx, err := index.Parse(raw)
					require.NoError(t, err)
					assert.Equal(t, m.form, idx.MediaType)
					assert.Len(t, idx.Manifests, 3)
					read(t, m, digest.FromBytes(raw), raw)
				})
			}
		})
	}
}

// digestsIn are those of the entries of a list as a program prints it.
func digestsIn(t *testing.T, raw []byte) []string {
	t.Helper()
	var list struct {
		Manifests []struct{ Digest string }
	}
	require.NoError(t, json.Unmarshal(raw, &list), "%s", raw)
	out := make([]string, 0, len(list.Manifests))
	for _, m := range list.Manifests {
		out = append(out, m.Digest)
	}
	slices.Sort(out)
	return out
}

func readBySkopeo(t *testing.T, _ string) func(*testing.T, made, digest.Digest, []byte) {
	needs(t, "skopeo")
	policy := filepath.Join(t.TempDir(), "policy.json")
	require.NoError(t, os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600))
	return func(t *testing.T, m made, d digest.Digest, raw []byte) {
		got, err := output(exec.Command("skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+m.ref))
		require.NoError(t, err)
		assert.Equal(t, string(raw), string(got))
		dir := t.TempDir()
		_, err = output(exec.Command("skopeo", "--policy", policy, "copy", "--all", "--preserve-digests", "--src-tls-verify=false", "docker://"+m.ref, "dir:"+dir))
		require.NoError(t, err)
		got, err = os.ReadFile(filepath.Join(dir, "manifest.json"))
		require.NoError(t, err)
		assert.Equal(t, d, digest.FromBytes(got))
	}
}

func readByPodman(t *testing.T, addr string) func(*testing.T, made, digest.Digest, []byte) {
	needs(t, "podman")
	if os.Getuid() != 0 {
		t.Skip("podman as an ordinary user wants its own set-up")
	}
	podman := storageTool(t, "podman", addr)
	return func(t *testing.T, m made, _ digest.Digest, raw []byte) {
		got, err := output(podman("manifest", "inspect", m.ref))
		require.NoError(t, err)
		assert.Equal(t, digestsIn(t, raw), digestsIn(t, got))
		for _, arch := range []string{"amd64", "arm64", "s390x"} {
			_, err = output(podman("pull", "-q", "--tls-verify=false", "--platform", "linux/"+arch, m.ref))
			require.NoError(t, err)
			got, err = output(podman("image", "inspect", "--format", "{{.Architecture}}", m.ref))
			require.NoError(t, err)
			assert.Equal(t, arch, strings.TrimSpace(string(got)))
		}
	}
}

func readByBuildah(t *testing.T, addr string) func(*testing.T, made, digest.Digest, []byte) {
	needs(t, "buildah")
	if os.Getuid() != 0 {
		t.Skip("buildah as an ordinary user wants its own set-up")
	}
	buildah := storageTool(t, "buildah", addr)
	return func(t *testing.T, m made, _ digest.Digest, raw []byte) {
		got, err := output(buildah("manifest", "inspect", m.ref))
		require.NoError(t, err)
		assert.Equal(t, digestsIn(t, raw), digestsIn(t, got))
	}
}

// storageTool is podman or buildah with a storage of its own.
func storageTool(t *testing.T, name, addr string) func(args ...string) *exec.Cmd {
	t.Helper()
	dir := shortDir(t)
	policy := filepath.Join(dir, "policy.json")
	require.NoError(t, os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600))
	registries := filepath.Join(dir, "registries.conf")
	require.NoError(t, os.WriteFile(registries, fmt.Appendf(nil, "[[registry]]\nlocation = %q\ninsecure = true\n", addr), 0o600))
	return func(args ...string) *exec.Cmd {
		global := []string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver", "vfs"}
		if name == "podman" {
			global = append(global, "--cgroup-manager", "cgroupfs", "--runtime", "runc")
		} else {
			global = append(global, "--registries-conf", registries)
		}
		if args[0] == "pull" { // podman's global option is hidden
			args = append([]string{"pull", "--signature-policy", policy}, args[1:]...)
		}
		c := exec.Command(name, append(global, args...)...)
		c.Env = append(os.Environ(), "CONTAINERS_REGISTRIES_CONF="+registries, "HOME="+dir, "XDG_RUNTIME_DIR="+dir, "BUILDAH_RUNTIME=runc")
		return c
	}
}

func readByDockerd(t *testing.T, addr string) func(*testing.T, made, digest.Digest, []byte) {
	docker := dockerd(t)
	return func(t *testing.T, m made, d digest.Digest, raw []byte) {
		for _, arch := range []string{"amd64", "arm64", "s390x"} {
			_, err := output(docker("pull", "-q", "--platform", "linux/"+arch, m.ref))
			require.NoError(t, err)
			got, err := output(docker("image", "inspect", "--format", "{{.Architecture}} {{index .RepoDigests 0}}", m.ref))
			require.NoError(t, err)
			assert.Equal(t, arch+" "+addr+"/app@"+d.String(), strings.TrimSpace(string(got)))
			_, err = output(docker("image", "rm", "-f", m.ref))
			require.NoError(t, err)
		}
		if m.form == index.MediaTypeDockerList { // docker's own command reads no other
			got, err := output(docker("manifest", "inspect", "--insecure", m.ref))
			require.NoError(t, err)
			assert.Equal(t, digestsIn(t, raw), digestsIn(t, got))
		}
	}
}
