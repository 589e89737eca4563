package source

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const lastModified = "Mon, 02 Jan 2006 15:04:05 GMT"

// files is a server with a file, its redirects and its mistakes.
func fileServer(t *testing.T, other string) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/f", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		w.Header().Set("Last-Modified", lastModified)
		if r.Header.Get("If-None-Match") == `"1"` || r.Header.Get("If-Modified-Since") == lastModified {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = io.WriteString(w, "text "+r.Header.Get("Authorization")+r.Header.Get("X-Own")+" "+r.Header.Get("Accept-Encoding"))
	})
	mux.HandleFunc("/short", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "text")
	})
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	mux.HandleFunc("/gone", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) })
	mux.HandleFunc("/unasked", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) })
	mux.HandleFunc("/huge", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "999999999999999") })
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/there", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/f", http.StatusFound) })
	mux.HandleFunc("/elsewhere", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other, http.StatusFound) })
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

func TestFetch(t *testing.T) {
	// The same server by another name is another host.
	var other string
	s := fileServer(t, "")
	other = strings.Replace(s.URL, "127.0.0.1", "localhost", 1) + "/f"
	away := fileServer(t, other)
	for name, tc := range map[string]struct {
		r    HTTPRequest
		want string // of the body
	}{
		"a file":              {HTTPRequest{URL: s.URL + "/f"}, "text  identity"},
		"headers":             {HTTPRequest{URL: s.URL + "/f", Header: map[string]string{"X-Own": "own"}, Authorization: "Basic x"}, "text Basic xown identity"},
		"redirected":          {HTTPRequest{URL: s.URL + "/there", Authorization: "Basic x"}, "text Basic x identity"},
		"to another host":     {HTTPRequest{URL: away.URL + "/elsewhere", Authorization: "Basic x"}, "text  identity"},
		"an older copy":       {HTTPRequest{URL: s.URL + "/f", ETag: `"0"`}, "text  identity"},
		"an older copy's day": {HTTPRequest{URL: s.URL + "/f", LastModified: "Sun, 01 Jan 2006 15:04:05 GMT"}, "text  identity"},
	} {
		t.Run(name, func(t *testing.T) {
			resp, err := Fetch(t.Context(), tc.r)
			require.NoError(t, err)
			body, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			assert.Equal(t, tc.want, string(body))
			assert.Equal(t, `"1"`, resp.ETag)
			assert.Equal(t, time.Date(2006, 1, 2, 15, 4, 5, 0, time.UTC), resp.ModTime())
		})
	}
	for name, r := range map[string]HTTPRequest{"by its tag": {ETag: `"1"`}, "by its day": {LastModified: lastModified}} {
		t.Run("the copy at hand is good "+name, func(t *testing.T) {
			r.URL = s.URL + "/f"
			resp, err := Fetch(t.Context(), r)
			require.NoError(t, err)
			assert.Nil(t, resp.Body)
		})
	}
	for name, tc := range map[string]struct {
		url  string
		want error
	}{
		"missing":            {s.URL + "/missing", ErrNotFound},
		"gone":               {s.URL + "/gone", ErrNotFound},
		"the server's fault": {s.URL + "/broken", ErrHTTP},
		"304 of nothing":     {s.URL + "/unasked", ErrHTTP},
		"too long":           {s.URL + "/huge", ErrHTTP},
		"in a circle":        {s.URL + "/loop", ErrRedirect},
		"no http":            {"file:///etc/passwd", ErrHTTP},
		"no URL":             {"http://%zz", ErrHTTP},
		"nobody there":       {"http://127.0.0.1:1/", ErrHTTP},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Fetch(t.Context(), HTTPRequest{URL: tc.url})
			require.ErrorIs(t, err, tc.want)
			require.ErrorIs(t, err, ErrHTTP)
		})
	}
	t.Run("shorter than it says", func(t *testing.T) {
		resp, err := Fetch(t.Context(), HTTPRequest{URL: s.URL + "/short"})
		require.NoError(t, err)
		_, err = io.ReadAll(resp.Body)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		require.NoError(t, resp.Body.Close())
	})
	t.Run("no password in messages", func(t *testing.T) {
		_, err := Fetch(t.Context(), HTTPRequest{URL: strings.Replace(s.URL, "://", "://user:secret@", 1) + "/missing"})
		require.ErrorIs(t, err, ErrNotFound)
		assert.NotContains(t, err.Error(), "secret")
	})
}

func TestRedirectsStayEncrypted(t *testing.T) {
	request := func(url string) *http.Request {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		require.NoError(t, err)
		return r
	}
	secure, plain := request("https://e.org/"), request("http://e.org/")
	require.ErrorIs(t, checkRedirect(plain, []*http.Request{secure}), ErrRedirect)
	require.NoError(t, checkRedirect(secure, []*http.Request{plain}))
	require.NoError(t, checkRedirect(secure, []*http.Request{secure}))
}

func TestFetchedBodyIsBounded(t *testing.T) {
	b := &fetchBody{body: io.NopCloser(strings.NewReader("12345")), left: 4, done: func() {}}
	got, err := io.ReadAll(b)
	require.ErrorIs(t, err, ErrHTTP)
	assert.Equal(t, "1234", string(got))
}
