package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/internal/testregistry"
)

// craneProgram is crane, built once from the version that tools/go.mod pins.
var craneProgram = sync.OnceValues(func() (string, error) {
	out := filepath.Join(shared.dir, "crane")
	c := exec.Command("go", "build", "-modfile=../../tools/go.mod", "-o", out, "github.com/google/go-containerregistry/cmd/crane")
	text, err := c.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("building crane: %w\n%s", err, text)
	}
	return out, err
})

// registryAt is a registry that peers talk to.
type registryAt struct {
	addr  string
	certs string // directory with ca.crt; "": http
	creds string // USER:PASSWORD; "": none
}

// peer is a program that pushes to registries and pulls from them.
type peer struct {
	// push writes the image or index of an OCI layout ("DIR:TAG") under REPO:TAG.
	push func(t *testing.T, layout, name string)
	// pull reads REPO:TAG and returns the digest of what it got, "" when the program keeps none.
	pull func(t *testing.T, name string) digest.Digest
	// single: it handles one platform at a time.
	single bool
}

// TestInterop: skopeo, podman, crane, umoci and dockerd push to serve and pull from it, of every kind: a directory, the
// store, and a directory with users and TLS.
func TestInterop(t *testing.T) {
	w := root(t)
	if os.Getuid() != 0 {
		w = who{name: "self", home: t.TempDir()}
	}
	layer := func(text string) testimage.LayerData {
		return testimage.Layer(testimage.Dir("etc"), testimage.File("etc/who", text)).Gzip()
	}
	amd := testimage.Image("linux/amd64", layer("base"), layer("amd64"))
	idx := testimage.Index(amd, testimage.Image("linux/arm64", layer("base"), layer("arm64")))
	layout := filepath.Join(shortDir(t), "layout") // podman makes a name of it
	testimage.WriteLayout(t, layout, map[string]testimage.Content{"index": idx, "image": amd})
	// What a peer read at a registry is read again by us.
	seen := func(t *testing.T, r registryAt, name string) digest.Digest {
		c := w.command(r.env(t), "digest", r.addr+"/"+name)
		return digest.Digest(strings.TrimSpace(ok(t, c).stdout))
	}
	registries := map[string]func(t *testing.T) registryAt{
		"directory": func(t *testing.T) registryAt {
			return registryAt{addr: startServe(t, w, filepath.Join(t.TempDir(), "registry")).addr}
		},
		"store": func(t *testing.T) registryAt {
			at := who{name: w.name, home: t.TempDir()}
			return registryAt{addr: startServe(t, at).addr}
		},
		"users and TLS": func(t *testing.T) registryAt {
			at := who{name: w.name, home: t.TempDir()}
			args := append(secured(t, at), filepath.Join(at.home, "registry"))
			return registryAt{addr: startServe(t, at, args...).addr, certs: filepath.Join(at.home, "certs"), creds: testUser + ":" + testPassword}
		},
	}
	peers := map[string]func(t *testing.T, r registryAt) peer{
		"skopeo": skopeoPeer, "podman": podmanPeer, "crane": cranePeer, "dockerd": dockerdPeer,
		"umoci": func(t *testing.T, r registryAt) peer { return umociPeer(t, w, r) },
	}
	for kind, start := range registries {
		t.Run(kind, func(t *testing.T) {
			r := start(t)
			for name, open := range peers {
				t.Run(name, func(t *testing.T) {
					p := open(t, r)
					repo := "team/" + name
					what := map[string]testimage.Content{"image": amd}
					if !p.single {
						what["index"] = idx
					}
					for tag, c := range what {
						p.push(t, layout+":"+tag, repo+":"+tag)
						pushed := seen(t, r, repo+":"+tag)
						if name != "dockerd" && name != "podman" { // they write manifests of their own
							assert.Equal(t, c.Desc.Digest, pushed)
						}
						if got := p.pull(t, repo+":"+tag); got != "" {
							assert.Equal(t, pushed, got)
						}
					}
					// What we push, they pull.
					ok(t, w.command(r.env(t), "copy", "oci:"+layout+":index", r.addr+"/"+repo+":ours"))
					if got := p.pull(t, repo+":ours"); got != "" && !p.single {
						assert.Equal(t, idx.Desc.Digest, got)
					}
				})
			}
		})
	}
}

// env is what our client needs to be told.
func (r registryAt) env(t *testing.T) []string {
	t.Helper()
	if r.creds == "" {
		return nil
	}
	auth, err := json.Marshal(map[string]any{"auths": map[string]any{r.addr: map[string]string{
		"username": testUser, "password": testPassword,
	}}})
	require.NoError(t, err)
	return []string{"DOCKER_AUTH_CONFIG=" + string(auth), "SSL_CERT_FILE=" + filepath.Join(r.certs, "ca.crt")}
}

