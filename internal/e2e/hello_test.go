package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// helloTree is examples/hello with its programs compiled, made once.
var helloTree = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(shared.dir, "hello")
	if err := os.CopyFS(dir, os.DirFS("../../examples/hello")); err != nil {
		return "", err
	}
	c := exec.Command(filepath.Join(dir, "build.sh"))
	c.Stderr = os.Stderr
	return dir, c.Run()
})

func hello(t *testing.T, w who, name string) string {
	t.Helper()
	dir, err := helloTree()
	require.NoError(t, err)
	return w.copyTree(t, dir, name)
}

// machines is what uname -m says in the image of each platform.
var machines = map[string]string{
	"linux/amd64": "x86_64", "linux/arm64": "aarch64", "linux/arm/v7": "armv7l", "linux/riscv64": "riscv64", "linux/s390x": "s390x",
}

// epoch fixes the times of what RUN steps write: a clock is the only thing that would differ.
var epoch = []string{"SOURCE_DATE_EPOCH=1700000000"}

func TestHelloIsTheSameForEverybody(t *testing.T) {
	registry := debianRegistry(t)
	digests := map[string]string{}
	for _, w := range everybody(t) {
		tree := hello(t, w, "checkout")
		r := ok(t, w.command(epoch, "build", "--progress", "plain", "-t", registry+"/hello:"+w.name, "--push", tree))
		digests[w.name] = digestOf(t, r)

		for platform, machine := range machines {
			out := filepath.Join(w.home, "out-"+strings.ReplaceAll(platform, "/", "-"))
			spec := w.dir(t, "pull")
			require.NoError(t, os.WriteFile(filepath.Join(spec, "rootfs.yaml"),
				[]byte("version: 1\nplatforms: ["+platform+"]\nfrom: "+registry+"/hello:"+w.name+"\nsteps: []\n"), 0o644))
			ok(t, w.command(nil, "build", "-o", "type=local,dest="+out, spec))
			parent, err := os.ReadFile(filepath.Join(out, "var/lib/hello/parent"))
			require.NoError(t, err)
			child, err := os.ReadFile(filepath.Join(out, "var/lib/hello/child"))
			require.NoError(t, err)
			assert.Equal(t, machine+"\n", string(parent), "%s as %s", platform, w.name)
			assert.Equal(t, "hello from "+machine+"\n", string(child), "%s as %s", platform, w.name)
		}
		again := ok(t, w.command(epoch, "build", "--progress", "plain", "-t", registry+"/hello:again", "--push", tree))
		assert.Equal(t, digests[w.name], digestOf(t, again))
		assert.Equal(t, len(machines), strings.Count(again.stderr, "RUN [\"/usr/bin/hello\"")+strings.Count(again.stderr, "RUN /usr/bin/hello"), again.stderr)
		assert.GreaterOrEqual(t, strings.Count(again.stderr, "CACHED"), len(machines), "a second build runs nothing:\n%s", again.stderr)
	}

	w := everybody(t)[0]
	for name, tc := range map[string]struct {
		env   []string
		args  []string
		umask int
	}{
		"another directory and time zone": {env: []string{"TZ=Asia/Tokyo", "LC_ALL=tr_TR.UTF-8"}},
		"umask 077":                       {umask: 0o077},
		"one worker":                      {args: []string{"--parallel", "1"}},
		"four workers":                    {args: []string{"--parallel", "4"}},
	} {
		t.Run(name, func(t *testing.T) {
			tree := hello(t, w, "elsewhere/"+strings.ReplaceAll(name, " ", "-"))
			if tc.umask != 0 { // a checkout made under that umask, and the build as well
				require.NoError(t, filepath.WalkDir(tree, func(p string, d os.DirEntry, err error) error {
					if err != nil {
						return err
					}
					i, err := d.Info()
					if err != nil {
						return err
					}
					return os.Chmod(p, i.Mode().Perm()&^os.FileMode(tc.umask))
				}))
				old := syscall.Umask(tc.umask)
				defer syscall.Umask(old)
			}
			args := append([]string{"build", "--no-cache"}, tc.args...)
			digests[name] = digestOf(t, ok(t, w.command(append(tc.env, epoch...), append(args, tree)...)))
		})
	}
	var want string
	for _, d := range digests {
		want = d
	}
	for name, d := range digests {
		assert.Equal(t, want, d, "%s: all are %v", name, digests)
	}
}

