package serve_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/serve"
)

// errTimeout is what a deadline of this side gives.
var errTimeout = os.ErrDeadlineExceeded

// instance is a registry that Run serves.
type instance struct {
	addr, metrics string
	stop          context.CancelFunc
	ended         chan error
}

// running serves o on a free port until the test ends.
func running(t *testing.T, o serve.Options) *instance {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	run := &instance{stop: cancel, ended: make(chan error, 1)}
	ready := make(chan string, 1)
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	o.Ready = func(addr string) { ready <- addr }
	o.ReadyMetrics = func(addr string) { run.metrics = addr }
	go func() { run.ended <- serve.Run(ctx, o) }()
	select {
	case run.addr = <-ready:
	case err := <-run.ended:
		require.NoError(t, err)
	}
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-run.ended:
			assert.NoError(t, err)
		case <-time.After(2 * time.Minute):
			assert.Fail(t, "the registry does not end")
		}
	})
	return run
}

// inFlight waits until a request runs.
func (i *instance) inFlight(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		resp, err := http.Get("http://" + i.metrics + "/metrics")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		return err == nil && bytes.Contains(text, []byte("requests_in_flight 1\n"))
	}, time.Minute, 10*time.Millisecond)
}

func startServer(t *testing.T, o serve.Options) (*serve.Server, string) {
	t.Helper()
	h, err := serve.Handler(t.Context(), o)
	require.NoError(t, err)
	srv := httptest.NewServer(h)
	t.Cleanup(func() {
		srv.Close()
		assert.NoError(t, h.Close())
	})
	return h, strings.TrimPrefix(srv.URL, "http://")
}

func scrape(t *testing.T, h *serve.Server) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.Metrics().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	require.Equal(t, 200, w.Code)
	assert.Equal(t, "text/plain; version=0.0.4; charset=utf-8", w.Header().Get("Content-Type"))
	return w.Body.String()
}

// TestListen_F18_open: what others reach is refused, unless they need a name, and
// nobody on the way can read it.
func TestListen_F18_open(t *testing.T) {
	for name, tc := range map[string]struct {
		o    serve.Options
		addr string
		hint string // "": allowed
	}{
		"loopback":             {serve.Options{}, "127.0.0.1:5000", ""},
		"loopback 6":           {serve.Options{}, "[::1]:5000", ""},
		"loopback, users":      {serve.Options{Users: "f"}, "127.0.0.1:5000", ""},
		"all":                  {serve.Options{}, "0.0.0.0:5000", "--allow-anonymous"},
		"all 6":                {serve.Options{}, "[::]:5000", "--htpasswd"},
		"private":              {serve.Options{}, "192.168.1.1:5000", "--htpasswd"},
		"read-only":            {serve.Options{ReadOnly: true}, "0.0.0.0:5000", "--allow-anonymous"},
		"TLS without users":    {serve.Options{Certificate: "f", Key: "f"}, "0.0.0.0:5000", "--htpasswd"},
		"users without TLS":    {serve.Options{Users: "f"}, "0.0.0.0:5000", "--tls-cert"},
		"users and TLS":        {serve.Options{Users: "f", Certificate: "f", Key: "f"}, "0.0.0.0:5000", ""},
		"users behind a proxy": {serve.Options{Users: "f", AllowPlainHTTP: true}, "0.0.0.0:5000", ""},
		"meant":                {serve.Options{AllowAnonymous: true}, "0.0.0.0:5000", ""},
		"meant for passwords":  {serve.Options{AllowAnonymous: true, Users: "f"}, "0.0.0.0:5000", "--tls-cert"},
	} {
		t.Run(name, func(t *testing.T) {
			err := serve.MayListen(&tc.o, tc.addr)
			if tc.hint == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, serve.ErrOpen)
			var open *serve.OpenError
			require.ErrorAs(t, err, &open)
			assert.Contains(t, open.Hint(), tc.hint)
			assert.Contains(t, err.Error(), tc.addr)
		})
	}
	dir := t.TempDir()
	err := serve.Run(t.Context(), serve.Options{Dir: dir, Listen: "0.0.0.0:0", Ready: func(string) { assert.Fail(t, "it listens") }})
	require.ErrorIs(t, err, serve.ErrOpen)
	running(t, serve.Options{Dir: dir, Listen: "0.0.0.0:0", AllowAnonymous: true})
}

