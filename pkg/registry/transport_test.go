package registry_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testregistry"
	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

func TestRetry_C12_everyKindOfRequest(t *testing.T) {
	for _, code := range []int{429, 500, 502, 503, 504} {
		t.Run(strconv.Itoa(code), func(t *testing.T) {
			f := newFake(t)
			for _, kind := range []struct{ method, path string }{
				{"HEAD", "/blobs/sha256"},
				{"POST", "/blobs/uploads/"},
				{"PUT", "/blobs/uploads/"},
				{"PATCH", "/blobs/uploads/"},
				{"PUT", "/manifests/"},
				{"HEAD", "/manifests/"},
				{"GET", "/manifests/"},
				{"GET", "/blobs/sha256"},
				{"GET", "/tags/list"},
			} {
				f.when(kind.method, kind.path, 1, status(code, "TOOMANYREQUESTS"))
			}
			n := &naps{}
			c := client(registry.Options{Sleep: n.sleep, ChunkSize: 8 << 10})
			r := mustParse(t, f.host+"/app:1")
			desc, b := randomBlob(t, 20<<10)
			_, err := c.PushBlob(t.Context(), r, desc, opener(b), nil)
			require.NoError(t, err)
			assert.True(t, f.holds("app", b))
			_, err = c.PushManifest(t.Context(), r, ocispec.MediaTypeImageManifest, imageManifest("x"))
			require.NoError(t, err)
			_, err = c.Resolve(t.Context(), r)
			require.NoError(t, err)
			_, _, err = c.Manifest(t.Context(), r)
			require.NoError(t, err)
			_, err = pull(t, c, f.host+"/app:1", desc)
			require.NoError(t, err)
			tags, err := c.Tags(t.Context(), r)
			require.NoError(t, err)
			assert.Equal(t, []string{"1"}, tags)
			assert.NotZero(t, n.total())
		})
	}
	t.Run("it ends", func(t *testing.T) {
		f := newFake(t)
		f.when("", "", 0, status(503, "UNAVAILABLE"))
		n := &naps{}
		_, _, err := client(registry.Options{Sleep: n.sleep}).Manifest(t.Context(), mustParse(t, f.host+"/app:1"))
		require.Error(t, err)
		assert.Contains(t, err.Error(), "UNAVAILABLE")
		assert.Equal(t, 5, f.count("GET", "/manifests/"))
		assert.Len(t, n.list, 4)
		assert.Greater(t, n.list[3], n.list[0], "it waits longer each time")
	})
	t.Run("not for what stays wrong", func(t *testing.T) {
		f := newFake(t)
		f.when("", "", 0, status(400, "BAD"))
		_, _, err := client(registry.Options{}).Manifest(t.Context(), mustParse(t, f.host+"/app:1"))
		require.Error(t, err)
		assert.Equal(t, 1, f.count("GET", "/manifests/"))
	})
}

func TestRetry_C28_resets(t *testing.T) {
	f := newFake(t)
	for _, path := range []string{"/blobs/sha256", "/manifests/", "/tags/"} {
		f.when("GET", path, 1, reset)
	}
	f.when("PUT", "/manifests/", 1, reset)
	f.when("HEAD", "/blobs/sha256", 1, reset)
	c := client(registry.Options{})
	r := mustParse(t, f.host+"/app:1")
	desc, b := randomBlob(t, 1000)
	_, err := c.PushBlob(t.Context(), r, desc, opener(b), nil)
	require.NoError(t, err)
	_, err = c.PushManifest(t.Context(), r, ocispec.MediaTypeImageManifest, imageManifest("x"))
	require.NoError(t, err)
	_, _, err = c.Manifest(t.Context(), r)
	require.NoError(t, err)
	_, err = pull(t, c, f.host+"/app:1", desc)
	require.NoError(t, err)
	_, err = c.Tags(t.Context(), r)
	require.NoError(t, err)
}

