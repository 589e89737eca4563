package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// The kinds of errors of Fetch.
var (
	ErrHTTP     = errors.New("not fetched")
	ErrRedirect = errors.New("refused redirect")
)

// maxFetch bounds what one URL may bring, in bytes.
const maxFetch = 64 << 30

const (
	maxRedirects    = 10
	responseTimeout = 2 * time.Minute // until the headers are there
)

// HTTPRequest is one file to fetch.
type HTTPRequest struct {
	URL           string
	Header        map[string]string
	Authorization string // of the Authorization header, for the URL's own host only
	// ETag and LastModified are those of a copy that is at hand.
	ETag, LastModified string
}

// HTTPResponse is a file being fetched. Body is nil when the copy at hand is still good.
type HTTPResponse struct {
	Body         io.ReadCloser
	ETag         string
	LastModified string
}

// ModTime is what Last-Modified says, 1970 without it.
func (r *HTTPResponse) ModTime() time.Time {
	if t, err := http.ParseTime(r.LastModified); err == nil {
		return t
	}
	return time.Unix(0, 0)
}

// Fetch asks for a file. It follows at most ten redirects, none from https to http, and takes credentials to no other
// host. The body ends with an error when it is longer than 64 GiB or shorter than was said.
func Fetch(ctx context.Context, r HTTPRequest) (*HTTPResponse, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHTTP, err)
	}
	if req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return nil, fmt.Errorf("%w: %s: the scheme must be http or https", ErrHTTP, redacted(req.URL))
	}
	for k, v := range r.Header {
		req.Header.Set(k, v)
	}
	if r.Authorization != "" {
		req.Header.Set("Authorization", r.Authorization)
	}
	req.Header.Set("Accept-Encoding", "identity")
	if r.ETag != "" {
		req.Header.Set("If-None-Match", r.ETag)
	}
	if r.LastModified != "" {
		req.Header.Set("If-Modified-Since", r.LastModified)
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, ResponseHeaderTimeout: responseTimeout, DisableCompression: true, ForceAttemptHTTP2: true,
	}
	client := &http.Client{Transport: transport, CheckRedirect: checkRedirect}
	resp, err := client.Do(req)
	if err != nil {
		transport.CloseIdleConnections()
		return nil, fmt.Errorf("%w: %w", ErrHTTP, err)
	}
	out := &HTTPResponse{ETag: resp.Header.Get("ETag"), LastModified: resp.Header.Get("Last-Modified")}
	switch {
	case resp.StatusCode == http.StatusNotModified && (r.ETag != "" || r.LastModified != ""):
		transport.CloseIdleConnections()
		return out, resp.Body.Close()
	case resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone:
		transport.CloseIdleConnections()
		return nil, errors.Join(fmt.Errorf("%w: %s: %s: %w", ErrHTTP, redacted(req.URL), resp.Status, ErrNotFound), resp.Body.Close())
	case resp.StatusCode != http.StatusOK:
		transport.CloseIdleConnections()
		return nil, errors.Join(fmt.Errorf("%w: %s: %s", ErrHTTP, redacted(req.URL), resp.Status), resp.Body.Close())
	case resp.ContentLength > maxFetch:
		transport.CloseIdleConnections()
		return nil, errors.Join(fmt.Errorf("%w: %s: %d bytes, at most %d are taken", ErrHTTP, redacted(req.URL), resp.ContentLength, int64(maxFetch)), resp.Body.Close())
	}
	out.Body = &fetchBody{body: resp.Body, left: maxFetch, done: transport.CloseIdleConnections}
	return out, nil
}

func checkRedirect(req *http.Request, via []*http.Request) error {
	last := via[len(via)-1]
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("%w: more than %d", ErrRedirect, maxRedirects)
	case last.URL.Scheme == "https" && req.URL.Scheme != "https":
		return fmt.Errorf("%w: from https to %s", ErrRedirect, req.URL.Scheme)
	case req.URL.Host != via[0].URL.Host:
		req.Header.Del("Authorization")
	}
	return nil
}

func redacted(u *url.URL) string { return u.Redacted() }

// fetchBody bounds a body.
type fetchBody struct {
	body io.ReadCloser
	left int64
	done func()
}

func (b *fetchBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("%w: more than %d bytes", ErrHTTP, int64(maxFetch))
	}
	n, err := b.body.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

func (b *fetchBody) Close() error {
	err := b.body.Close()
	b.done()
	return err
}
