package replica

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testimage"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/serve"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// counter counts requests, and refuses some.
type counter struct {
	http.Handler
	counting sync.Mutex
	lines    []string
	refuse   func(r *http.Request) bool
}

func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.counting.Lock()
	c.lines = append(c.lines, r.Method+" "+r.URL.Path)
	refuse := c.refuse
	c.counting.Unlock()
	if refuse != nil && refuse(r) {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	c.Handler.ServeHTTP(w, r)
}

func (c *counter) reset(refuse func(*http.Request) bool) (lines []string) {
	c.counting.Lock()
	defer c.counting.Unlock()
	lines, c.lines, c.refuse = c.lines, nil, refuse
	return lines
}

func serveRegistry(t testing.TB) (string, *counter) {
	t.Helper()
	h, err := serve.Handler(t.Context(), serve.Options{Dir: t.TempDir()})
	require.NoError(t, err)
	c := &counter{Handler: h}
	srv := httptest.NewServer(c)
	t.Cleanup(func() {
		srv.Close()
		require.NoError(t, h.Close())
	})
	return strings.TrimPrefix(srv.URL, "http://"), c
}

func newEnv(t testing.TB) transfer.Env {
	t.Helper()
	c := registry.New(registry.Options{})
	t.Cleanup(c.Close)
	st, err := store.Open(t.Context(), t.TempDir(), store.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Close()) })
	return transfer.Env{Registry: c, Store: st, Dir: t.TempDir(), Now: time.Now}
}

// fill puts an index of two platforms under each tag of a repository.
func fill(t testing.TB, env transfer.Env, repo string, tags ...string) {
	t.Helper()
	dir := t.TempDir()
	images := map[string]testimage.Content{}
	for _, tag := range tags {
		layer := testimage.Layer(testimage.File("tag", repo+tag)).Gzip()
		images[tag] = testimage.Index(testimage.Image("linux/amd64", layer), testimage.Image("linux/arm64", layer))
	}
	testimage.WriteLayout(t, dir, images)
	for _, tag := range tags {
		dst, err := ref.Parse(repo + ":" + tag)
		require.NoError(t, err)
		_, err = transfer.Copy(t.Context(), env, ref.Ref{Kind: ref.OCILayout, Path: dir, Tag: tag}, dst, transfer.Options{})
		require.NoError(t, err)
	}
}

func planOf(t testing.TB, text, dest string) Plan {
	t.Helper()
	p, err := Parse([]byte(text), ParseOptions{To: to(t, dest)})
	require.NoError(t, err)
	return p
}

func tagsOf(t testing.TB, env transfer.Env, repo string) []string {
	t.Helper()
	r, err := ref.Parse(repo)
	require.NoError(t, err)
	tags, _, err := transfer.Tags(t.Context(), env, r)
	require.NoError(t, err)
	return tags
}