func TestRetry_C11_RetryAfter(t *testing.T) {
	date := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, tc := range map[string]struct {
		header http.Header
		want   time.Duration
	}{
		"seconds":              {http.Header{"Retry-After": {"30"}}, 30 * time.Second},
		"none":                 {http.Header{}, 0},
		"far too long":         {http.Header{"Retry-After": {"1000000000"}}, time.Minute},
		"beyond numbers":       {http.Header{"Retry-After": {"99999999999999999999999"}}, 0},
		"negative":             {http.Header{"Retry-After": {"-5"}}, 0},
		"a date":               {http.Header{"Retry-After": {date.Add(7 * time.Second).Format(http.TimeFormat)}, "Date": {date.Format(http.TimeFormat)}}, 7 * time.Second},
		"a date gone by":       {http.Header{"Retry-After": {date.Add(-time.Hour).Format(http.TimeFormat)}, "Date": {date.Format(http.TimeFormat)}}, 0},
		"a date in a year":     {http.Header{"Retry-After": {date.AddDate(1, 0, 0).Format(http.TimeFormat)}, "Date": {date.Format(http.TimeFormat)}}, time.Minute},
		"a date, and no clock": {http.Header{"Retry-After": {date.Format(http.TimeFormat)}}, 0},
	} {
		assert.Equal(t, tc.want, registry.RetryAfter(tc.header), name)
	}

	t.Run("all workers wait", func(t *testing.T) {
		f := newFake(t)
		f.when("HEAD", "/blobs/", 1, status(429, "TOOMANYREQUESTS", "Retry-After", "20"))
		evs := &events{}
		pausing, over := make(chan struct{}), make(chan struct{})
		waits := 0
		c := client(registry.Options{Events: evs.sink, Sleep: func(_ context.Context, d time.Duration) error {
			waits++ // by one worker only: the race detector watches
			assert.Equal(t, 20*time.Second, d)
			close(pausing)
			<-over
			return nil
		}})
		r := mustParse(t, f.host+"/app:1")
		var wg sync.WaitGroup
		ask := func(name string) {
			wg.Go(func() {
				_, err := c.HasBlob(t.Context(), r, digest.FromString(name))
				assert.NoError(t, err)
			})
		}
		ask("first")
		<-pausing
		for i := range 8 {
			ask(strconv.Itoa(i))
		}
		time.Sleep(20 * time.Millisecond) // enough for one that does not wait
		assert.Len(t, f.requests(), 1, "requests while the registry wanted peace")
		close(over)
		wg.Wait()
		assert.Equal(t, 1, waits)
		assert.Len(t, f.requests(), 1+1+8)
		require.Len(t, evs.of(event.Warning), 1)
		assert.Contains(t, evs.of(event.Warning)[0].Text, "20s")
	})
}

