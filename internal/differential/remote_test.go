package differential

import (
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/oracle"
)

// TestDifferential_remote builds from git and from archives with the time of their source as SOURCE_DATE_EPOCH, on both
// sides: what is fetched is not in a case, and so not recorded.
func TestDifferential_remote(t *testing.T) {
	if os.Getenv("MANIFESTCTL_DIFFERENTIAL") == "" {
		t.Skip("it builds and runs a BuildKit: make differential")
	}
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	bin, err := oracle.Binaries(t.Context(), root)
	require.NoError(t, err)
	daemon, err := oracle.Start(t.Context(), bin, t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { _ = daemon.Close() })
	us := program(t)
	url := remoteSources(t)
	for name, tc := range map[string]struct{ context, epoch string }{
		"git":                     {"/git/app/.git#main", "context"},
		"git and a number":        {"/git/app/.git#main", "1600000000"},
		"archive":                 {"/dated/app.tar", "context"},
		"archive without a date":  {"/undated/app.tar", "context"},
		"a stage that adds a URL": {"/git/app/.git#main", "source"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			// An equal file of another case, with another time, would be in its cache.
			prune, err := daemon.Command(t.Context(), "prune", "--all").CombinedOutput()
			require.NoError(t, err, "%s", prune)
			theirs, ours := filepath.Join(dir, "theirs"), filepath.Join(dir, "ours")
			out, err := daemon.Command(t.Context(), "build", "--progress", "plain", "--frontend", "dockerfile.v0",
				"--opt", "context="+url+tc.context, "--opt", "build-arg:SOURCE_DATE_EPOCH="+tc.epoch, "--opt", "build-arg:URL="+url,
				"--output", "type=oci,rewrite-timestamp=true,dest="+theirs).CombinedOutput()
			require.NoError(t, err, "%s", out)
			c := exec.CommandContext(t.Context(), us, "--root", filepath.Join(dir, "store"), "build", "--progress", "plain", "--verify=off",
				"--build-arg", "SOURCE_DATE_EPOCH="+tc.epoch, "--build-arg", "URL="+url, "--output", "type=oci,rewrite-timestamp=true,dest="+ours, url+tc.context)
			out, err = c.CombinedOutput()
			require.NoError(t, err, "%s", out)
			want, err := describe(theirs, nil)
			require.NoError(t, err)
			got, err := describe(ours, nil)
			require.NoError(t, err)
			assert.Equal(t, want, got)
		})
	}
}

// remoteSources serves a repository and the same as an archive, with and without a date, and gives the server's address.
func remoteSources(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	repo := filepath.Join(dir, "app")
	require.NoError(t, os.Mkdir(repo, 0o755))
	then := time.Unix(1_580_000_000, 0)
	for name, text := range map[string]string{
		"Dockerfile": "FROM scratch AS source\nARG URL\nADD $URL/dated/app.tar /\nFROM scratch\nCOPY a /\nWORKDIR /w\nLABEL b=c\n", "a": "A\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(repo, name), []byte(text), 0o644))
		require.NoError(t, os.Chtimes(filepath.Join(repo, name), then, then))
	}
	git := func(args ...string) {
		t.Helper()
		c := exec.CommandContext(t.Context(), "git", append([]string{"-C", repo, "-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main"}, args...)...)
		c.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_DATE=1500000000 +0000", "GIT_COMMITTER_DATE=1590000000 +0200")
		out, err := c.CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	archive := filepath.Join(dir, "app.tar")
	out, err := exec.CommandContext(t.Context(), "tar", "-C", repo, "-cf", archive, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	dated := time.Unix(1_570_000_000, 0)
	require.NoError(t, os.Chtimes(archive, dated, dated))
	git("init", "-q")
	git("add", "-A")
	git("commit", "-q", "-m", "one")
	program, err := exec.LookPath("git")
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/git/", &cgi.Handler{
		Path: program, Args: []string{"http-backend"}, Root: "/git",
		Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	})
	mux.Handle("/dated/", http.StripPrefix("/dated/", http.FileServer(http.Dir(dir))))
	mux.HandleFunc("/undated/app.tar", func(w http.ResponseWriter, r *http.Request) {
		data, err := os.ReadFile(archive)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(data)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}