func TestRun(t *testing.T) {
	host, c := serveRegistry(t)
	far, f := serveRegistry(t)
	env := newEnv(t)
	fill(t, env, host+"/team/app", "1.0", "1.1", "2.0", "edge")
	fill(t, env, host+"/db", "15", "16")
	text := fmt.Sprintf(`
version: 1
images:
  - {from: %[1]s/team/app, semver: ">=1.0, <2"}
  - {from: %[1]s/db, tags: ["16"], to: postgres, platforms: [linux/arm64]}
`, host)
	plan := planOf(t, text, far+"/m")

	rep, err := Run(t.Context(), env, plan, Options{DryRun: true})
	require.NoError(t, err)
	assert.Equal(t, 3, rep.Copied)
	assert.Equal(t, WouldCopy, rep.Images[0].Status)
	for _, l := range f.reset(nil) {
		assert.False(t, strings.HasPrefix(l, "P"), l)
	}

	rep, err = Run(t.Context(), env, plan, Options{})
	require.NoError(t, err)
	assert.Equal(t, 3, rep.Copied)
	assert.Positive(t, rep.Bytes)
	assert.Equal(t, []string{"1.0", "1.1"}, tagsOf(t, env, far+"/m/team/app"))
	assert.Equal(t, []string{"16"}, tagsOf(t, env, far+"/m/postgres"))
	assert.Equal(t, host+"/team/app:1.0", rep.Images[0].From)
	assert.Equal(t, far+"/m/postgres:16", rep.Images[2].To)
	raw, err := json.Marshal(rep)
	require.NoError(t, err)
	assert.Contains(t, string(raw), `"status":"copied"`)

	t.Run("again: nothing is written, and little is asked", func(t *testing.T) {
		c.reset(nil)
		f.reset(nil)
		rep, err := Run(t.Context(), env, plan, Options{})
		require.NoError(t, err)
		assert.Equal(t, 3, rep.Unchanged)
		assert.Zero(t, rep.Bytes)
		for _, l := range f.reset(nil) {
			assert.False(t, strings.HasPrefix(l, "P"), l)
		}
		for _, l := range c.reset(nil) {
			assert.NotContains(t, l, "/blobs/", "nothing is read")
		}
	})
	t.Run("a tag that moved", func(t *testing.T) {
		fill(t, env, host+"/other", "x")
		src, err := ref.Parse(host + "/other:x")
		require.NoError(t, err)
		dst, err := ref.Parse(host + "/team/app:1.1")
		require.NoError(t, err)
		_, err = transfer.Copy(t.Context(), env, src, dst, transfer.Options{})
		require.NoError(t, err)
		rep, err := Run(t.Context(), env, plan, Options{})
		require.NoError(t, err)
		assert.Equal(t, []int{1, 2}, []int{rep.Copied, rep.Unchanged})
		assert.Equal(t, far+"/m/team/app:1.1", rep.Images[1].To)
		assert.Equal(t, Copied, rep.Images[1].Status)
	})
	t.Run("other places", func(t *testing.T) {
		for _, dest := range []string{"oci:carry", "store:"} {
			p := planOf(t, text, dest)
			rep, err := Run(t.Context(), env, p, Options{})
			require.NoError(t, err)
			assert.Equal(t, 3, rep.Copied)
			rep, err = Run(t.Context(), env, p, Options{})
			require.NoError(t, err)
			assert.Equal(t, 3, rep.Unchanged)
			assert.Equal(t, []string{"1.0", "1.1"}, tagsOf(t, env, p.Jobs[0].To.String()))
		}
	})
}

// TestRun_failures: a failure ends a run, or with KeepGoing is told at its end; the next run makes it good.
func TestRun_failures(t *testing.T) {
	host, c := serveRegistry(t)
	far, _ := serveRegistry(t)
	env := newEnv(t)
	fill(t, env, host+"/a", "1", "2", "3")
	fill(t, env, host+"/b", "1")
	text := fmt.Sprintf("%s: {images: {a: ['1', '2', '3', '4'], b: [], gone: []}}", host)
	plan := planOf(t, text, far)
	bad := func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/a/manifests/2") }

	c.reset(bad)
	_, err := Run(t.Context(), env, plan, Options{})
	require.Error(t, err)

	rep, err := Run(t.Context(), env, plan, Options{KeepGoing: true})
	require.ErrorIs(t, err, registry.ErrDenied)
	require.ErrorIs(t, err, source.ErrNotFound)
	assert.Equal(t, 3, rep.Failed, "one is refused, a tag and a repository are missing")
	assert.Equal(t, []string{"1", "3"}, tagsOf(t, env, far+"/a"))
	assert.Equal(t, []string{"1"}, tagsOf(t, env, far+"/b"))
	c.reset(nil)
	rep, err = Run(t.Context(), env, plan, Options{KeepGoing: true})
	require.ErrorIs(t, err, source.ErrNotFound)
	assert.Equal(t, 1, rep.Copied)
	assert.Equal(t, []string{"1", "2", "3"}, tagsOf(t, env, far+"/a"))

	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(context.Canceled)
	_, err = Run(ctx, env, plan, Options{KeepGoing: true})
	require.ErrorIs(t, err, context.Canceled)
}

