package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/oracle"
	"github.com/manifestctl/manifestctl/internal/testregistry"
)

// TestNodeRoutes: what this machine's user says of registries counts on a node, which has been told nothing of it. The node
// knows registry.test by name, and trusts it; everything else is this machine's.
func TestNodeRoutes(t *testing.T) {
	bin := buildkitHere(t)
	needs(t, "unshare", "htpasswd")
	w := root(t)
	ca, err := testregistry.NewAuthority("registry.test")
	require.NoError(t, err)
	cert, key, err := ca.Issue(time.Now().Add(-time.Minute), "registry.test", "127.0.0.1")
	require.NoError(t, err)
	write := func(name string, data []byte) string {
		path := filepath.Join(w.home, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, data, 0o644))
		return path
	}
	hosts := write("hosts", []byte("127.0.0.1 localhost registry.test\n"))
	authority := write("ca.pem", ca.PEM)
	users := filepath.Join(w.home, "users")
	must(t, exec.Command("htpasswd", "-Bbc", users, "me", "secret"))
	private := startServe(t, w, "--tls-cert", write("cert.pem", cert), "--tls-key", write("key.pem", key), "--htpasswd", users)
	_, port, _ := strings.Cut(private.addr, ":")
	named := "registry.test:" + port + "/base:1"

	// inside runs a command where registry.test is a name of this machine.
	inside := func(c *exec.Cmd) *exec.Cmd {
		args := append([]string{"--mount", "sh", "-c", "mount --bind " + hosts + ` /etc/hosts && exec "$@"`, "sh"}, c.Args...)
		in := exec.Command(tool(t, "unshare"), args...)
		in.Env, in.Dir = c.Env, c.Dir
		return in
	}
	wrapped := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(wrapped, "buildkitd"), fmt.Appendf(nil,
		"#!/bin/sh\nexec unshare --mount sh -c 'mount --bind %s /etc/hosts && exec \"$@\"' sh %s/buildkitd \"$@\"\n", hosts, bin), 0o755))
	require.NoError(t, os.Symlink(filepath.Join(bin, "buildctl"), filepath.Join(wrapped, "buildctl")))
	state := t.TempDir()
	node, err := oracle.StartWith(t.Context(), wrapped, state, oracle.Options{Env: []string{"SSL_CERT_FILE=" + authority}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = node.Close(); unmountBelow(t, state) })

	registry := debianRegistry(t)
	base := nodeBase(t, w, registry)
	ok(t, w.command(nil, "builder", "create", "--name", "node", "--use", node.Addr))
	certs := write("trust/ca.crt", ca.PEM)
	ok(t, inside(w.command(nil, "copy", "--ca-file", certs, "--creds", "registry.test:"+port+"=me:secret", base, named)))

	dir := w.dir(t, "app")
	build := func(from string, env []string, args ...string) *exec.Cmd {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+from+"\nRUN echo here > /here\n"), 0o644))
		return inside(w.command(env, append(append([]string{"build", "--progress=plain", "--no-cache"}, args...), dir)...))
	}
	login := []string{"--creds", "registry.test:" + port + "=me:secret"}
	trusted := []string{"SSL_CERT_FILE=" + authority}

	t.Run("by its name", func(t *testing.T) { // the node pulls it, with our credentials
		r := ok(t, build(named, trusted, login...))
		assert.Contains(t, r.stderr, "FROM registry.test:"+port+"/base:1")
		assert.Contains(t, r.stderr, "[node0 ")
		assert.NotContains(t, r.stderr, "images are sent to it")
	})
	t.Run("a node that cannot pull", func(t *testing.T) { // it does not trust the registry, and this machine does
		other := t.TempDir()
		d, err := oracle.StartWith(t.Context(), wrapped, other, oracle.Options{})
		require.NoError(t, err)
		t.Cleanup(func() { _ = d.Close(); unmountBelow(t, other) })
		ok(t, w.command(nil, "builder", "create", "--name", "distrustful", d.Addr))
		r := ok(t, build(named, trusted, append(login, "--builder", "distrustful")...))
		assert.Contains(t, r.stderr, "images are sent to it from here")
		assert.Contains(t, r.stderr, "certificate")
		assert.Regexp(t, `\[distrustful0 [^]]*2/2\] RUN echo here`, r.stderr, "what is done then is shown")
		spec := w.dir(t, "spec")
		require.NoError(t, os.WriteFile(filepath.Join(spec, "rootfs.yaml"), []byte("version: 1\nplatforms: [linux/amd64]\nfrom: "+named+"\nsteps: [{run: 'echo spec > /spec'}]\n"), 0o644))
		r = ok(t, inside(w.command(trusted, append([]string{"build", "--progress=plain", "--builder", "distrustful", spec}, login...)...)))
		assert.Contains(t, r.stderr, "images are sent to it from here")
	})
	t.Run("certificates", func(t *testing.T) { // --ca-file is this machine's
		ok(t, build(named, nil, append(login, "--ca-file", certs)...))
	})
	t.Run("insecure", func(t *testing.T) {
		ok(t, build(named, nil, append(login, "--insecure=registry.test")...))
	})
	conf := func(text string) []string {
		return []string{"CONTAINERS_REGISTRIES_CONF=" + write("registries.conf", []byte(text))}
	}
	t.Run("a mirror", func(t *testing.T) { // nobody is called upstream.invalid
		ok(t, build("upstream.invalid/base:root", conf("[[registry]]\nlocation = \"upstream.invalid\"\n[[registry.mirror]]\nlocation = \""+registry+"\"\ninsecure = true\n")))
	})
	t.Run("another place", func(t *testing.T) {
		ok(t, build("upstream.invalid/base:root", conf("[[registry]]\nprefix = \"upstream.invalid\"\nlocation = \""+registry+"\"\ninsecure = true\n")))
	})
	t.Run("blocked", func(t *testing.T) {
		env := append(conf("[[registry]]\nlocation = \"registry.test:"+port+"\"\nblocked = true\n"), trusted...)
		for _, from := range []string{named, base + "\nCOPY --from=" + named + " /etc/passwd /p", base + "\nRUN --mount=from=" + named + ",target=/m true"} {
			r := do(t, build(from, env, login...))
			assert.Equal(t, 7, r.code, "%s: %s", from, r.stderr)
			assert.Contains(t, r.stderr, "blocked by registries.conf")
		}
		r := do(t, build(base, env, append(login, "--cache-to", "type=registry,ref=registry.test:"+port+"/cache:1")...))
		assert.Equal(t, 7, r.code, r.stderr)
		assert.Contains(t, r.stderr, "blocked by registries.conf")
	})
	t.Run("caches", func(t *testing.T) {
		// BuildKit itself writes them: http and TLS that is not verified are told to it, certificates cannot be.
		cache := "type=registry,ref=registry.test:" + port + "/cache:2"
		r := ok(t, build(base, nil, append(login, "--insecure=registry.test", "--cache-to", cache)...))
		assert.NotContains(t, r.stderr, "buildkitd.toml")
		ok(t, inside(w.command(nil, append([]string{"digest", "--insecure=registry.test", "registry.test:" + port + "/cache:2-linux-amd64"}, login...)...)))
		r = ok(t, build(base, nil, append(login, "--ca-file", certs, "--cache-to", cache)...))
		assert.Contains(t, r.stderr, "buildkitd.toml")
		assert.Contains(t, r.stderr, `[registry."registry.test:`+port+`"]`)
		assert.Contains(t, r.stderr, "ca = [")
	})
}