// containersFlags are what skopeo and podman need; prefix is "src-", "dest-" or "".
func (r registryAt) containersFlags(prefix string) []string {
	if r.certs == "" {
		return []string{"--" + prefix + "tls-verify=false"}
	}
	return []string{"--" + prefix + "cert-dir=" + r.certs, "--" + prefix + "creds=" + r.creds}
}

// ran runs a command that must end well.
func ran(t *testing.T, c *exec.Cmd) string {
	t.Helper()
	out, err := output(c)
	require.NoError(t, err, strings.Join(c.Args, " "))
	return strings.TrimSpace(string(out))
}

func skopeoPeer(t *testing.T, r registryAt) peer {
	needs(t, "skopeo")
	home := t.TempDir()
	skopeo := func(args ...string) *exec.Cmd {
		c := exec.Command("skopeo", append([]string{"--insecure-policy"}, args...)...)
		c.Env = append(os.Environ(), "HOME="+home, "XDG_RUNTIME_DIR="+home)
		return c
	}
	return peer{
		push: func(t *testing.T, layout, name string) {
			args := append([]string{"copy", "--all", "--preserve-digests"}, r.containersFlags("dest-")...)
			ran(t, skopeo(append(args, "oci:"+layout, "docker://"+r.addr+"/"+name)...))
		},
		pull: func(t *testing.T, name string) digest.Digest {
			dir := t.TempDir()
			args := append([]string{"copy", "--all", "--preserve-digests"}, r.containersFlags("src-")...)
			ran(t, skopeo(append(args, "docker://"+r.addr+"/"+name, "dir:"+dir)...))
			raw, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
			require.NoError(t, err)
			return digest.FromBytes(raw)
		},
	}
}

func podmanPeer(t *testing.T, r registryAt) peer {
	needs(t, "podman")
	if os.Getuid() != 0 {
		t.Skip("podman as an ordinary user wants its own set-up")
	}
	podman := storageTool(t, "podman", "unused.invalid")
	return peer{
		single: true,
		push: func(t *testing.T, layout, name string) {
			id := ran(t, podman("pull", "-q", "oci:"+layout))
			args := append([]string{"push", "--signature-policy", storagePolicy(t), "-q"}, r.containersFlags("")...)
			ran(t, podman(append(args, id, "docker://"+r.addr+"/"+name)...))
		},
		pull: func(t *testing.T, name string) digest.Digest {
			args := append([]string{"pull", "-q", "--platform", "linux/amd64"}, r.containersFlags("")...)
			id := ran(t, podman(append(args, r.addr+"/"+name)...))
			assert.Equal(t, "amd64", ran(t, podman("image", "inspect", "--format", "{{.Architecture}}", id)))
			return ""
		},
	}
}

// shortDir is a temporary directory whose name is short and in lower case, as podman wants.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mctl-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func storagePolicy(t *testing.T) string {
	t.Helper()
	policy := filepath.Join(t.TempDir(), "policy.json")
	require.NoError(t, os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600))
	return policy
}

func cranePeer(t *testing.T, r registryAt) peer {
	program, err := craneProgram()
	require.NoError(t, err)
	home := t.TempDir()
	crane := func(args ...string) *exec.Cmd {
		c := exec.Command(program, args...)
		c.Env = append(os.Environ(), "HOME="+home, "DOCKER_CONFIG="+home)
		if r.certs != "" {
			c.Env = append(c.Env, "SSL_CERT_FILE="+filepath.Join(r.certs, "ca.crt"))
		}
		return c
	}
	if r.creds != "" {
		ran(t, crane("auth", "login", "-u", testUser, "-p", testPassword, r.addr))
	}
	return peer{
		push: func(t *testing.T, layout, name string) {
			// crane pushes the one image of a layout.
			dir, tag := layout[:strings.LastIndexByte(layout, ':')], layout[strings.LastIndexByte(layout, ':')+1:]
			one := filepath.Join(t.TempDir(), "one")
			ok(t, exec.Command(shared.bin, "copy", "oci:"+dir+":"+tag, "oci:"+one+":x"))
			ran(t, crane("push", one, r.addr+"/"+name))
		},
		pull: func(t *testing.T, name string) digest.Digest {
			ran(t, crane("validate", "--remote", r.addr+"/"+name))
			dir := filepath.Join(t.TempDir(), "out")
			ran(t, crane("pull", "--format", "oci", r.addr+"/"+name, dir))
			raw, err := os.ReadFile(filepath.Join(dir, "index.json"))
			require.NoError(t, err)
			list := digestsIn(t, raw)
			require.Len(t, list, 1)
			return digest.Digest(list[0])
		},
	}
}