func TestRedirect_C05_C06(t *testing.T) {
	layer, b := randomBlob(t, 1000)
	blob := "/v2/app/blobs/" + layer.Digest.String()
	t.Run("C05 no credentials elsewhere", func(t *testing.T) {
		f, cdn := newFake(t), newFake(t)
		cdn.put("app", b)
		f.put("app", b)
		f.when("", "/v2/", 0, func(w http.ResponseWriter, r *http.Request) bool {
			if _, _, ok := r.BasicAuth(); !ok {
				return status(401, "", "WWW-Authenticate", "Basic")(w, r)
			}
			w.Header().Set("Set-Cookie", "session=1")
			return status(307, "", "Location", "http://"+cdn.host+blob)(w, r)
		})
		got, err := pull(t, client(registry.Options{Keychain: someone}), f.host+"/app:1", layer)
		require.NoError(t, err)
		assert.Equal(t, b, got)
		require.NotEmpty(t, cdn.requests())
		for _, s := range cdn.requests() {
			assert.Empty(t, s.auth)
			assert.Empty(t, s.header.Get("Cookie"))
			assert.Empty(t, s.header.Get("Referer"))
		}
	})
	t.Run("C05 nor back home by way of another host", func(t *testing.T) {
		f, evil := newFake(t), newFake(t)
		evil.when("", "", 0, status(302, "", "Location", "http://"+f.host+"/secret"))
		f.when("", "/v2/", 0, func(w http.ResponseWriter, r *http.Request) bool {
			if _, _, ok := r.BasicAuth(); !ok {
				return status(401, "", "WWW-Authenticate", "Basic")(w, r)
			}
			return status(302, "", "Location", "http://"+evil.host+"/x")(w, r)
		})
		_, err := pull(t, client(registry.Options{Keychain: someone}), f.host+"/app:1", layer)
		require.Error(t, err)
		for _, s := range f.requests() {
			if s.path == "/secret" {
				assert.Empty(t, s.auth)
			}
		}
	})
	t.Run("the registry's own redirects keep them", func(t *testing.T) {
		f := newFake(t)
		f.put("app", b)
		f.when("", "/v2/app/", 0, func(w http.ResponseWriter, r *http.Request) bool {
			if _, _, ok := r.BasicAuth(); !ok {
				return status(401, "", "WWW-Authenticate", "Basic")(w, r)
			}
			return !strings.Contains(r.URL.RawQuery, "again") && status(302, "", "Location", blob+"?again")(w, r)
		})
		_, err := pull(t, client(registry.Options{Keychain: someone}), f.host+"/app:1", layer)
		require.NoError(t, err)
	})
	t.Run("C06 a loop", func(t *testing.T) {
		f := newFake(t)
		f.when("", "", 0, status(302, "", "Location", blob))
		_, err := pull(t, client(registry.Options{}), f.host+"/app:1", layer)
		require.Error(t, err)
		assert.Contains(t, err.Error(), "10 redirects")
		assert.Equal(t, 11, f.count("", ""))
	})
	t.Run("from https to http", func(t *testing.T) {
		f, plain := newTLSFake(t), newFake(t)
		plain.put("app", b)
		f.when("", "", 0, status(302, "", "Location", "http://"+plain.host+blob))
		_, err := pull(t, client(registry.Options{Insecure: everywhere}), f.host+"/app:1", layer)
		require.Error(t, err)
		assert.Contains(t, err.Error(), "from https to http")
		assert.Empty(t, plain.requests())
	})
	for name, location := range map[string]string{"nowhere": "", "a file": "file:///etc/passwd", "garbage": "http://[::1", "a user": "http://u:p@127.0.0.1/"} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.when("", "", 0, status(302, "", "Location", location))
			_, err := pull(t, client(registry.Options{}), f.host+"/app:1", layer)
			require.Error(t, err)
			assert.Equal(t, 1, f.count("", ""))
		})
	}
}

