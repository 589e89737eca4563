package registry_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testregistry"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// forward is an HTTP proxy that wants a password if it has one, and counts what goes through it.
type forward struct {
	resolve func(hostport string) string
	pass    string
	plain   atomic.Int32
	tunnels atomic.Int32
	asked   sync.Map // what was asked for
}

func (f *forward) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.asked.Store(r.Method+" "+r.Host, true)
	if f.pass != "" && r.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte(f.pass)) {
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	if r.Method != http.MethodConnect {
		f.plain.Add(1)
		out := r.Clone(r.Context())
		out.RequestURI, out.URL.Host = "", f.resolve(r.Host)
		out.Header.Del("Proxy-Authorization")
		resp, err := http.DefaultTransport.RoundTrip(out)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		for k, v := range resp.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
		return
	}
	f.tunnels.Add(1)
	up, err := net.Dial("tcp", f.resolve(r.Host))
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	w.WriteHeader(http.StatusOK)
	down, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	go func() { _, _ = io.Copy(up, down); _ = up.Close() }()
	_, _ = io.Copy(down, up)
	_ = down.Close()
}

// through makes a client whose requests go through a proxy, but for those to hosts that bypass names.
func through(t *testing.T, o registry.Options, f *forward, user string, bypass ...string) *registry.Client {
	t.Helper()
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	via, err := url.Parse(srv.URL)
	require.NoError(t, err)
	if name, pass, ok := strings.Cut(user, ":"); ok {
		via.User = url.UserPassword(name, pass)
	}
	c := client(o)
	c.SetProxy(func(r *http.Request) (*url.URL, error) {
		for _, b := range bypass {
			if r.URL.Hostname() == b {
				return nil, nil
			}
		}
		return via, nil
	})
	return c
}

// TestProxy_C28 goes through proxies of both kinds.
func TestProxy_C28(t *testing.T) {
	plain, secure := newFake(t), newTLSFake(t)
	layer, b := randomBlob(t, 100<<10)
	for _, f := range []*fake{plain, secure} {
		f.put("app", b)
		f.putManifest("app", "1", ocispec.MediaTypeImageManifest, imageManifest("x"))
	}
	resolve := func(addr string) string {
		if strings.HasPrefix(addr, "secure.example") {
			return secure.host
		}
		return plain.host
	}
	o := registry.Options{Insecure: everywhere, PlainHTTP: registry.Hosts{Names: []string{"plain.example"}}}
	for _, host := range []string{"plain.example", "secure.example"} {
		t.Run(host, func(t *testing.T) {
			f := &forward{resolve: resolve, pass: "me:s3cret"}
			c := through(t, o, f, "me:s3cret")
			got, err := pull(t, c, host+"/app:1", layer)
			require.NoError(t, err)
			assert.Equal(t, b, got)
			_, err = c.PushBlob(t.Context(), mustParse(t, host+"/other:1"), layer, opener(b), nil)
			require.NoError(t, err)
			assert.Equal(t, host == "plain.example", f.plain.Load() > 0)
			assert.Equal(t, host == "secure.example", f.tunnels.Load() > 0)
			for _, s := range append(plain.requests(), secure.requests()...) {
				assert.Empty(t, s.header.Get("Proxy-Authorization"), "the proxy's password is the proxy's")
			}
		})
		t.Run(host+" without the proxy's password", func(t *testing.T) {
			n := &naps{}
			with := o
			with.Sleep = n.sleep
			_, err := through(t, with, &forward{resolve: resolve, pass: "me:s3cret"}, "").Resolve(t.Context(), mustParse(t, host+"/app:1"))
			require.Error(t, err)
			assert.Contains(t, err.Error(), "the proxy wants credentials")
			assert.NotContains(t, err.Error(), "s3cret")
			assert.Empty(t, n.list, "trying again does not help")
		})
		t.Run(host+" by it", func(t *testing.T) {
			f := &forward{resolve: resolve, pass: "other"}
			c := through(t, o, f, "", host)
			c.SetNetwork(resolve, nil)
			_, err := c.Resolve(t.Context(), mustParse(t, host+"/app:1"))
			require.NoError(t, err)
			assert.Zero(t, f.plain.Load()+f.tunnels.Load())
		})
	}
	t.Run("C07 what a proxy is not sent to", func(t *testing.T) {
		for _, target := range []string{"169.254.169.254", "127.0.0.1:1", "[::ffff:10.0.0.1]", "2130706433", "0x7f.1", "127.1", "0x7f000001", "10.1.2.3"} {
			f := &forward{resolve: resolve}
			c := through(t, o, f, "")
			reg := newFake(t)
			reg.When("", "", 0, testregistry.Redirect(307, "http://"+target+"/x"))
			f.resolve = func(string) string { return reg.host }
			_, err := pull(t, c, "plain.example/app:1", layer)
			require.Error(t, err, target)
			assert.Contains(t, err.Error(), "address refused", target)
			assert.Equal(t, int32(1), f.plain.Load(), target)
		}
	})
}

