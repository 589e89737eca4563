package testregistry_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/internal/testregistry"
)

// ask makes one request, without any patience.
func ask(t *testing.T, r *testregistry.Registry, method, path string, body io.Reader) (*http.Response, []byte, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, r.URL()+path, body)
	require.NoError(t, err)
	tr := &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // the test's own server
		ForceAttemptHTTP2: true, DisableKeepAlives: true,
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return resp, got, err
}

// TestFaults holds what each fault does to a client without patience: a fault that does nothing would make tests pass.
func TestFaults(t *testing.T) {
	blob := bytes.Repeat([]byte("0123456789"), 10_000)
	for name, tc := range map[string]struct {
		fault  testregistry.Fault
		status int
		n      int // bytes that arrive
		broken bool
	}{
		"pass":           {testregistry.Pass(), 200, 100_000, false},
		"status":         {testregistry.Status(503, "UNAVAILABLE"), 503, 55, false},
		"answer":         {testregistry.Answer(200, []byte("hello")), 200, 5, false},
		"redirect":       {testregistry.Redirect(307, "http://elsewhere.example/"), 307, -1, false},
		"headers":        {testregistry.Headers("Content-Type", "text/html"), 200, 100_000, false},
		"cut at 0":       {testregistry.Cut(0), 200, 0, true},
		"cut":            {testregistry.Cut(12_345), 200, 12_345, true},
		"cut at the end": {testregistry.Cut(100_000), 200, 100_000, false},
		"slow":           {testregistry.Slow(20_000, time.Millisecond), 200, 100_000, false},
		"too long":       {testregistry.Length(10), 200, 100_000, true},
		"too short":      {testregistry.Length(-10), 200, 99_990, false},
		"raw":            {testregistry.Raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"), 200, 3, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := testregistry.New(t, testregistry.Options{})
			d := r.Put("app", blob)
			r.When("GET", testregistry.Blobs, 2, tc.fault)
			for nth := 1; nth <= 3; nth++ {
				resp, got, err := ask(t, r, "GET", "/v2/app/blobs/"+d.String(), nil)
				if nth != 2 {
					require.NoError(t, err)
					assert.Equal(t, blob, got, "the others are well")
					continue
				}
				require.NotNil(t, resp)
				assert.Equal(t, tc.status, resp.StatusCode)
				assert.Equal(t, tc.broken, err != nil, "%v", err)
				if tc.n >= 0 {
					assert.Equal(t, tc.n, len(got))
				}
			}
			assert.Equal(t, 3, r.Count("GET", testregistry.Blobs))
		})
	}
	t.Run("no answer", func(t *testing.T) {
		for _, f := range []testregistry.Fault{testregistry.Reset(), testregistry.Lost()} {
			r := testregistry.New(t, testregistry.Options{TLS: &tls.Config{}, HTTP2: true})
			r.When("", "", 1, f)
			_, _, err := ask(t, r, "GET", "/v2/", nil)
			require.Error(t, err)
			resp, _, err := ask(t, r, "GET", "/v2/", nil)
			require.NoError(t, err)
			assert.Equal(t, "HTTP/2.0", resp.Proto)
		}
	})
}

func TestUploads(t *testing.T) {
	for name, drop := range map[string]bool{"kept": false, "dropped": true} {
		t.Run(name, func(t *testing.T) {
			r := testregistry.New(t, testregistry.Options{DropCut: drop})
			resp, _, err := ask(t, r, "POST", "/v2/app/blobs/uploads/", nil)
			require.NoError(t, err)
			at := resp.Header.Get("Location")
			r.When("PUT", testregistry.Uploads, 1, testregistry.CutUpload(1000))
			_, _, err = ask(t, r, "PUT", at, strings.NewReader(strings.Repeat("x", 5000)))
			require.Error(t, err)
			resp, _, err = ask(t, r, "GET", at, nil)
			require.NoError(t, err)
			want := "0-999"
			if drop {
				want = "0-0"
			}
			assert.Equal(t, want, resp.Header.Get("Range"))
			assert.Equal(t, int64(1000), r.Of("PUT", "")[0].Received)
		})
	}
}

func TestTranscript_NoSecrets(t *testing.T) {
	log := &testregistry.Transcript{}
	a, b := testregistry.New(t, testregistry.Options{Transcript: log}), testregistry.New(t, testregistry.Options{Transcript: log})
	req, err := http.NewRequestWithContext(t.Context(), "GET", a.URL()+"/v2/?x=s3cret", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Basic x")
	resp, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	log.NoSecrets(t, []string{a.URL()}, "s3cret")
	leaks := &testing.T{}
	log.NoSecrets(leaks, []string{b.URL()})
	assert.True(t, leaks.Failed(), "an Authorization")
	leaks = &testing.T{}
	require.NoError(t, func() error {
		req.Header.Del("Authorization")
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}())
	log.NoSecrets(leaks, nil, "s3cret")
	assert.True(t, leaks.Failed(), "a secret in an address")
}

func TestProxy(t *testing.T) {
	r := testregistry.New(t, testregistry.Options{})
	d := r.Put("app", make([]byte, 100_000))
	p := &testregistry.Proxy{}
	host := p.Start(t, r.Host)
	p.CutAt(50_000)
	get := func() (int64, error) {
		resp, err := http.Get("http://" + host + "/v2/app/blobs/" + d.String())
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		return io.Copy(io.Discard, resp.Body)
	}
	_, err := get()
	require.Error(t, err)
	assert.Equal(t, 1, p.Cuts())
	n, err := get()
	require.NoError(t, err)
	assert.Equal(t, int64(100_000), n)
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	p.Refuse(true)
	_, err = get()
	require.Error(t, err)
}
