package registry_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testregistry"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

func authority(t *testing.T, name string) *testregistry.Authority {
	t.Helper()
	ca, err := testregistry.NewAuthority(name)
	require.NoError(t, err)
	return ca
}

// issued is a registry with a certificate for hosts, which is good from start for a day. It holds app:1.
func issued(t *testing.T, ca *testregistry.Authority, start time.Time, hosts ...string) *fake {
	t.Helper()
	cert, key, err := ca.Issue(start, hosts...)
	require.NoError(t, err)
	pair, err := tls.X509KeyPair(cert, key)
	require.NoError(t, err)
	return secure(t, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
}

func secure(t *testing.T, conf *tls.Config) *fake {
	f := fakeOf(testregistry.New(t, testregistry.Options{TLS: conf}))
	f.putManifest("app", "1", ocispec.MediaTypeImageManifest, imageManifest("x"))
	return f
}

func put(t *testing.T, path string, data []byte) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

// at is a client for which names lead to fakes.
func at(o registry.Options, names map[string]*fake) *registry.Client {
	c := client(o)
	c.SetNetwork(func(addr string) string {
		host, _, _ := strings.Cut(addr, ":")
		if f := names[host]; f != nil {
			return f.host
		}
		return addr
	}, nil)
	return c
}

// TestTrust_C10 holds that a certificate that is not good ends the request, and that the message says why and what to do.
func TestTrust_C10(t *testing.T) {
	ca, other := authority(t, "Our CA"), authority(t, "Another CA")
	day := 24 * time.Hour
	caFile := put(t, filepath.Join(t.TempDir(), "our.pem"), ca.PEM)
	for name, tc := range map[string]struct {
		f     *fake
		trust []string
		text  []string // of the error; nil: it is good
	}{
		"good":          {issued(t, ca, time.Now().Add(-time.Hour), "r.example"), []string{caFile}, nil},
		"expired":       {issued(t, ca, time.Now().Add(-9*day), "r.example"), []string{caFile}, []string{"was good until 20", "--insecure=r.example"}},
		"not yet good":  {issued(t, ca, time.Now().Add(9*day), "r.example"), []string{caFile}, []string{"is good from 20", "clock"}},
		"another name":  {issued(t, ca, time.Now().Add(-time.Hour), "other.example", "10.1.2.3"), []string{caFile}, []string{"is for other.example, 10.1.2.3"}},
		"nobody's CA":   {issued(t, other, time.Now().Add(-time.Hour), "r.example"), []string{caFile}, []string{"nobody here knows CN=Another CA", "certs.d/r.example/ca.crt", "--ca-file"}},
		"no CA at all":  {issued(t, ca, time.Now().Add(-time.Hour), "r.example"), nil, []string{"nobody here knows CN=Our CA"}},
		"signed itself": {secure(t, &tls.Config{}), nil, []string{"--insecure=r.example"}},
	} {
		t.Run(name, func(t *testing.T) {
			c := at(registry.Options{CAFiles: tc.trust, Keychain: someone}, map[string]*fake{"r.example": tc.f})
			_, err := c.Resolve(t.Context(), mustParse(t, "r.example/app:1"))
			if tc.text == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, registry.ErrUntrusted)
			for _, text := range tc.text {
				assert.Contains(t, err.Error(), text)
			}
			assert.Empty(t, tc.f.requests(), "nothing was asked, and nothing falls back to less")
		})
	}
}

func TestTrust_directories(t *testing.T) {
	ca := authority(t, "Our CA")
	f := issued(t, ca, time.Now().Add(-time.Hour), "r.example")
	for name, tc := range map[string]struct {
		reference, dir string
		bad            bool
	}{
		"a host":                       {"r.example/app:1", "r.example", false},
		"a host, by https's port":      {"r.example/app:1", "r.example:443", false},
		"https's port, by the host":    {"r.example:443/app:1", "r.example", false},
		"a host and port":              {"r.example:5000/app:1", "r.example:5000", false},
		"another port":                 {"r.example:5000/app:1", "r.example:5001", true},
		"a port does not mean all":     {"r.example/app:1", "r.example:5000", true},
		"another host":                 {"r.example/app:1", "s.example", true},
		"a part of the name is no one": {"r.example/app:1", "example", true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			put(t, filepath.Join(dir, tc.dir, "ca.crt"), ca.PEM)
			c := at(registry.Options{CertDirs: []string{filepath.Join(dir, "missing"), dir}}, map[string]*fake{"r.example": f})
			_, err := c.Resolve(t.Context(), mustParse(t, tc.reference))
			if tc.bad {
				require.ErrorIs(t, err, registry.ErrUntrusted)
				return
			}
			require.NoError(t, err)
		})
	}
	cert, key, err := ca.Issue(time.Now(), "me")
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		file string
		data []byte
		text string
	}{
		"no certificate":     {"ca.crt", []byte("hello"), "holds none"},
		"a broken one":       {"ca.crt", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "ca.crt"},
		"a key alone":        {"me.key", key, "has no me.cert beside it"},
		"a certificate only": {"me.cert", cert, "has no key beside it"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			put(t, filepath.Join(dir, "r.example", tc.file), tc.data)
			_, err := at(registry.Options{CertDirs: []string{dir}}, map[string]*fake{"r.example": f}).Resolve(t.Context(), mustParse(t, "r.example/app:1"))
			require.Error(t, err)
			assert.Contains(t, err.Error(), tc.text)
			assert.Contains(t, err.Error(), dir, "the file is named")
		})
	}
	for name, o := range map[string]registry.Options{"--ca-file": {CAFiles: []string{"/nowhere/x.pem"}}, "--cert-dir": {CertDir: "/nowhere"}} {
		t.Run(name+" that is missing", func(t *testing.T) {
			_, err := at(o, map[string]*fake{"r.example": f}).Resolve(t.Context(), mustParse(t, "r.example/app:1"))
			require.ErrorIs(t, err, os.ErrNotExist)
		})
	}
}