// TestHTTP2_C28 ends streams and connections of HTTP/2 in all its ways.
func TestHTTP2_C28(t *testing.T) {
	for name, script := range map[string]func(f *fake){
		"RST_STREAM before the answer": func(f *fake) { f.Between("GET", testregistry.Blobs, 1, 4, testregistry.Reset()) },
		"RST_STREAM in the body":       func(f *fake) { f.Between("GET", testregistry.Blobs, 1, 4, testregistry.Cut(70_000)) },
		"RST_STREAM in an upload":      func(f *fake) { f.Between("PUT", testregistry.Uploads, 1, 4, testregistry.CutUpload(50_000)) },
		"GOAWAY after every answer":    func(f *fake) { f.When("", "", 0, testregistry.Headers("Connection", "close")) },
		"a status in the middle":       func(f *fake) { f.Between("", testregistry.Blobs, 2, 5, testregistry.Status(503, "UNAVAILABLE")) },
	} {
		t.Run(name, func(t *testing.T) {
			f := fakeOf(testregistry.New(t, testregistry.Options{TLS: &tls.Config{}, HTTP2: true}))
			script(f)
			c := client(registry.Options{Insecure: everywhere, ChunkSize: 64 << 10})
			r := mustParse(t, f.host+"/app:1")
			var wg sync.WaitGroup
			for range 8 {
				desc, b := randomBlob(t, 200<<10)
				wg.Go(func() {
					_, err := c.PushBlob(t.Context(), r, desc, opener(b), nil)
					assert.NoError(t, err)
					assert.True(t, f.holds("app", b))
					rc, err := c.Blob(t.Context(), r, desc)
					if !assert.NoError(t, err) {
						return
					}
					got, err := io.ReadAll(rc)
					assert.NoError(t, err)
					assert.Equal(t, len(b), len(got))
					assert.NoError(t, rc.Close())
				})
			}
			wg.Wait()
			for _, s := range f.Requests() {
				assert.Equal(t, "HTTP/2.0", s.Proto)
			}
		})
	}
}

// TestPushBlob_C28_refusedEarly holds that a refusal in the middle of a body is told as what it is, not as a broken pipe.
func TestPushBlob_C28_refusedEarly(t *testing.T) {
	desc, b := randomBlob(t, 8<<20)
	for name, tc := range map[string]struct {
		status int
		code   string
		kind   error
	}{
		"denied":    {403, "DENIED", registry.ErrDenied},
		"too large": {413, "SIZE_INVALID", nil},
		"quota":     {400, "QUOTA_EXCEEDED", nil},
	} {
		for _, h2 := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, HTTP/2 %t", name, h2), func(t *testing.T) {
				f := fakeOf(testregistry.New(t, testregistry.Options{TLS: &tls.Config{}, HTTP2: h2}))
				f.When("PUT", testregistry.Uploads, 0, testregistry.Status(tc.status, tc.code))
				f.When("PATCH", testregistry.Uploads, 0, testregistry.Status(tc.status, tc.code))
				_, err := client(registry.Options{Insecure: everywhere}).PushBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc, opener(b), nil)
				require.Error(t, err)
				if tc.kind != nil {
					require.ErrorIs(t, err, tc.kind)
				}
				assert.Contains(t, err.Error(), tc.code)
			})
		}
	}
}

