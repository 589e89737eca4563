package source_test

import (
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/source"
)

// gitServer serves a repository with a tag, a branch and a submodule over http.
func gitServer(t *testing.T, authorization string) (url, first, second string) {
	t.Helper()
	program, err := exec.LookPath("git")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("git is not installed: make deps")
		}
		t.Skip("git is not installed: make deps")
	}
	dir := t.TempDir()
	git := func(in string, args ...string) string {
		t.Helper()
		c := exec.Command(program, args...)
		c.Dir = filepath.Join(dir, in)
		c.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b.example", "GIT_COMMITTER_NAME=a",
			"GIT_COMMITTER_EMAIL=a@b.example", "GIT_COMMITTER_DATE=1600000000 +0000", "GIT_AUTHOR_DATE=1600000000 +0000")
		out, err := c.CombinedOutput()
		require.NoError(t, err, "git %v: %s", args, out)
		return strings.TrimSpace(string(out))
	}
	backend := filepath.Join(git(".", "--exec-path"), "git-http-backend")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if authorization != "" && r.Header.Get("Authorization") != authorization {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		(&cgi.Handler{Path: backend, Env: []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}}).ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)

	for _, name := range []string{"sub", "repo"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o755))
		git(name, "init", "-q", "-b", "main")
		require.NoError(t, os.WriteFile(filepath.Join(dir, name, "file"), []byte(name+"\n"), 0o644))
		git(name, "add", ".")
		git(name, "commit", "-q", "-m", "first")
	}
	first = git("repo", "rev-parse", "HEAD")
	git("repo", "tag", "-a", "v1", "-m", "v1")
	git("repo", "branch", "old")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "repo/.gitmodules"), []byte("[submodule \"sub\"]\n\tpath = sub\n\turl = "+srv.URL+"/sub\n"), 0o644))
	git("repo", "update-index", "--add", "--cacheinfo", "160000,"+git("sub", "rev-parse", "HEAD")+",sub")
	git("repo", "add", ".gitmodules")
	git("repo", "commit", "-q", "-m", "second")
	second = git("repo", "rev-parse", "HEAD")
	return srv.URL + "/repo", first, second
}

func TestGit(t *testing.T) {
	url, first, second := gitServer(t, "")
	for name, tc := range map[string]struct {
		req  source.GitRequest
		want string
		sub  bool
	}{
		"HEAD":           {source.GitRequest{}, second, true},
		"branch":         {source.GitRequest{Ref: "old"}, first, false},
		"full name":      {source.GitRequest{Ref: "refs/heads/main"}, second, true},
		"annotated tag":  {source.GitRequest{Ref: "v1"}, first, false},
		"commit":         {source.GitRequest{Ref: first}, first, false},
		"no submodules":  {source.GitRequest{NoSubmodule: true}, second, false},
		"right checksum": {source.GitRequest{Ref: "v1", Checksum: first[:12]}, first, false},
	} {
		t.Run(name, func(t *testing.T) {
			tc.req.Remote = url
			g, err := source.NewGit(t.TempDir(), tc.req)
			require.NoError(t, err)
			commit, err := g.Resolve(t.Context())
			require.NoError(t, err)
			assert.Equal(t, tc.want, commit)
			when, err := g.Checkout(t.Context(), commit)
			require.NoError(t, err)
			assert.EqualValues(t, 1_600_000_000, when.Unix())
			data, err := os.ReadFile(filepath.Join(g.Tree(), "file"))
			require.NoError(t, err)
			assert.Equal(t, "repo\n", string(data))
			_, err = os.Stat(filepath.Join(g.Tree(), "sub/file"))
			assert.Equal(t, tc.sub, err == nil)
		})
	}
	for name, req := range map[string]source.GitRequest{
		"no such ref":    {Ref: "nothing"},
		"wrong checksum": {Ref: "v1", Checksum: strings.Repeat("0", 40)},
	} {
		t.Run(name, func(t *testing.T) {
			req.Remote = url
			g, err := source.NewGit(t.TempDir(), req)
			require.NoError(t, err)
			_, err = g.Resolve(t.Context())
			require.ErrorIs(t, err, source.ErrGit)
		})
	}
}

func TestGitToken(t *testing.T) {
	header := source.BasicToken("s3cret")
	url, first, _ := gitServer(t, header)
	g, err := source.NewGit(t.TempDir(), source.GitRequest{Remote: url, Ref: "v1"})
	require.NoError(t, err)
	_, err = g.Resolve(t.Context())
	require.ErrorIs(t, err, source.ErrGit, "without the token")
	g, err = source.NewGit(t.TempDir(), source.GitRequest{Remote: url, Ref: "v1", Authorization: header})
	require.NoError(t, err)
	commit, err := g.Resolve(t.Context())
	require.NoError(t, err)
	assert.Equal(t, first, commit)
}

func TestGit_E22_refused(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "ran")
	for name, req := range map[string]source.GitRequest{
		"a helper":          {Remote: "ext::sh -c touch% " + mark},
		"another helper":    {Remote: "fd::17/foo"},
		"an option":         {Remote: "--upload-pack=touch " + mark},
		"a short option":    {Remote: "-u" + mark},
		"an option as ref":  {Remote: "https://host.example/x", Ref: "--upload-pack=touch " + mark},
		"a checksum option": {Remote: "https://host.example/x", Checksum: "-x"},
		"a line break":      {Remote: "https://host.example/x", Ref: "a\nb"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := source.NewGit(t.TempDir(), req)
			require.ErrorIs(t, err, source.ErrGit)
		})
	}
	t.Run("a path of this machine", func(t *testing.T) {
		for _, remote := range []string{"file:///etc", "/etc"} {
			g, err := source.NewGit(t.TempDir(), source.GitRequest{Remote: remote})
			require.NoError(t, err)
			_, err = g.Resolve(t.Context())
			require.ErrorIs(t, err, source.ErrGit)
			assert.ErrorContains(t, err, "not allowed")
		}
	})
	assert.NoFileExists(t, mark)
}
