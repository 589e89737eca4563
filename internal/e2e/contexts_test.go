package e2e

import (
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestRemoteContexts builds from git over https's smart protocol (without TLS), from an archive and from a Dockerfile alone.
func TestRemoteContexts(t *testing.T) {
	w := everybody(t)[0]
	dir := t.TempDir()
	repo := filepath.Join(dir, "app")
	for name, text := range map[string]string{
		"Dockerfile": "FROM scratch\nCOPY . /\n", "a": "A\n", ".dockerignore": "a\n", "sub/Dockerfile": "FROM scratch\nCOPY b /\n", "sub/b": "B\n",
	} {
		p := filepath.Join(repo, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(p), 0o755))
		require.NoError(t, os.WriteFile(p, []byte(text), 0o644))
	}
	git := func(args ...string) {
		t.Helper()
		c := exec.Command(tool(t, "git"), append([]string{"-C", repo, "-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main"}, args...)...)
		c.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		must(t, c)
	}
	git("init", "-q")
	git("add", "-A")
	git("commit", "-q", "-m", "one")
	git("branch", "old")
	require.NoError(t, os.WriteFile(filepath.Join(repo, "new"), []byte("N\n"), 0o644))
	git("add", "-A")
	git("commit", "-q", "-m", "two")
	must(t, exec.Command("tar", "-C", repo, "--exclude=.git", "-czf", filepath.Join(dir, "app.tar.gz"), "."))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "only"), []byte("FROM scratch\nLABEL a=b\n"), 0o644))

	backend := &cgi.Handler{
		Path: tool(t, "git"), Args: []string{"http-backend"}, Root: "/git",
		Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
	mux := http.NewServeMux()
	mux.Handle("/git/", backend)
	mux.Handle("/", http.FileServer(http.Dir(dir)))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)

	for name, tc := range map[string]struct {
		context string
		args    []string
		has     []string
		hasNot  []string
	}{
		"git":                 {"/git/app/.git#main", nil, []string{"a", "new", "sub/b"}, []string{".git"}},
		"git and a branch":    {"/git/app/.git#old", nil, []string{"a"}, []string{"new"}},
		"git and a directory": {"/git/app/.git#main:sub", nil, []string{"b"}, []string{"a"}},
		"git and -f":          {"/git/app/.git#main:sub", []string{"-f", "Dockerfile"}, []string{"b"}, nil},
		"archive":             {"/app.tar.gz", nil, []string{"a", "sub/b"}, nil},
		"Dockerfile":          {"/only", []string{"--label", "x=y"}, nil, []string{"a"}},
	} {
		t.Run(name, func(t *testing.T) {
			out := filepath.Join(w.dir(t, "out"), name)
			ok(t, w.command(nil, append(append([]string{"build", "--progress=plain", "-o", "type=local,dest=" + out}, tc.args...), server.URL+tc.context)...))
			for _, f := range tc.has {
				assert.FileExists(t, filepath.Join(out, f))
			}
			for _, f := range tc.hasNot {
				assert.NoFileExists(t, filepath.Join(out, f))
			}
		})
	}
	// The time of the commit or of the download is SOURCE_DATE_EPOCH when that is asked for.
	c := exec.Command(tool(t, "git"), "-C", repo, "log", "-1", "--format=%ct", "main")
	c.Env = append(os.Environ(), "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
	when, err := c.Output()
	require.NoError(t, err)
	committed := strings.TrimSpace(string(when))
	info, err := os.Stat(filepath.Join(dir, "app.tar.gz"))
	require.NoError(t, err)
	for context, want := range map[string]string{"/git/app/.git#main": committed, "/app.tar.gz": strconv.FormatInt(info.ModTime().Unix(), 10)} {
		var digests []string
		for _, epoch := range []string{"context", want} {
			built := ok(t, w.command(nil, "build", "-q", "-t", "dated", "--build-arg", "SOURCE_DATE_EPOCH="+epoch, "-o", "type=image,rewrite-timestamp=true", server.URL+context))
			digests = append(digests, built.stdout)
			assert.Equal(t, want+"\n", ok(t, w.command(nil, "inspect", "-f", "{{.Image.Created.Unix}}", "store:dated")).stdout, "%s with %s", context, epoch)
		}
		assert.Equal(t, digests[1], digests[0], context)
	}
	r := do(t, w.command(nil, "build", "-q", server.URL+"/git/app/.git#nowhere"))
	assert.NotZero(t, r.code)
	assert.Contains(t, r.stderr, "nowhere")
}
