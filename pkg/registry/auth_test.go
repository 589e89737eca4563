package registry_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
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
	var fetches atomic.Int64
	f.when("", "/v2/", 0, status(401, "UNAUTHORIZED", "WWW-Authenticate", `Bearer realm="http://`+f.host+`/token",service="s",scope="repository:app:pull"`))
	f.when("", "/token", 0, func(w http.ResponseWriter, r *http.Request) bool {
		fetches.Add(1)
		fmt.Fprint(w, `{"access_token":"x"}`)
		return true
	})
	_, _, err := client(registry.Options{Keychain: someone}).Manifest(t.Context(), mustParse(t, f.host+"/app:1"))
	require.ErrorIs(t, err, registry.ErrDenied)
	assert.LessOrEqual(t, fetches.Load(), int64(2))
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
	assert.Equal(t, 1, strings.Count(err.Error(), "pulling manifest"), err)
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