// TestTrust_C10_clientCertificate is mutual TLS: who shows what to whom.
func TestTrust_C10_clientCertificate(t *testing.T) {
	ca, theirs := authority(t, "Our CA"), authority(t, "The CA of clients")
	conf, err := ca.ServerConfig("r.example", "auth.r.example", "cdn.test")
	require.NoError(t, err)
	wants := conf.Clone()
	wants.ClientAuth, wants.ClientCAs = tls.RequireAndVerifyClientCert, theirs.Pool()
	cert, key, err := theirs.Issue(time.Now().Add(-time.Hour), "me")
	require.NoError(t, err)
	dir := t.TempDir()
	put(t, filepath.Join(dir, "r.example", "ca.crt"), ca.PEM)

	f := secure(t, wants)
	_, err = at(registry.Options{CertDirs: []string{dir}}, map[string]*fake{"r.example": f}).Resolve(t.Context(), mustParse(t, "r.example/app:1"))
	require.Error(t, err)
	assert.Contains(t, err.Error(), "r.example wants a certificate of yours")
	assert.Contains(t, err.Error(), "certs.d/r.example")

	put(t, filepath.Join(dir, "r.example", "me.cert"), cert)
	put(t, filepath.Join(dir, "r.example", "me.key"), key)
	_, err = at(registry.Options{CertDirs: []string{dir}}, map[string]*fake{"r.example": f}).Resolve(t.Context(), mustParse(t, "r.example/app:1"))
	require.NoError(t, err)

	// The token server of its domain is under the same trust and sees the certificate; storage elsewhere is under the same
	// trust and does not.
	layer, b := randomBlob(t, 1000)
	shown := make(chan int, 10)
	asks := conf.Clone()
	asks.ClientAuth = tls.RequestClientCert
	auth, cdn := secure(t, wants), secure(t, asks)
	cdn.put("app", b)
	auth.when("", "/token", 0, func(w http.ResponseWriter, _ *http.Request) bool {
		fmt.Fprint(w, `{"token":"good"}`)
		return true
	})
	cdn.when("", "", 0, func(_ http.ResponseWriter, r *http.Request) bool { shown <- len(r.TLS.PeerCertificates); return false })
	f.when("", "/v2/", 0, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "Bearer good" {
			return status(401, "", "WWW-Authenticate", `Bearer realm="https://auth.r.example/token"`)(w, r)
		}
		return status(307, "", "Location", "https://cdn.test/v2/app/blobs/"+layer.Digest.String())(w, r)
	})
	names := map[string]*fake{"r.example": f, "auth.r.example": auth, "cdn.test": cdn}
	got, err := pull(t, at(registry.Options{CertDirs: []string{dir}, Keychain: someone}, names), "r.example/app:1", layer)
	require.NoError(t, err)
	assert.Equal(t, b, got)
	assert.NotEmpty(t, auth.requests())
	assert.Zero(t, <-shown, "the certificate is not for another site")
}

func TestOffline(t *testing.T) {
	f := newFake(t)
	layer, b := randomBlob(t, 10)
	n := &naps{}
	c := client(registry.Options{Offline: true, Sleep: n.sleep})
	r := mustParse(t, f.host+"/app:1")
	_, err := c.Resolve(t.Context(), r)
	require.ErrorIs(t, err, registry.ErrOffline)
	assert.Contains(t, err.Error(), f.host)
	_, _, err = c.Manifest(t.Context(), r)
	require.ErrorIs(t, err, registry.ErrOffline)
	_, err = pull(t, c, f.host+"/app:1", layer)
	require.ErrorIs(t, err, registry.ErrOffline)
	_, err = c.PushBlob(t.Context(), r, layer, opener(b), nil)
	require.ErrorIs(t, err, registry.ErrOffline)
	_, err = c.Tags(t.Context(), r)
	require.ErrorIs(t, err, registry.ErrOffline)
	_, err = c.Ping(t.Context(), f.host)
	require.ErrorIs(t, err, registry.ErrOffline)
	assert.Empty(t, f.requests())
	assert.Empty(t, n.list, "at once")
}

func TestPing(t *testing.T) {
	f := newFake(t)
	asked, err := client(registry.Options{}).Ping(t.Context(), f.host)
	require.NoError(t, err)
	assert.False(t, asked)
	f.Bearer("someone", "s3cret")
	asked, err = client(registry.Options{Keychain: someone}).Ping(t.Context(), f.host)
	require.NoError(t, err)
	assert.True(t, asked)

	f = newFake(t)
	f.Basic("someone", "other")
	_, err = client(registry.Options{Keychain: someone}).Ping(t.Context(), f.host)
	require.ErrorIs(t, err, registry.ErrDenied)
	_, err = client(registry.Options{Keychain: someone}).Ping(t.Context(), "a b")
	require.ErrorIs(t, err, registry.ErrInvalid)
}