// TestTLS_reload: a certificate is replaced while the registry runs; a broken one changes nothing.
func TestTLS_reload(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	pool := writeCertificate(t, cert, key, 1)
	run := running(t, serve.Options{Dir: filepath.Join(dir, "registry"), Certificate: cert, Key: key})
	serial := func() int64 {
		conn, err := tls.Dial("tcp", run.addr, &tls.Config{RootCAs: pool})
		if err != nil {
			return -1
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	require.Equal(t, int64(1), serial())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
	resp, err := client.Get("https://" + run.addr + "/v2/")
	require.NoError(t, err)
	assert.Equal(t, 200, resp.StatusCode)
	assert.Equal(t, "HTTP/2.0", resp.Proto)
	_ = resp.Body.Close()
	_, err = tls.Dial("tcp", run.addr, &tls.Config{RootCAs: pool, MaxVersion: tls.VersionTLS11})
	require.Error(t, err)
	resp, err = http.Get("http://" + run.addr + "/v2/")
	require.NoError(t, err)
	assert.Equal(t, 400, resp.StatusCode, "plain HTTP")
	_ = resp.Body.Close()

	next := writeCertificate(t, cert, key, 2)
	pool = next
	require.Eventually(t, func() bool { return serial() == 2 }, time.Minute, 50*time.Millisecond)
	require.NoError(t, os.WriteFile(key, []byte("no key"), 0o600))
	time.Sleep(1100 * time.Millisecond)
	assert.Equal(t, int64(2), serial())

	for name, o := range map[string]serve.Options{
		"no key":     {Certificate: cert},
		"no cert":    {Key: key},
		"broken key": {Certificate: cert, Key: key},
		"missing":    {Certificate: filepath.Join(dir, "none"), Key: key},
	} {
		o.Dir, o.Listen = t.TempDir(), "127.0.0.1:0"
		require.ErrorIs(t, serve.Run(t.Context(), o), serve.ErrInvalid, name)
	}
}

// TestTLS_h2 moves blobs over HTTP/2, whose bodies have deadlines of their own.
func TestTLS_h2(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	pool := writeCertificate(t, cert, key, 1)
	run := running(t, serve.Options{Dir: filepath.Join(dir, "registry"), Certificate: cert, Key: key})
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
	b := randomBytes(t, 5<<20)
	d := describe(b).Digest.String()
	do := func(method, path string, body []byte) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), method, "https://"+run.addr+path, bytes.NewReader(body))
		require.NoError(t, err)
		resp, err := client.Do(req)
		require.NoError(t, err)
		assert.Equal(t, 2, resp.ProtoMajor)
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp
	}
	require.Equal(t, 201, do("POST", "/v2/app/blobs/uploads/?digest="+d, b).StatusCode)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			got, err := io.ReadAll(do("GET", "/v2/app/blobs/"+d, nil).Body)
			assert.NoError(t, err)
			assert.True(t, bytes.Equal(b, got))
		})
	}
	wg.Wait()
}

// writeCertificate writes a certificate of its own for the loopback.
func writeCertificate(t *testing.T, cert, key string, serial int64) *x509.CertPool {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(k)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	pool := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool.AddCert(leaf)
	return pool
}

// lockedBuffer is a buffer that a server writes to.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestAccessLog_F23 has lines of JSON, one a request, that no request can forge.
func TestAccessLog_F23(t *testing.T) {
	var log lockedBuffer
	a := api{t, "http://" + start(t, serve.Options{Dir: t.TempDir(), AccessLog: &log, Users: userFile(t, "alice")})}
	b := []byte("hello")
	d := describe(b).Digest.String()
	require.Equal(t, 201, a.as("alice", "ecila", "POST", "/v2/app/blobs/uploads/?digest="+d, b).status)
	require.Equal(t, 200, a.as("alice", "ecila", "GET", "/v2/app/blobs/"+d, nil).status)
	require.Equal(t, 401, a.as("al\nice", "x", "GET", "/v2/%0a%1b[2J/manifests/x?a=%0ab", nil, "User-Agent", "evil\",\"user\":\"root").status)
	_, err := rawRequest(t, a.base, "GET /v2/a\xffb HTTP/1.1\r\nHost: x\r\nUser-Agent: \xff\xfe\r\nConnection: close\r\n\r\n")
	require.NoError(t, err)

	lines := strings.Split(strings.TrimSuffix(log.String(), "\n"), "\n")
	require.Len(t, lines, 4)
	var got []serve.AccessEntry
	for _, l := range lines {
		assert.NotContains(t, l, "\x1b")
		var e serve.AccessEntry
		dec := json.NewDecoder(strings.NewReader(l))
		dec.DisallowUnknownFields()
		require.NoError(t, dec.Decode(&e), l)
		assert.WithinDuration(t, time.Now(), e.Time, time.Minute)
		assert.Regexp(t, `^127\.0\.0\.1:\d+$`, e.Remote)
		got = append(got, e)
	}
	assert.Equal(t, serve.AccessEntry{
		Time: got[0].Time, Remote: got[0].Remote, User: "alice", Method: "POST", Path: "/v2/app/blobs/uploads/?digest=" + d, Proto: "HTTP/1.1",
		Endpoint: "uploads", Repo: "app", Status: 201, Received: 5, Seconds: got[0].Seconds, Agent: got[0].Agent,
	}, got[0])
	assert.Equal(t, int64(5), got[1].Sent)
	assert.Equal(t, "alice", got[1].User)
	assert.Equal(t, 401, got[2].Status)
	assert.Equal(t, "UNAUTHORIZED", got[2].Error)
	assert.Empty(t, got[2].User, "a name that was not proven is nobody's")
	assert.NotContains(t, log.String(), "ecila")
}

var metricLine = regexp.MustCompile(`^[a-z_]+(?:\{[a-z]+="[^"\\]*"(?:,[a-z]+="[^"\\]*")*\})? [0-9.e+-]+$`)

