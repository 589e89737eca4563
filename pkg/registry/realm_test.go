package registry_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/registry"
)

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
				target.Keep("x", nil)
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