// umociPeer works on layouts: what it made is pushed and what it reads is pulled by us.
func umociPeer(t *testing.T, w who, r registryAt) peer {
	needs(t, "umoci")
	return peer{
		single: true,
		push: func(t *testing.T, layout, name string) {
			dir := filepath.Join(t.TempDir(), "copy")
			ok(t, w.command(nil, "copy", "oci:"+layout, "oci:"+dir+":x"))
			ran(t, exec.Command("umoci", "tag", "--image", dir+":x", "umoci"))
			ok(t, w.command(r.env(t), "copy", "oci:"+dir+":umoci", r.addr+"/"+name))
			// And an image of its own making.
			ran(t, exec.Command("umoci", "config", "--image", dir+":x", "--tag", "own", "--config.label", "made.by=umoci"))
			ok(t, w.command(r.env(t), "copy", "oci:"+dir+":own", r.addr+"/"+name+"-own"))
			assert.Contains(t, ok(t, w.command(r.env(t), "inspect", "--format", "{{json .Image}}", r.addr+"/"+name+"-own")).stdout, "made.by")
		},
		pull: func(t *testing.T, name string) digest.Digest {
			dir := t.TempDir()
			ok(t, w.command(r.env(t), "copy", "--platform", "linux/amd64", r.addr+"/"+name, "oci:"+filepath.Join(dir, "in")+":x"))
			args := []string{"unpack", "--image", filepath.Join(dir, "in") + ":x", filepath.Join(dir, "bundle")}
			if os.Getuid() != 0 {
				args = append([]string{"unpack", "--rootless"}, args[1:]...)
			}
			ran(t, exec.Command("umoci", args...))
			who, err := os.ReadFile(filepath.Join(dir, "bundle", "rootfs", "etc", "who"))
			require.NoError(t, err)
			assert.Equal(t, "amd64", string(who))
			return ""
		},
	}
}

// dockerdPeer trusts any certificate of the loopback, as dockerd does.
func dockerdPeer(t *testing.T, r registryAt) peer {
	needs(t, "skopeo")
	docker := dockerd(t)
	if r.creds != "" {
		login := docker("login", "-u", testUser, "--password-stdin", r.addr)
		login.Stdin = strings.NewReader(testPassword)
		ran(t, login)
		wrong := docker("login", "-u", testUser, "--password-stdin", r.addr)
		wrong.Stdin = strings.NewReader("wrong")
		assert.Error(t, wrong.Run())
	}
	return peer{
		single: true,
		push: func(t *testing.T, layout, name string) {
			file := filepath.Join(t.TempDir(), "image.tar")
			ran(t, exec.Command("skopeo", "--insecure-policy", "copy", "-q", "oci:"+layout, "docker-archive:"+file+":"+r.addr+"/"+name))
			ran(t, docker("load", "-i", file))
			ran(t, docker("push", r.addr+"/"+name))
			ran(t, docker("image", "rm", "-f", r.addr+"/"+name))
		},
		pull: func(t *testing.T, name string) digest.Digest {
			ran(t, docker("pull", "-q", "--platform", "linux/amd64", r.addr+"/"+name))
			got := ran(t, docker("image", "inspect", "--format", "{{.Architecture}} {{index .RepoDigests 0}}", r.addr+"/"+name))
			ran(t, docker("image", "rm", "-f", r.addr+"/"+name))
			arch, at, _ := strings.Cut(got, " ")
			assert.Equal(t, "amd64", arch)
			_, d, _ := strings.Cut(at, "@")
			return digest.Digest(d)
		},
	}
}