func TestPeersReadWhatWasPushed(t *testing.T) {
	registry := debianRegistry(t)
	w := everybody(t)[0]
	image := registry + "/hello:1.0"
	digest := digestOf(t, ok(t, w.command(nil, "build", "-t", image, "--push", hello(t, w, "hello"))))

	t.Run("registry", func(t *testing.T) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+registry+"/v2/hello/manifests/1.0", nil)
		require.NoError(t, err)
		req.Header.Set("Accept", "application/vnd.oci.image.index.v1+json")
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Equal(t, digest, resp.Header.Get("Docker-Content-Digest"))
		ours := ok(t, w.command(nil, "inspect", "--raw", image))
		assert.Equal(t, string(raw), ours.stdout, "--raw is the exact bytes")
	})
	t.Run("skopeo", func(t *testing.T) {
		raw := ok(t, w.other(nil, tool(t, "skopeo"), "inspect", "--tls-verify=false", "--raw", "docker://"+image))
		ours := ok(t, w.command(nil, "inspect", "--raw", image))
		assert.Equal(t, raw.stdout, ours.stdout)
		var index struct {
			Manifests []struct {
				Platform struct{ Architecture, Variant string }
			}
		}
		require.NoError(t, json.Unmarshal([]byte(raw.stdout), &index))
		assert.Len(t, index.Manifests, len(machines))
	})
	t.Run("podman", func(t *testing.T) {
		if os.Getuid() != 0 {
			t.Skip("podman with a store of its own needs root or a session of the user's")
		}
		runroot, err := os.MkdirTemp("/tmp", "pod-") // at most 50 characters
		require.NoError(t, err)
		defer os.RemoveAll(runroot)
		store := []string{"--root", filepath.Join(w.home, "podman"), "--runroot", runroot, "--storage-driver", "vfs"}
		podman := func(args ...string) *exec.Cmd {
			return w.other([]string{"BUILDAH_RUNTIME=runc"}, tool(t, "podman"), append(append([]string{}, store...), args...)...)
		}
		ok(t, podman("pull", "--tls-verify=false", "--arch", "arm64", image))
		arch := ok(t, podman("image", "inspect", "--format", "{{.Architecture}}", image))
		assert.Equal(t, "arm64\n", arch.stdout)
		ok(t, podman("rmi", "--all"))
	})
	t.Run("umoci", func(t *testing.T) {
		layout := filepath.Join(w.home, "layout")
		ok(t, w.other(nil, tool(t, "skopeo"), "copy", "--src-tls-verify=false", "--override-arch", "arm64", "docker://"+image, "oci:"+layout+":arm64"))
		args := []string{"unpack", "--image", layout + ":arm64"}
		if os.Getuid() != 0 {
			args = append(args, "--rootless")
		}
		bundle := filepath.Join(w.home, "bundle")
		ok(t, w.other(nil, tool(t, "umoci"), append(args, bundle)...))
		parent, err := os.ReadFile(filepath.Join(bundle, "rootfs/var/lib/hello/parent"))
		require.NoError(t, err)
		assert.Equal(t, "aarch64\n", string(parent))
		link, err := os.Readlink(filepath.Join(bundle, "rootfs/usr/bin/hi"))
		require.NoError(t, err)
		assert.Equal(t, "hello", link)
	})
}

// What is pushed to our registry, peers copy to another one and back without changing a byte.
func TestOurRegistryForPeers(t *testing.T) {
	for _, w := range everybody(t) {
		t.Run(w.name, func(t *testing.T) {
			ours, theirs := ourRegistry(t, w), debianRegistry(t)
			digest := digestOf(t, ok(t, w.command(nil, "build", "-t", ours+"/team/hello:1.0", "--push", hello(t, w, "hello"))))
			skopeo := func(from, to string) {
				ok(t, w.other(nil, tool(t, "skopeo"), "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+from, "docker://"+to))
			}
			skopeo(ours+"/team/hello:1.0", theirs+"/hello:1.0")
			skopeo(theirs+"/hello:1.0", ours+"/back/again:1.0")
			for _, ref := range []string{theirs + "/hello:1.0", ours + "/back/again:1.0"} {
				assert.Contains(t, ok(t, w.command(nil, "inspect", ref)).stdout, digest, ref)
			}
		})
	}
}