// TestMetrics reads the text format as strictly as Prometheus does.
func TestMetrics(t *testing.T) {
	run := running(t, serve.Options{Dir: t.TempDir(), MetricsListen: "127.0.0.1:0", Limits: serve.Limits{Total: 1 << 20}})
	a := api{t, "http://" + run.addr}
	im := newImage(t, "amd64", 1000)
	a.putImage("secret-name", "tag", im)
	a.call("GET", "/v2/secret-name/manifests/none", nil)
	a.call("BREW", "/v2/", nil)
	a.begin("secret-name")
	assert.Equal(t, 404, a.call("GET", "/metrics", nil).status, "not where images are")

	get := func(path string) string {
		resp, err := http.Get("http://" + run.metrics + path)
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Equal(t, 200, resp.StatusCode)
		return string(b)
	}
	assert.Equal(t, "ok\n", get("/healthz"))
	text := get("/metrics")
	assert.NotContains(t, text, "secret-name")
	values := map[string]float64{}
	typed := map[string]string{}
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(rest, " ")
			assert.Empty(t, typed[name], "%s is typed twice", name)
			typed[name] = kind
			continue
		}
		if strings.HasPrefix(line, "# HELP ") {
			continue
		}
		require.Regexp(t, metricLine, line)
		at := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(line[at+1:], 64)
		require.NoError(t, err)
		values[line[:at]] = v
		name, _, _ := strings.Cut(line[:at], "{")
		for _, end := range []string{"_bucket", "_sum", "_count"} {
			if base := strings.TrimSuffix(name, end); typed[base] == "histogram" {
				name = base
			}
		}
		assert.NotEmpty(t, typed[name], "%s has no type", name)
	}
	assert.InDelta(t, 2, values[`manifestctl_registry_requests_total{method="PUT",endpoint="upload",status="201"}`], 0)
	assert.InDelta(t, 1, values[`manifestctl_registry_requests_total{method="GET",endpoint="manifest",status="404"}`], 0)
	assert.InDelta(t, 1, values[`manifestctl_registry_requests_total{method="other",endpoint="base",status="405"}`], 0)
	assert.InDelta(t, 1, values["manifestctl_registry_uploads_open"], 0)
	assert.InDelta(t, 1<<20, values["manifestctl_registry_content_limit_bytes"], 0)
	assert.InDelta(t, float64(len(im.layer)+len(im.config)+len(im.raw)), values["manifestctl_registry_content_bytes"], 0)
	assert.InDelta(t, float64(len(im.layer)+len(im.config)), values[`manifestctl_registry_received_bytes_total{endpoint="upload"}`], 0)
	assert.InDelta(t, values[`manifestctl_registry_request_seconds_count{endpoint="upload"}`], values[`manifestctl_registry_request_seconds_bucket{endpoint="upload",le="+Inf"}`], 0)
}

// TestStop_F24_duringUpload: an upload that runs ends well, new connections are refused; one that does not end is cut.
func TestStop_F24_duringUpload(t *testing.T) {
	dir := t.TempDir()
	run := running(t, serve.Options{Dir: dir, MetricsListen: "127.0.0.1:0", Timeouts: serve.Timeouts{Stop: 5 * time.Minute}})
	b := randomBytes(t, 1000)
	pr, pw := io.Pipe()
	done := make(chan int, 1)
	go func() {
		req, _ := http.NewRequest("POST", "http://"+run.addr+"/v2/app/blobs/uploads/?digest="+describe(b).Digest.String(), pr)
		req.ContentLength = int64(len(b))
		resp, err := plainClient.Do(req)
		if err != nil {
			done <- 0
			return
		}
		_ = resp.Body.Close()
		done <- resp.StatusCode
	}()
	_, err := pw.Write(b[:500])
	require.NoError(t, err)
	run.inFlight(t)
	run.stop()
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", run.addr)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	}, time.Minute, 10*time.Millisecond, "new connections are refused")
	_, err = pw.Write(b[500:])
	require.NoError(t, err)
	_ = pw.Close()
	assert.Equal(t, 201, <-done)
	require.NoError(t, <-run.ended)
	run.ended <- nil // for the clean-up

	// Again, with an upload that stalls: it is cut, and leaves nothing.
	run = running(t, serve.Options{Dir: dir, MetricsListen: "127.0.0.1:0", Timeouts: serve.Timeouts{Stop: 200 * time.Millisecond}})
	pr, pw = io.Pipe()
	go func() {
		req, _ := http.NewRequest("POST", "http://"+run.addr+"/v2/app/blobs/uploads/?digest="+digest.FromString("x").String(), pr)
		resp, err := plainClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		_ = pr.CloseWithError(io.ErrClosedPipe)
	}()
	_, err = pw.Write(b[:500])
	require.NoError(t, err)
	run.inFlight(t)
	run.stop()
	require.NoError(t, <-run.ended)
	run.ended <- nil
	left, err := os.ReadDir(filepath.Join(dir, "uploads"))
	require.NoError(t, err)
	assert.Empty(t, left)
}