// TestInterop_dockerRegistry: we push to Debian's docker-registry and pull from it, with and without a name; and it pulls
// from serve, as a mirror of it.
func TestInterop_dockerRegistry(t *testing.T) {
	w := root(t)
	if os.Getuid() != 0 {
		w = who{name: "self", home: t.TempDir()}
	}
	amd := testimage.Image("linux/amd64", testimage.Layer(testimage.File("a", "b")).Gzip())
	idx := testimage.Index(amd, testimage.Image("linux/arm64", testimage.Layer(testimage.File("a", "c")).Gzip()))
	layout := filepath.Join(w.home, "layout")
	testimage.WriteLayout(t, layout, map[string]testimage.Content{"index": idx})
	theirs := debianRegistry(t)
	ok(t, w.command(nil, "copy", "oci:"+layout+":index", theirs+"/app:1"))
	back := filepath.Join(w.home, "back")
	assert.Contains(t, ok(t, w.command(nil, "copy", theirs+"/app:1", "oci:"+back+":1")).stdout, idx.Desc.Digest.String())
	raw, err := os.ReadFile(filepath.Join(back, "blobs", "sha256", idx.Desc.Digest.Encoded()))
	require.NoError(t, err)
	assert.Equal(t, idx.Raw(), raw)

	ours := startServe(t, w, filepath.Join(w.home, "registry")).addr
	ok(t, w.command(nil, "copy", theirs+"/app:1", ours+"/app:1"))
	ok(t, w.command(nil, "copy", ours+"/app:1", theirs+"/again:1"))
	mirror := testregistry.DebianWith(t, "proxy: {remoteurl: \"http://"+ours+"\"}\n", "", "")
	assert.Equal(t, idx.Desc.Digest.String()+"\n", ok(t, w.command(nil, "digest", mirror+"/app:1")).stdout)
	ok(t, w.command(nil, "copy", mirror+"/app:1", "oci:"+filepath.Join(w.home, "mirrored")+":1"))

	// serve is a cache of it, for peers too; what was not kept is not there without it.
	needs(t, "skopeo")
	cache := filepath.Join(w.home, "cache")
	proxy := startServe(t, w, "--proxy", theirs, cache).addr
	pulled := filepath.Join(w.home, "pulled")
	skopeo := func(addr string, to string) {
		ran(t, exec.Command("skopeo", "--insecure-policy", "copy", "-q", "--all", "--src-tls-verify=false", "docker://"+addr+"/app:1", "oci:"+pulled+":"+to))
	}
	skopeo(proxy, "1")
	gone := startServe(t, w, "--offline", "--proxy", theirs, cache+"-other").addr
	assert.Equal(t, 1, do(t, w.command(nil, "digest", gone+"/app:1")).code, "nothing was kept there")
	skopeo(proxy, "2")
	assert.Equal(t, idx.Desc.Digest.String()+"\n", ok(t, w.command(nil, "digest", "oci:"+pulled+":2")).stdout)

	// With a name, over TLS.
	secured(t, w)
	certs := filepath.Join(w.home, "certs")
	locked := testregistry.DebianWith(t, fmt.Sprintf("auth: {htpasswd: {realm: test, path: %q}}\n", filepath.Join(certs, "htpasswd")),
		filepath.Join(certs, "cert.pem"), filepath.Join(certs, "key.pem"))
	r := registryAt{addr: locked, certs: certs, creds: testUser + ":" + testPassword}
	assert.Equal(t, 7, do(t, w.command([]string{"SSL_CERT_FILE=" + filepath.Join(certs, "ca.crt")}, "copy", "oci:"+layout+":index", locked+"/app:1")).code)
	ok(t, w.command(r.env(t), "copy", "oci:"+layout+":index", locked+"/app:1"))
	ok(t, w.command(r.env(t), "copy", locked+"/app:1", ours+"/from-locked:1"))
	assert.Equal(t, idx.Desc.Digest.String()+"\n", ok(t, w.command(nil, "digest", ours+"/from-locked:1")).stdout)
}

// TestInterop_layout: what was carried across an air gap is pulled by peers from the archive itself.
func TestInterop_layout(t *testing.T) {
	w := root(t)
	if os.Getuid() != 0 {
		w = who{name: "self", home: t.TempDir()}
	}
	idx := testimage.Index(testimage.Image("linux/amd64", testimage.Layer(testimage.File("etc/who", "amd64")).Gzip()), testimage.Image("linux/arm64", testimage.Layer(testimage.File("etc/who", "arm64")).Gzip()))
	archive := filepath.Join(w.home, "carried.tar")
	require.NoError(t, os.WriteFile(archive, testimage.OCIArchive(map[string]testimage.Content{"1.0": idx}), 0o644))
	r := registryAt{addr: startServe(t, w, "oci-archive:"+archive).addr}
	for name, open := range map[string]func(t *testing.T, r registryAt) peer{"skopeo": skopeoPeer, "podman": podmanPeer, "crane": cranePeer, "dockerd": dockerdPeer} {
		t.Run(name, func(t *testing.T) {
			if got := open(t, r).pull(t, "carried:1.0"); got != "" {
				assert.Equal(t, idx.Desc.Digest, got)
			}
		})
	}
	resp, err := http.Get("http://" + r.addr + "/v2/_catalog")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, http.StatusOK, resp.StatusCode)
}