// TestBlob_C17_trickle holds that a byte now and then is as good as silence, and that a slow line is not.
func TestBlob_C17_trickle(t *testing.T) {
	desc, b := randomBlob(t, 8<<10)
	f := newFake(t)
	f.put("app", b)
	f.When("GET", testregistry.Blobs, 1, testregistry.Slow(1, 20*time.Millisecond))
	c := client(registry.Options{})
	c.SetTimeouts(500*time.Millisecond, time.Minute, time.Minute)
	got, err := pull(t, c, f.host+"/app:1", desc)
	require.NoError(t, err)
	assert.Equal(t, b, got)
	gets := f.Settled(t)
	assert.Greater(t, len(gets), 1)
	assert.Less(t, gets[0].Sent, desc.Size, "it was given up")

	f = newFake(t)
	f.put("app", b)
	f.When("GET", testregistry.Blobs, 0, testregistry.Slow(1<<10, 400*time.Millisecond)) // all of it takes longer than silence may
	c = client(registry.Options{})
	c.SetTimeouts(3*time.Second, time.Minute, time.Minute)
	got, err = pull(t, c, f.host+"/app:1", desc)
	require.NoError(t, err)
	assert.Equal(t, b, got)
	assert.Equal(t, 1, f.Count("GET", testregistry.Blobs), "it was not given up")
}

// TestPushBlob_C17_silence is an upload that nobody reads.
func TestPushBlob_C17_silence(t *testing.T) {
	desc, b := randomBlob(t, 16<<20) // more than the buffers of sockets
	f := newFake(t)
	f.When("PUT", testregistry.Uploads, 1, testregistry.StallUpload(0))
	c := client(registry.Options{})
	c.SetTimeouts(time.Second, 5*time.Second, time.Minute)
	_, err := c.PushBlob(t.Context(), mustParse(t, f.host+"/app:1"), desc, opener(b), nil)
	require.NoError(t, err)
	assert.True(t, f.holds("app", b))
}

// TestDeadline holds that a whole operation ends with its context, wherever it waits, and says why.
func TestDeadline(t *testing.T) {
	desc, b := randomBlob(t, 1<<20)
	late := errors.New("too late")
	for name, script := range map[string]func(f *fake){
		"for an answer":     func(f *fake) { f.When("", "", 0, testregistry.Stall(-1)) },
		"in a body":         func(f *fake) { f.When("", "", 0, testregistry.Stall(1000)) },
		"for peace":         func(f *fake) { f.When("", "", 0, testregistry.Status(429, "", "Retry-After", "50")) },
		"between tries":     func(f *fake) { f.When("", "", 0, testregistry.Status(503, "")) },
		"in a slow body":    func(f *fake) { f.When("", "", 0, testregistry.Slow(1<<10, 10*time.Millisecond)) },
		"with every tenth ": func(f *fake) { f.When("", "", 0, testregistry.Cut(100)) },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.put("app", b)
			script(f)
			ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, late)
			defer cancel()
			began := time.Now()
			c := registry.New(registry.Options{Keychain: anonymous, CertDirs: []string{}})
			rc, err := c.Blob(ctx, mustParse(t, f.host+"/app:1"), desc)
			if err == nil {
				_, err = io.Copy(io.Discard, rc)
				_ = rc.Close()
			}
			require.ErrorIs(t, err, late)
			assert.Less(t, time.Since(began), time.Minute)
		})
	}
}