func TestScheme_C09_C10(t *testing.T) {
	r := func(f *fake, host string) string {
		return host + f.host[strings.LastIndexByte(f.host, ':'):] + "/app:1"
	}
	t.Run("C09 no http without being told", func(t *testing.T) {
		f := newFake(t)
		f.putManifest("app", "1", ocispec.MediaTypeImageManifest, imageManifest("x"))
		home := func(string) string { return f.host }
		for _, host := range []string{"registry.local", "10.0.0.5", "localhost.evil", "r.example"} {
			c := client(registry.Options{})
			c.SetNetwork(home, nil)
			_, err := c.Resolve(t.Context(), mustParse(t, r(f, host)))
			require.Error(t, err)
			assert.Contains(t, err.Error(), "--plain-http="+host)
			assert.Empty(t, f.requests())
		}
		c := client(registry.Options{PlainHTTP: registry.Hosts{Names: []string{"registry.local"}}})
		c.SetNetwork(home, nil)
		_, err := c.Resolve(t.Context(), mustParse(t, r(f, "registry.local")))
		require.NoError(t, err)
	})
	t.Run("loopback needs no flag", func(t *testing.T) {
		f := newFake(t)
		f.putManifest("app", "1", ocispec.MediaTypeImageManifest, imageManifest("x"))
		for _, host := range []string{"localhost", "127.0.0.1", "registry.localhost"} {
			c := client(registry.Options{})
			c.SetNetwork(func(string) string { return f.host }, nil)
			_, err := c.Resolve(t.Context(), mustParse(t, r(f, host)))
			require.NoError(t, err, host)
		}
	})
	t.Run("loopback with TLS is found", func(t *testing.T) {
		f := newTLSFake(t)
		f.putManifest("app", "1", ocispec.MediaTypeImageManifest, imageManifest("x"))
		c := client(registry.Options{Insecure: everywhere})
		_, err := c.Resolve(t.Context(), mustParse(t, f.host+"/app:1"))
		require.NoError(t, err)
		_, _, err = c.Manifest(t.Context(), mustParse(t, f.host+"/app:1"))
		require.NoError(t, err)
	})
	t.Run("C10 a certificate nobody knows", func(t *testing.T) {
		f := newTLSFake(t)
		_, err := client(registry.Options{}).Resolve(t.Context(), mustParse(t, f.host+"/app:1"))
		require.Error(t, err)
		assert.Contains(t, err.Error(), "--insecure="+f.host)
		assert.Empty(t, f.requests(), "no fall-back to anything")
	})
	t.Run("http to one that speaks TLS", func(t *testing.T) {
		f := newTLSFake(t)
		c := client(registry.Options{PlainHTTP: everywhere})
		r := mustParse(t, f.host+"/app:1")
		_, err := c.Resolve(t.Context(), r)
		require.Error(t, err)
		assert.Contains(t, err.Error(), "take --plain-http away")
		_, _, err = c.Manifest(t.Context(), r)
		require.Error(t, err)
		assert.Contains(t, err.Error(), "take --plain-http away")
	})
	t.Run("nobody there", func(t *testing.T) {
		n := &naps{}
		_, err := client(registry.Options{Sleep: n.sleep}).Resolve(t.Context(), mustParse(t, testregistry.Nobody(t)+"/app:1"))
		require.Error(t, err)
		assert.Contains(t, err.Error(), "is the registry running")
		assert.Empty(t, n.list, "a mistyped port is told at once")
	})
	t.Run("a registry that restarts", func(t *testing.T) {
		f := unstarted()
		srv := httptest.NewServer(f)
		f.host = strings.TrimPrefix(srv.URL, "http://")
		f.putManifest("app", "1", ocispec.MediaTypeImageManifest, imageManifest("x"))
		var again *httptest.Server
		c := client(registry.Options{Sleep: func(ctx context.Context, _ time.Duration) error {
			if again == nil {
				l, err := net.Listen("tcp", f.host)
				require.NoError(t, err)
				again = httptest.NewUnstartedServer(f)
				_ = again.Listener.Close()
				again.Listener = l
				again.Start()
			}
			return ctx.Err()
		}})
		_, err := c.Resolve(t.Context(), mustParse(t, f.host+"/app:1"))
		require.NoError(t, err)
		srv.Close()
		_, err = c.Resolve(t.Context(), mustParse(t, f.host+"/app:1"))
		require.NoError(t, err)
		again.Close()
	})
}

// TestNoise holds a server that does not speak HTTP.
func TestNoise(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = bufio.NewReader(conn).ReadString('\n')
				_, _ = io.WriteString(conn, "SSH-2.0-OpenSSH_9.2\r\n")
			}()
		}
	}()
	_, err = client(registry.Options{}).Resolve(t.Context(), mustParse(t, l.Addr().String()+"/app:1"))
	require.Error(t, err)
	assert.Contains(t, err.Error(), l.Addr().String())
}
