package serve_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testregistry"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/serve"
)

// login is a keychain for every registry.
type login struct{ user, pass string }

func (l login) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.FromConfig(authn.AuthConfig{Username: l.user, Password: l.pass}), nil
}

// noWait retries at once.
func noWait(ctx context.Context, _ time.Duration) error { return ctx.Err() }

// upstream is a registry with an image, and a proxy of it.
func upstream(t *testing.T, change func(*serve.Options)) (up *testregistry.Registry, im image, proxy api) {
	t.Helper()
	up = testregistry.New(t, testregistry.Options{})
	im = newImage(t, "arm64", 300_000)
	im.push(t, registry.New(registry.Options{}), mustParse(t, "docker://"+up.Host+"/team/app:1.0"))
	o := serve.Options{Dir: filepath.Join(t.TempDir(), "kept"), Proxy: up.Host, Upstream: registry.Options{Sleep: noWait, Keychain: login{}}}
	if change != nil {
		change(&o)
	}
	return up, im, api{t, "http://" + start(t, o)}
}

func (a api) pull(repo, tag string, im image) {
	a.t.Helper()
	for path, want := range map[string][]byte{
		"manifests/" + tag: im.raw, "manifests/" + im.desc.Digest.String(): im.raw,
		"blobs/" + digest.FromBytes(im.config).String(): im.config, "blobs/" + digest.FromBytes(im.layer).String(): im.layer,
	} {
		res := a.call("GET", "/v2/"+repo+"/"+path, nil)
		require.Equal(a.t, http.StatusOK, res.status, "%s %s", path, res.body)
		require.Equal(a.t, digest.FromBytes(want), digest.FromBytes(res.body), path)
	}
}

// down makes the other registry lose every request.
func down(up *testregistry.Registry) { up.When("", "/", 0, testregistry.Reset()) }

// TestProxy keeps what it fetched: a second pull asks for the tag only, and one without the other registry is as good.
func TestProxy(t *testing.T) {
	up, im, proxy := upstream(t, nil)
	proxy.pull("team/app", "1.0", im)
	before := len(up.Settled(t))
	assert.Equal(t, 2, up.Count("GET", "/blobs/"))
	proxy.pull("team/app", "1.0", im)
	asked := up.Settled(t)[before:]
	require.Len(t, asked, 1)
	assert.Equal(t, "HEAD", asked[0].Method)
	assert.Contains(t, asked[0].Path, "/manifests/1.0")

	head := proxy.call("HEAD", "/v2/team/app/blobs/"+digest.FromBytes(im.layer).String(), nil)
	assert.Equal(t, "300000", head.header.Get("Content-Length"))
	assert.Contains(t, string(proxy.call("GET", "/v2/team/app/tags/list", nil).body), `"1.0"`)
	up.When("", "/v2/none/", 0, testregistry.Status(http.StatusNotFound, "NAME_UNKNOWN"))
	for name, path := range map[string]string{
		"tag": "/v2/team/app/manifests/none", "manifest": "/v2/team/app/manifests/" + digest.FromString("x").String(),
		"blob": "/v2/team/app/blobs/" + digest.FromString("x").String(), "repository": "/v2/none/tags/list",
		"blob of another repository": "/v2/other/blobs/" + digest.FromBytes(im.layer).String(),
	} {
		assert.Equal(t, http.StatusNotFound, proxy.call("GET", path, nil).status, name)
	}
	for _, c := range []struct{ method, path string }{
		{"PUT", "/v2/team/app/manifests/2.0"}, {"POST", "/v2/team/app/blobs/uploads/"}, {"DELETE", "/v2/team/app/manifests/1.0"},
	} {
		assert.Equal(t, http.StatusMethodNotAllowed, proxy.call(c.method, c.path, nil).status, "clients only read")
	}

	down(up)
	proxy.pull("team/app", "1.0", im)
	assert.Contains(t, string(proxy.call("GET", "/v2/team/app/tags/list", nil).body), `"1.0"`)
	assert.Equal(t, http.StatusBadGateway, proxy.call("GET", "/v2/team/app/manifests/2.0", nil).status)
	assert.Equal(t, http.StatusBadGateway, proxy.call("GET", "/v2/team/app/blobs/"+digest.FromString("x").String(), nil).status)
}