// TestTranscript_noOtherOrigin makes a registry with credentials point elsewhere, in every way and from every kind of request:
// what is there never sees them, nor does anything else but the registry.
func TestTranscript_noOtherOrigin(t *testing.T) {
	layer, b := randomBlob(t, 1000)
	raw := imageManifest("x")
	const secret = "s3cret-of-someone"
	kinds := map[string]func(ctx context.Context, c *registry.Client, r ref.Ref){
		"resolve":  func(ctx context.Context, c *registry.Client, r ref.Ref) { _, _ = c.Resolve(ctx, r) },
		"manifest": func(ctx context.Context, c *registry.Client, r ref.Ref) { _, _, _ = c.Manifest(ctx, r) },
		"blob": func(ctx context.Context, c *registry.Client, r ref.Ref) {
			if rc, err := c.Blob(ctx, r, layer); err == nil {
				_, _ = io.Copy(io.Discard, rc)
				_ = rc.Close()
			}
		},
		"has": func(ctx context.Context, c *registry.Client, r ref.Ref) { _, _ = c.HasBlob(ctx, r, layer.Digest) },
		"push": func(ctx context.Context, c *registry.Client, r ref.Ref) {
			from := r
			from.Repo = "from"
			_, _ = c.PushBlob(ctx, r, layer, opener(b), []ref.Ref{from})
		},
		"put": func(ctx context.Context, c *registry.Client, r ref.Ref) {
			_, _ = c.PushManifest(ctx, r, ocispec.MediaTypeImageManifest, raw)
		},
		"tags":      func(ctx context.Context, c *registry.Client, r ref.Ref) { _, _ = c.Tags(ctx, r) },
		"referrers": func(ctx context.Context, c *registry.Client, r ref.Ref) { _, _, _ = c.Referrers(ctx, r, layer.Digest) },
		"delete":    func(ctx context.Context, c *registry.Client, r ref.Ref) { _ = c.Delete(ctx, r) },
		"ping":      func(ctx context.Context, c *registry.Client, r ref.Ref) { _, _ = c.Ping(ctx, r.Host) },
	}
	reached := 0
	for _, scheme := range []string{"basic", "bearer"} {
		for name, ask := range kinds {
			t.Run(scheme+" "+name, func(t *testing.T) {
				for _, code := range []int{301, 302, 303, 307, 308, 0} { // 0: by the Location of an upload, and by Link
					for _, to := range []string{"another port", "http", "another name"} {
						reached += pointsAway(t, scheme, secret, code, to, ask)
					}
				}
			})
		}
	}
	assert.Greater(t, reached, 20, "or nothing was tried")
}

// pointsAway sets a registry up that lets a user in and then points elsewhere, and returns how often somebody went there.
func pointsAway(t *testing.T, scheme, secret string, code int, to string, ask func(context.Context, *registry.Client, ref.Ref)) int {
	t.Helper()
	log := &testregistry.Transcript{}
	elsewhere := testregistry.New(t, testregistry.Options{Transcript: log, TLS: &tls.Config{}})
	plain := testregistry.New(t, testregistry.Options{Transcript: log})
	for _, r := range []*testregistry.Registry{elsewhere, plain} {
		r.When("", "", 0, testregistry.Status(401, "UNAUTHORIZED", "WWW-Authenticate", `Basic realm="give"`))
	}
	inner := testregistry.Unstarted(testregistry.Options{TLS: &tls.Config{}})
	reg := testregistry.New(t, testregistry.Options{Transcript: log, TLS: &tls.Config{}, Handler: inner})
	inner.Host = reg.Host
	if scheme == "basic" {
		inner.Basic("someone", secret)
	} else {
		inner.Bearer("someone", secret)
	}
	target := map[string]string{"another port": elsewhere.URL(), "http": plain.URL(), "another name": "https://other.test"}[to] + "/v2/app/x"
	reg.When("", "", 0, testregistry.Do(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "" || r.URL.Path == "/token" {
			return false
		}
		w.Header().Set("Set-Cookie", "session="+secret)
		switch {
		case code != 0:
			w.Header().Set("Location", target)
			w.WriteHeader(code)
		case r.Method == http.MethodPost:
			w.Header().Set("Location", target)
			w.WriteHeader(http.StatusAccepted)
		default:
			w.Header().Set("Link", "<"+target+`>; rel="next"`)
			return false
		}
		return true
	}))
	c := client(registry.Options{Insecure: everywhere, Keychain: keychain{auth: &authn.Basic{Username: "someone", Password: secret}}})
	defer c.Close()
	c.SetNetwork(func(addr string) string {
		if strings.HasPrefix(addr, "other.test:") {
			return elsewhere.Host
		}
		return addr
	}, func(netip.Addr) int { return registry.Public })
	ask(t.Context(), c, mustParse(t, reg.Host+"/app:1"))
	log.NoSecrets(t, []string{reg.URL()}, secret, base64.StdEncoding.EncodeToString([]byte("someone:"+secret)))
	authorized := 0
	for _, r := range log.Requests() {
		if r.Origin == reg.URL() && r.Auth() != "" {
			authorized++
		}
	}
	assert.NotZero(t, authorized, "the registry itself got them")
	return countOf(log, elsewhere.URL(), plain.URL())
}

func countOf(log *testregistry.Transcript, origins ...string) (n int) {
	for _, r := range log.Requests() {
		for _, o := range origins {
			if r.Origin == o {
				n++
			}
		}
	}
	return n
}
