package registry_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// guard makes a fake want a bearer token of a realm, which is on the fake itself
// unless one is given. Tokens are counted; each is good for its scope.
type guard struct {
	f     *fake
	realm string

	mu      sync.Mutex
	fetched []string // "SCOPE by USER"
	issued  map[string]bool
	revoked map[string]bool
}

func newGuard(f *fake, scheme string) *guard {
	g := &guard{f: f, realm: scheme + "://" + f.host + "/token", issued: map[string]bool{}, revoked: map[string]bool{}}
	f.when("", "/v2/", 0, func(w http.ResponseWriter, r *http.Request) bool {
		scope := "repository:" + repoOf(r.URL.Path) + ":pull"
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			scope += ",push"
		}
		if from := r.URL.Query().Get("from"); from != "" {
			scope += " repository:" + from + ":pull"
		}
		got := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		g.mu.Lock()
		defer g.mu.Unlock()
		if raw, err := base64.URLEncoding.DecodeString(got); got != "" && err == nil && !g.revoked[got] {
			allowed := true
			for _, s := range strings.Fields(scope) {
				allowed = allowed && (strings.Contains(string(raw), s+" ") || strings.Contains(string(raw), s+",push "))
			}
			if allowed {
				return false
			}
		}
		return status(401, "UNAUTHORIZED", "WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="fake",scope=%q`, g.realm, scope))(w, r)
	})
	f.when("", "/token", 0, func(w http.ResponseWriter, r *http.Request) bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		user, _, _ := r.BasicAuth()
		scopes := strings.Join(r.URL.Query()["scope"], " ")
		if r.Method == http.MethodPost {
			_ = r.ParseForm()
			scopes, user = r.PostForm.Get("scope"), "refresh "+r.PostForm.Get("refresh_token")
		}
		g.fetched = append(g.fetched, scopes+" by "+user)
		token := base64.URLEncoding.EncodeToString([]byte(fmt.Sprintf("%s #%d ", scopes, len(g.fetched))))
		fmt.Fprintf(w, `{"token":%q,"expires_in":-1,"issued_at":"garbage"}`, token)
		return true
	})
	return g
}

func repoOf(path string) string {
	for _, cut := range []string{"/blobs/", "/manifests/", "/tags/"} {
		if i := strings.Index(path, cut); i >= 0 {
			return strings.TrimPrefix(path[:i], "/v2/")
		}
	}
	return ""
}

func (g *guard) tokens() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.fetched...)
}

func (g *guard) revokeAll() {
	for _, s := range g.f.requests() {
		g.mu.Lock()
		g.revoked[strings.TrimPrefix(s.auth, "Bearer ")] = true
		g.mu.Unlock()
	}
}

func TestAuth_drivenBy401(t *testing.T) {
	f := newFake(t)
	g := newGuard(f, "http")
	layer, layerBytes := randomBlob(t, 1000)
	f.put("app", layerBytes)
	f.putManifest("app", "1", ocispec.MediaTypeImageManifest, imageManifest("x"))
	c := client(registry.Options{})
	r := mustParse(t, f.host+"/app:1")

	_, _, err := c.Manifest(t.Context(), r)
	require.NoError(t, err)
	assert.Equal(t, []string{"repository:app:pull by "}, g.tokens())
	assert.Equal(t, "/v2/app/manifests/1", f.requests()[0].path, "no ping")
	_, err = pull(t, c, f.host+"/app:1", layer)
	require.NoError(t, err)
	assert.Len(t, g.tokens(), 1, "the token is used again")

	// A token for pushing serves pulls too; mounting needs one of both repositories.
	desc, other := randomBlob(t, 2000)
	_, err = c.PushBlob(t.Context(), r, desc, opener(other), nil)
	require.NoError(t, err)
	has, err := c.HasBlob(t.Context(), r, desc.Digest)
	require.NoError(t, err)
	assert.True(t, has)
	assert.Len(t, g.tokens(), 2)
	up, err := c.PushBlob(t.Context(), mustParse(t, f.host+"/b:1"), desc, opener(other), []ref.Ref{r})
	require.NoError(t, err)
	assert.False(t, up)
	tokens := g.tokens()
	assert.Equal(t, "repository:b:pull,push repository:app:pull by ", tokens[len(tokens)-1])
}