// TestRun_skopeo: of the same file, skopeo makes the same tags of the same digests.
func TestRun_skopeo(t *testing.T) {
	bin, err := exec.LookPath("skopeo")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("skopeo is missing: make deps")
		}
		t.Skip("this machine lacks Debian's package skopeo: make deps")
	}
	host, _ := serveRegistry(t)
	ours, _ := serveRegistry(t)
	theirs, _ := serveRegistry(t)
	env := newEnv(t)
	fill(t, env, host+"/team/app", "1.0", "1.1", "2.0", "edge")
	fill(t, env, host+"/db", "15", "16")
	fill(t, env, host+"/web", "a")
	text := fmt.Sprintf(`
%s:
    tls-verify: false
    images:
        db: ["16"]
        web: []
    images-by-tag-regex:
        team/app: ^1\.
`, host)
	_, err = Run(t.Context(), env, planOf(t, text, ours+"/m"), Options{})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "sync.yml")
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	out, err := exec.Command(bin, "--insecure-policy", "sync", "--all", "--dest-tls-verify=false", "--src", "yaml", "--dest", "docker", file, theirs+"/m").CombinedOutput()
	require.NoError(t, err, "%s", out)
	for _, repo := range []string{"/m/app", "/m/db", "/m/web"} {
		tags := tagsOf(t, env, ours+repo)
		assert.Equal(t, tagsOf(t, env, theirs+repo), tags)
		for _, tag := range tags {
			a, err := env.Registry.Resolve(t.Context(), parsed(t, ours+repo+":"+tag))
			require.NoError(t, err)
			b, err := env.Registry.Resolve(t.Context(), parsed(t, theirs+repo+":"+tag))
			require.NoError(t, err)
			assert.Equal(t, b.Digest, a.Digest)
		}
	}
}

func parsed(t testing.TB, s string) ref.Ref {
	t.Helper()
	r, err := ref.Parse(s)
	require.NoError(t, err)
	return r
}

// TestLimiter: units are spaced, and a pause is made up for by one second's worth at most.
func TestLimiter(t *testing.T) {
	at := time.Unix(1000, 0)
	var slept time.Duration
	l := newLimiter(10, func() time.Time { return at }, func(_ context.Context, d time.Duration) error {
		slept += d
		at = at.Add(d)
		return nil
	})
	for range 11 {
		require.NoError(t, l.wait(t.Context(), 1))
	}
	assert.Zero(t, slept, "a second's worth at once")
	for range 20 {
		require.NoError(t, l.wait(t.Context(), 1))
	}
	assert.InDelta(t, 2, slept.Seconds(), 0.11)
	slept = 0
	require.NoError(t, l.wait(t.Context(), 100))
	require.NoError(t, l.wait(t.Context(), 1))
	assert.InDelta(t, 10, slept.Seconds(), 0.3)
	assert.Nil(t, newLimiter(0, nil, nil))
	require.NoError(t, (*limiter)(nil).wait(t.Context(), 5))
}

// TestRun_limit: bytes are read no faster than a file says.
func TestRun_limit(t *testing.T) {
	host, _ := serveRegistry(t)
	far, _ := serveRegistry(t)
	env := newEnv(t)
	fill(t, env, host+"/a", "1")
	plan := planOf(t, "version: 1\nlimit: {rate: 100B}\nimages: [{from: "+host+"/a}]", far)
	var slept time.Duration
	var adding sync.Mutex
	rep, err := Run(t.Context(), env, plan, Options{Sleep: func(_ context.Context, d time.Duration) error {
		adding.Lock()
		defer adding.Unlock()
		slept = max(slept, d)
		return nil
	}})
	require.NoError(t, err)
	assert.Positive(t, rep.Bytes)
	assert.Greater(t, slept, time.Second)
}

func ExampleParse() {
	dest, err := transfer.ParsePlace("registry.internal/mirror")
	if err != nil {
		panic(err)
	}
	p, err := Parse([]byte("registry.example: {images-by-semver: {team/app: '>= 1.20'}}"), ParseOptions{To: &dest})
	fmt.Println(p.Jobs[0].From, p.Jobs[0].To, err)
	// Output: registry.example/team/app registry.internal/mirror/app <nil>
}