// TestProxy_tag follows a tag where it goes, and never brings back one that was taken away.
func TestProxy_tag(t *testing.T) {
	up, im, proxy := upstream(t, nil)
	proxy.pull("team/app", "1.0", im)
	next := newImage(t, "arm64", 100)
	c := registry.New(registry.Options{})
	next.push(t, c, mustParse(t, "docker://"+up.Host+"/team/app:1.0"))
	proxy.pull("team/app", "1.0", next)
	up.When("", "/manifests/1.0", 0, testregistry.Status(http.StatusNotFound, "MANIFEST_UNKNOWN"))
	assert.Equal(t, http.StatusNotFound, proxy.call("GET", "/v2/team/app/manifests/1.0", nil).status)
	down(up)
	assert.NotEqual(t, http.StatusOK, proxy.call("GET", "/v2/team/app/manifests/2.0", nil).status)
	assert.NotEqual(t, http.StatusOK, proxy.call("GET", "/v2/team/app/manifests/1.0", nil).status)
}

// TestProxy_F22 lets credentials of neither side cross: a client's stay here, this process's go to the other registry and its own
// token server only, and what a registry says of a realm is no client's business.
func TestProxy_F22(t *testing.T) {
	t.Run("its own", func(t *testing.T) {
		up, im, proxy := upstream(t, func(o *serve.Options) { o.Upstream.Keychain = login{"proxy", "proxy-secret"} })
		up.Bearer("proxy", "proxy-secret")
		proxy.pull("team/app", "1.0", im)
		res := proxy.call("GET", "/v2/team/app/manifests/1.0", nil, "Authorization", "Basic Y2xpZW50OmNsaWVudC1zZWNyZXQ=")
		require.Equal(t, http.StatusOK, res.status)
		for _, r := range up.Settled(t) {
			assert.NotContains(t, r.Auth(), "Y2xpZW50", "a client's credentials")
		}
	})
	t.Run("denied", func(t *testing.T) {
		up, im, proxy := upstream(t, func(o *serve.Options) { o.Upstream.Keychain = login{"proxy", "wrong"} })
		up.Basic("proxy", "proxy-secret")
		for _, path := range []string{"manifests/1.0", "manifests/" + im.desc.Digest.String(), "blobs/" + digest.FromBytes(im.layer).String(), "tags/list", "referrers/" + im.desc.Digest.String()} {
			res := proxy.call("GET", "/v2/team/app/"+path, nil)
			assert.Equal(t, http.StatusForbidden, res.status, path)
			assert.Empty(t, res.header.Get("WWW-Authenticate"), path)
			assert.NotContains(t, string(res.body), up.Host, path)
		}
	})
	t.Run("a realm elsewhere", func(t *testing.T) {
		up, _, proxy := upstream(t, func(o *serve.Options) { o.Upstream.Keychain = login{"proxy", "proxy-secret"} })
		up.When("", "/v2/", 0, testregistry.Status(http.StatusUnauthorized, "UNAUTHORIZED", "WWW-Authenticate", `Bearer realm="https://evil.test/token",service="x"`))
		res := proxy.call("GET", "/v2/team/app/manifests/1.0", nil)
		assert.Equal(t, http.StatusForbidden, res.status, "the realm is refused before anybody looks for it")
		assert.NotContains(t, res.header.Get("WWW-Authenticate")+string(res.body), "evil.test")
	})
	t.Run("a redirect elsewhere", func(t *testing.T) {
		up, im, proxy := upstream(t, func(o *serve.Options) { o.Upstream.Keychain = login{"proxy", "proxy-secret"} })
		up.Basic("proxy", "proxy-secret")
		inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "metadata") }))
		defer inside.Close()
		up.When("GET", "/blobs/", 0, testregistry.Redirect(http.StatusTemporaryRedirect, inside.URL+"/latest/meta-data"))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, proxy.base+"/v2/team/app/blobs/"+digest.FromBytes(im.layer).String(), nil)
		require.NoError(t, err)
		resp, err := plainClient.Do(req)
		if err == nil {
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			assert.NotContains(t, string(body), "metadata", "what is not the blob reaches nobody")
		}
	})
}

// TestProxy_corrupt passes no blob on that is not the one that was asked for, and keeps none.
func TestProxy_corrupt(t *testing.T) {
	up, im, proxy := upstream(t, nil)
	wrong := append([]byte{}, im.layer...)
	wrong[len(wrong)-1] ^= 1
	up.Between("GET", "/blobs/"+digest.FromBytes(im.layer).String(), 1, 1, testregistry.Answer(http.StatusOK, wrong))
	path := "/v2/team/app/blobs/" + digest.FromBytes(im.layer).String()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, proxy.base+path, nil)
	require.NoError(t, err)
	resp, err := plainClient.Do(req)
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	require.ErrorIs(t, err, io.ErrUnexpectedEOF, "the answer is cut")
	assert.Less(t, len(body), len(im.layer))
	proxy.pull("team/app", "1.0", im)
}