func TestAuth_oneTokenForManyWorkers(t *testing.T) {
	f := newFake(t)
	g := newGuard(f, "http")
	c := client(registry.Options{Keychain: someone})
	var wg sync.WaitGroup
	for i := range 16 {
		desc, b := randomBlob(t, 100+i)
		f.put("app", b)
		wg.Go(func() {
			_, err := c.HasBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc.Digest)
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	assert.Equal(t, []string{"repository:app:pull by someone"}, g.tokens())
}

func TestAuth_C04_tokenExpiresDuringUpload(t *testing.T) {
	f := newFake(t)
	g := newGuard(f, "http")
	c := client(registry.Options{})
	r := mustParse(t, f.host+"/app:1")
	desc, b := randomBlob(t, 100<<10)
	first := true
	_, err := c.PushBlob(t.Context(), r, desc, func(ctx context.Context) (io.ReadCloser, error) {
		if first { // between the POST and the PUT
			g.revokeAll()
			first = false
		}
		return opener(b)(ctx)
	}, nil)
	require.NoError(t, err)
	assert.True(t, f.holds("app", b))
	assert.Len(t, g.tokens(), 2)
	g.revokeAll()
	_, err = c.PushManifest(t.Context(), r, ocispec.MediaTypeImageManifest, imageManifest("x"))
	require.NoError(t, err)
	assert.Len(t, g.tokens(), 3)
}

func TestAuth_C01_401ForEver(t *testing.T) {
	f := newFake(t)
	fetches := 0
	f.when("", "/v2/", 0, status(401, "UNAUTHORIZED", "WWW-Authenticate", `Bearer realm="http://`+f.host+`/token",service="s",scope="repository:app:pull"`))
	f.when("", "/token", 0, func(w http.ResponseWriter, r *http.Request) bool {
		fetches++
		fmt.Fprint(w, `{"access_token":"x"}`)
		return true
	})
	_, _, err := client(registry.Options{Keychain: someone}).Manifest(t.Context(), mustParse(t, f.host+"/app:1"))
	require.ErrorIs(t, err, registry.ErrDenied)
	assert.LessOrEqual(t, fetches, 2)
	assert.Contains(t, err.Error(), "/token")
	assert.Contains(t, err.Error(), "repository:app:pull")
	assert.Contains(t, err.Error(), f.host+"/app:1")
	assert.NotContains(t, err.Error(), "s3cret")
}

func TestAuth_basic(t *testing.T) {
	f := newFake(t)
	f.when("", "/v2/", 0, func(w http.ResponseWriter, r *http.Request) bool {
		if u, p, _ := r.BasicAuth(); u == "someone" && p == "s3cret" {
			return false
		}
		return status(401, "UNAUTHORIZED", "WWW-Authenticate", `Basic realm="fake"`)(w, r)
	})
	f.putManifest("app", "1", ocispec.MediaTypeImageManifest, imageManifest("x"))
	c := client(registry.Options{Keychain: someone})
	r := mustParse(t, f.host+"/app:1")
	_, _, err := c.Manifest(t.Context(), r)
	require.NoError(t, err)
	_, err = c.PushManifest(t.Context(), r, ocispec.MediaTypeImageManifest, imageManifest("x"))
	require.NoError(t, err)
	assert.Equal(t, 3, f.count("", "/v2/"), "one 401 in all")

	_, _, err = client(registry.Options{}).Manifest(t.Context(), r)
	require.ErrorIs(t, err, registry.ErrDenied)
	assert.Contains(t, err.Error(), "config.json")
	wrong := keychain{auth: &authn.Basic{Username: "someone", Password: "wr0ng"}}
	_, _, err = client(registry.Options{Keychain: wrong}).Manifest(t.Context(), r)
	require.ErrorIs(t, err, registry.ErrDenied)
	assert.NotContains(t, err.Error(), "wr0ng")
}

func TestAuth_identityAndRegistryTokens(t *testing.T) {
	f := newFake(t)
	g := newGuard(f, "http")
	f.putManifest("app", "1", ocispec.MediaTypeImageManifest, imageManifest("x"))
	r := mustParse(t, f.host+"/app:1")
	identity := keychain{auth: authn.FromConfig(authn.AuthConfig{IdentityToken: "refresh-me"})}
	_, _, err := client(registry.Options{Keychain: identity}).Manifest(t.Context(), r)
	require.NoError(t, err)
	assert.Equal(t, []string{"repository:app:pull by refresh refresh-me"}, g.tokens())

	helper := keychain{auth: authn.FromConfig(authn.AuthConfig{Username: "<token>", Password: "refresh-me-too"})}
	_, _, err = client(registry.Options{Keychain: helper}).Manifest(t.Context(), r)
	require.NoError(t, err)
	assert.Equal(t, "repository:app:pull by refresh refresh-me-too", g.tokens()[1])

	given := keychain{auth: authn.FromConfig(authn.AuthConfig{RegistryToken: base64.URLEncoding.EncodeToString([]byte("repository:app:pull "))})}
	_, _, err = client(registry.Options{Keychain: given}).Manifest(t.Context(), r)
	require.NoError(t, err)
	assert.Len(t, g.tokens(), 2, "a given token needs no realm")
}

// TestAuth_C02 holds where a user's password may go. Names are resolved by the
// test; every server is TLS, on loopback.
func TestAuth_C02_realmOnAnotherHost(t *testing.T) {
	for name, tc := range map[string]struct {
		registry, realm string
		realms          registry.Hosts
		keychain        authn.Keychain
		refused         bool
	}{
		"its own host":            {registry: "r.example", realm: "https://r.example/token", keychain: someone},
		"the same domain":         {registry: "registry.corp.example", realm: "https://auth.corp.example/token", keychain: someone},
		"the parent domain":       {registry: "registry.gitlab.example", realm: "https://gitlab.example/jwt", keychain: someone},
		"another domain":          {registry: "r.example", realm: "https://evil.test/token", keychain: someone, refused: true},
		"a look-alike":            {registry: "r.example", realm: "https://r.example.evil.test/token", keychain: someone, refused: true},
		"a country's suffix":      {registry: "good.co.uk", realm: "https://evil.co.uk/token", keychain: someone, refused: true},
		"shared hosting":          {registry: "good.azurecr.io", realm: "https://evil.azurecr.io/token", keychain: someone, refused: true},
		"plain http":              {registry: "r.example", realm: "http://r.example/token", keychain: someone, refused: true},
		"a user in it":            {registry: "r.example", realm: "https://x:y@r.example/token", keychain: someone, refused: true},
		"another scheme":          {registry: "r.example", realm: "file:///etc/passwd", keychain: anonymous, refused: true},
		"no realm":                {registry: "r.example", realm: "", keychain: someone, refused: true},
		"allowed by name":         {registry: "r.example", realm: "https://auth.test/token", realms: registry.Hosts{Names: []string{"auth.test"}}, keychain: someone},
		"another one anonymously": {registry: "r.example", realm: "https://auth.test/token", keychain: anonymous},
	} {
		t.Run(name, func(t *testing.T) {
			f, elsewhere := newTLSFake(t), newTLSFake(t)
			token := func(w http.ResponseWriter, _ *http.Request) bool {
				fmt.Fprint(w, `{"token":"good"}`)
				return true
			}
			f.when("", "/v2/", 0, func(w http.ResponseWriter, r *http.Request) bool {
				if r.Header.Get("Authorization") == "Bearer good" {
					return false
				}
				return status(401, "UNAUTHORIZED", "WWW-Authenticate", `Bearer realm="`+tc.realm+`",service="s"`)(w, r)
			})
			f.when("", "/token", 0, token)
			elsewhere.when("", "", 0, token)
			f.putManifest("app", "1", ocispec.MediaTypeImageManifest, imageManifest("x"))
			c := client(registry.Options{Keychain: tc.keychain, Insecure: everywhere, Realms: tc.realms})
			c.SetNetwork(func(addr string) string {
				if strings.HasPrefix(addr, tc.registry+":") {
					return f.host
				}
				return elsewhere.host
			}, nil)
			_, _, err := c.Manifest(t.Context(), mustParse(t, tc.registry+"/app:1"))
			if !tc.refused {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, registry.ErrDenied)
			assert.Contains(t, err.Error(), tc.registry, "both hosts are named")
			assert.Empty(t, elsewhere.requests(), "nothing is asked of the other host")
			for _, s := range f.requests() {
				assert.Empty(t, s.auth, "the password stays here: %s", s)
			}
		})
	}
}

// TestAuth_C03 puts machines on other loopback addresses and calls them public,
// private and metadata services.
func TestAuth_C03_C07_addressesAfterDNS(t *testing.T) {
	reach := func(a netip.Addr) int {
		return map[string]int{"127.0.0.1": registry.Public, "127.0.0.2": registry.Private, "127.0.0.3": registry.LinkLocal, "127.0.0.4": registry.Loopback}[a.String()]
	}
	for name, tc := range map[string]struct {
		registry, target string
		refused          bool
	}{
		"public to public":      {"127.0.0.1", "127.0.0.1", false},
		"public to private":     {"127.0.0.1", "127.0.0.2", true},
		"public to metadata":    {"127.0.0.1", "127.0.0.3", true},
		"public to loopback":    {"127.0.0.1", "127.0.0.4", true},
		"private to private":    {"127.0.0.2", "127.0.0.2", false},
		"private to loopback":   {"127.0.0.2", "127.0.0.4", true},
		"private to metadata":   {"127.0.0.2", "127.0.0.3", true},
		"loopback to private":   {"127.0.0.4", "127.0.0.2", false},
		"loopback to metadata":  {"127.0.0.4", "127.0.0.3", true},
		"metadata to metadata":  {"127.0.0.3", "127.0.0.3", false},
		"loopback to the world": {"127.0.0.4", "127.0.0.1", false},
	} {
		for _, kind := range []string{"redirect", "realm", "upload"} {
			t.Run(name+" by "+kind, func(t *testing.T) {
				f, target := newFakeAt(t, tc.registry), newFakeAt(t, tc.target)
				layer, b := randomBlob(t, 100)
				f.put("app", b)
				target.put("app", b)
				target.uploads["x"] = nil
				target.when("", "/token", 0, func(w http.ResponseWriter, _ *http.Request) bool {
					fmt.Fprint(w, `{"token":"good"}`)
					return true
				})
				c := client(registry.Options{PlainHTTP: everywhere})
				c.SetNetwork(func(addr string) string {
					if strings.HasPrefix(addr, "r.example:") {
						return f.host
					}
					return target.host
				}, reach)
				var err error
				switch kind {
				case "redirect":
					f.when("GET", "/blobs/", 0, status(307, "", "Location", "http://cdn.test/v2/app/blobs/"+layer.Digest.String()))
					_, err = pull(t, c, "r.example/app:1", layer)
				case "realm":
					f.when("", "/v2/", 1, status(401, "", "WWW-Authenticate", `Bearer realm="http://auth.test/token"`))
					_, err = c.HasBlob(t.Context(), mustParse(t, "r.example/app:1"), layer.Digest)
				case "upload":
					f.when("POST", "/blobs/", 0, status(202, "", "Location", "http://up.test/v2/other/blobs/uploads/x"))
					_, err = c.PushBlob(t.Context(), mustParse(t, "r.example/other:1"), layer, opener(b), nil)
				}
				if tc.refused {
					require.Error(t, err)
					assert.Contains(t, err.Error(), "address refused")
					assert.Empty(t, target.requests())
				} else {
					require.NoError(t, err)
					assert.NotEmpty(t, target.requests())
				}
			})
		}
	}
}

func TestReach(t *testing.T) {
	for addr, want := range map[string]int{
		"8.8.8.8": registry.Public, "2001:4860:4860::8888": registry.Public,
		"10.1.2.3": registry.Private, "172.16.0.1": registry.Private, "192.168.1.1": registry.Private, "100.64.1.1": registry.Private, "fd00::1": registry.Private,
		"127.0.0.1": registry.Loopback, "127.1.2.3": registry.Loopback, "::1": registry.Loopback, "::ffff:127.0.0.1": registry.Loopback,
		"169.254.169.254": registry.LinkLocal, "fe80::1": registry.LinkLocal, "0.0.0.0": registry.LinkLocal, "::": registry.LinkLocal,
		"224.0.0.1": registry.LinkLocal, "255.255.255.255": registry.LinkLocal, "::ffff:169.254.169.254": registry.LinkLocal,
	} {
		assert.Equal(t, want, registry.ReachOf(netip.MustParseAddr(addr)), addr)
	}
}

func TestAuth_C04_tokenDocuments(t *testing.T) {
	for name, tc := range map[string]struct {
		answer func(w http.ResponseWriter)
		ok     bool
	}{
		"token":        {func(w http.ResponseWriter) { fmt.Fprint(w, `{"token":"good","expires_in":0}`) }, true},
		"access_token": {func(w http.ResponseWriter) { fmt.Fprint(w, `{"access_token":"good","expires_in":99999999999}`) }, true},
		"both":         {func(w http.ResponseWriter) { fmt.Fprint(w, `{"access_token":"bad","token":"good"}`) }, true},
		"a line break": {func(w http.ResponseWriter) { fmt.Fprint(w, `{"token":"good\r\nX-Evil: 1"}`) }, false},
		"none":         {func(w http.ResponseWriter) { fmt.Fprint(w, `{}`) }, false},
		"html":         {func(w http.ResponseWriter) { fmt.Fprint(w, `<html>`) }, false},
		"endless": {func(w http.ResponseWriter) {
			for i := 0; i < 1<<12; i++ { // 16 MiB if somebody reads them
				if _, err := w.Write([]byte(strings.Repeat(" ", 4096))); err != nil {
					return
				}
			}
		}, false},
		"denied":      {func(w http.ResponseWriter) { w.WriteHeader(403) }, false},
		"a redirect":  {func(w http.ResponseWriter) { w.Header().Set("Location", "/elsewhere"); w.WriteHeader(302) }, false},
		"an outage":   {func(w http.ResponseWriter) { w.WriteHeader(503) }, false},
		"other types": {func(w http.ResponseWriter) { fmt.Fprint(w, `{"token":17}`) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.putManifest("app", "1", ocispec.MediaTypeImageManifest, imageManifest("x"))
			f.when("", "/v2/", 0, func(w http.ResponseWriter, r *http.Request) bool {
				return r.Header.Get("Authorization") != "Bearer good" &&
					status(401, "", "WWW-Authenticate", `Bearer realm="http://`+f.host+`/token"`)(w, r)
			})
			f.when("", "/token", 0, func(w http.ResponseWriter, _ *http.Request) bool { tc.answer(w); return true })
			_, _, err := client(registry.Options{Keychain: someone}).Manifest(t.Context(), mustParse(t, f.host+"/app:1"))
			if tc.ok {
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			assert.Contains(t, err.Error(), "token")
			assert.NotContains(t, err.Error(), "s3cret")
			assert.Zero(t, f.count("", "/elsewhere"))
		})
	}
}

func TestAuth_C30_credentialHelpers(t *testing.T) {
	f := newFake(t)
	g := newGuard(f, "http")
	f.putManifest("app", "1", ocispec.MediaTypeImageManifest, imageManifest("x"))
	r := mustParse(t, f.host+"/app:1")

	_, _, err := client(registry.Options{Keychain: broken}).Manifest(t.Context(), r)
	require.NoError(t, err, "a broken helper does not stand before what is public")
	assert.Len(t, g.tokens(), 1)

	f = newFake(t)
	f.when("", "/v2/private", 0, status(401, "", "WWW-Authenticate", `Basic realm="x"`))
	_, _, err = client(registry.Options{Keychain: broken}).Manifest(t.Context(), mustParse(t, f.host+"/private:1"))
	require.ErrorIs(t, err, registry.ErrDenied)
	assert.Contains(t, err.Error(), "docker-credential-x", "but is named when it matters")

	hanging := make(chan struct{})
	defer close(hanging)
	c := client(registry.Options{Keychain: hangs(hanging)})
	c.SetTimeouts(time.Minute, time.Minute, 20*time.Millisecond)
	_, _, err = c.Manifest(t.Context(), mustParse(t, f.host+"/private:1"))
	require.ErrorIs(t, err, registry.ErrDenied)
	assert.Contains(t, err.Error(), "did not answer")
}

type hangs chan struct{}

func (h hangs) Resolve(authn.Resource) (authn.Authenticator, error) {
	<-h
	return authn.Anonymous, nil
}