// TestProxy_together lets everybody who asks for a blob read it while it arrives once, in ranges too, and whoever leaves
// does not end it.
func TestProxy_together(t *testing.T) {
	up, im, proxy := upstream(t, nil)
	path := "/v2/team/app/blobs/" + digest.FromBytes(im.layer).String()
	up.When("GET", "/blobs/", 0, testregistry.Slow(30_000, 20*time.Millisecond))
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, proxy.base+path, nil)
	require.NoError(t, err)
	resp, err := plainClient.Do(req)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			assert.Equal(t, digest.FromBytes(im.layer), digest.FromBytes(proxy.call("GET", path, nil).body))
		})
		wg.Go(func() {
			res := proxy.call("GET", path, nil, "Range", "bytes=100000-100009")
			assert.Equal(t, http.StatusPartialContent, res.status)
			assert.Equal(t, im.layer[100000:100010], res.body)
		})
	}
	leave()
	_ = resp.Body.Close()
	wg.Wait()
	assert.Equal(t, 1, up.Count("GET", "/blobs/"))
	down(up)
	assert.Equal(t, digest.FromBytes(im.layer), digest.FromBytes(proxy.call("GET", path, nil).body), "it was kept")
}

// TestProxy_meanwhile: a blob that somebody else has had fetched while its size was asked for is not fetched again.
func TestProxy_meanwhile(t *testing.T) {
	up, im, proxy := upstream(t, nil)
	path := "/v2/team/app/blobs/" + digest.FromBytes(im.layer).String()
	up.When("HEAD", "/blobs/", 1, testregistry.Do(func(http.ResponseWriter, *http.Request) bool {
		assert.Equal(t, digest.FromBytes(im.layer), digest.FromBytes(proxy.call("GET", path, nil).body))
		return false
	}))
	assert.Equal(t, digest.FromBytes(im.layer), digest.FromBytes(proxy.call("GET", path, nil).body))
	assert.Equal(t, 1, up.Count("GET", "/blobs/"))
}

// TestProxy_full passes on what it has no room for.
func TestProxy_full(t *testing.T) {
	up, im, proxy := upstream(t, func(o *serve.Options) { o.Limits.Total = 10_000 })
	for range 2 {
		proxy.pull("team/app", "1.0", im)
	}
	assert.Equal(t, 2, up.Count("GET", "/blobs/"+digest.FromBytes(im.layer).String()), "the layer is not kept")
	assert.Equal(t, 1, up.Count("GET", "/blobs/"+digest.FromBytes(im.config).String()), "the config is")
	_, im, proxy = upstream(t, func(o *serve.Options) { o.Limits.Total = 1 })
	proxy.pull("team/app", "1.0", im)
	_, im, proxy = upstream(t, func(o *serve.Options) { o.Limits.Blob = 1000 })
	assert.Equal(t, http.StatusRequestEntityTooLarge, proxy.call("GET", "/v2/team/app/blobs/"+digest.FromBytes(im.layer).String(), nil).status)
}

// TestProxy_sameContent fetches what two repositories share once, and asks for the second whether it has it.
func TestProxy_sameContent(t *testing.T) {
	up, im, proxy := upstream(t, nil)
	im.push(t, registry.New(registry.Options{}), mustParse(t, "docker://"+up.Host+"/team/copy:1.0"))
	proxy.pull("team/app", "1.0", im)
	proxy.pull("team/copy", "1.0", im)
	assert.Equal(t, 2, up.Count("GET", "/blobs/"), "config and layer")
}

// TestProxy_itself ends where it would ask itself.
func TestProxy_itself(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	h, err := serve.Handler(t.Context(), serve.Options{Dir: t.TempDir(), Proxy: l.Addr().String(), Upstream: registry.Options{Sleep: noWait, Keychain: login{}}})
	require.NoError(t, err)
	srv := &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
	srv.Start()
	t.Cleanup(func() { srv.Close(); assert.NoError(t, h.Close()) })
	a := api{t, srv.URL}
	start := time.Now()
	assert.Equal(t, http.StatusBadGateway, a.call("GET", "/v2/a/manifests/1", nil).status)
	assert.Less(t, time.Since(start), 2*time.Minute)
}

func TestProxy_options(t *testing.T) {
	for name, o := range map[string]serve.Options{
		"no directory": {Proxy: "docker.io"},
		"a layout":     {Proxy: "docker.io", Layout: "x"},
		"read-only":    {Proxy: "docker.io", Dir: "x", ReadOnly: true},
		"a digest":     {Proxy: "docker.io/x@sha256:" + strings.Repeat("0", 64)},
		"no host":      {Proxy: "/x"},
		"a scheme":     {Proxy: "https://docker.io"},
	} {
		t.Run(name, func(t *testing.T) {
			if o.Dir == "" && o.Layout == "" && name != "no directory" {
				o.Dir = t.TempDir()
			}
			_, err := serve.Handler(t.Context(), o)
			require.ErrorIs(t, err, serve.ErrInvalid)
		})
	}
}
