package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/ref"
)

// request is one thing asked of a registry: however many attempts, tokens and
// redirects it takes.
type request struct {
	op   string // for errors: "pulling manifest"
	what string // for errors: what it is about

	host   *host
	scopes []scope

	method string
	path   string   // below the origin: "/v2/..."
	query  string   // raw
	url    *url.URL // instead of path and query: where an upload goes on
	header http.Header
	size   int64                         // of the body
	body   func() (io.ReadCloser, error) // nil: none; called for each attempt

	refused error // it may not be made
	fewer   bool  // there is another place to ask: less patience
	once    bool  // not tried again: the body moves bytes that the caller accounts for
}

// request is for the place of r itself.
func (c *Client) request(r ref.Ref, op, method, path string, actions string) *request {
	p, err := c.home(r)
	rq := c.requestAt(p, op, method, path, actions)
	rq.refused = err
	return rq
}

func (c *Client) requestAt(p Place, op, method, path string, actions string) *request {
	r := p.Ref
	return &request{
		op: op, what: r.String(), host: c.hostAt(p), method: method, fewer: p.Mirror,
		path:   "/v2/" + r.Repo + path,
		scopes: []scope{{repo: r.Repo, actions: actions}},
		header: http.Header{},
	}
}

// repo is the repository that the request is about; "": the registry itself.
func (rq *request) repo() string {
	if len(rq.scopes) == 0 {
		return ""
	}
	return rq.scopes[0].repo
}

func (rq *request) permission() string {
	if len(rq.scopes) == 0 {
		return "log in"
	}
	if strings.Contains(rq.scopes[0].actions, "push") {
		return "push to " + rq.scopes[0].repo
	}
	return "pull from " + rq.scopes[0].repo
}

// check refuses what cannot be asked of a registry, before a URL is made of it:
// a Ref need not come from ref.Parse.
func check(r ref.Ref) error {
	if r.Kind != ref.Registry {
		return fmt.Errorf("%w: %q is not a registry reference", ErrInvalid, r)
	}
	p, err := ref.Parse(r.String())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if r.Tag == "" {
		p.Tag = ""
	}
	if p != r {
		return fmt.Errorf("%w: %q is not a registry reference", ErrInvalid, r)
	}
	return nil
}

// checkBlob is check for a blob of r's repository.
func checkBlob(r ref.Ref, d digest.Digest) error {
	if err := check(r); err != nil {
		return err
	}
	if err := d.Validate(); err != nil {
		return fmt.Errorf("%w: digest %q: %w", ErrInvalid, d, err)
	}
	return nil
}

// target is where the request goes first.
func (rq *request) target() *url.URL {
	if rq.url != nil {
		u := *rq.url
		return &u
	}
	u := rq.host.origin()
	u.Path, u.RawQuery = rq.path, rq.query
	return u
}

// do makes the request and returns the answer, whatever its status: but for a
// 401, which it answers with credentials, and for failures that pass, which it
// waits out.
func (c *Client) do(ctx context.Context, rq *request) (*http.Response, error) {
	if rq.refused != nil {
		return nil, fmt.Errorf("%s %s: %w", rq.op, rq.what, rq.refused)
	}
	most := tries
	if rq.fewer {
		most = 2
	}
	for try := 1; ; try++ {
		if err := c.waitGate(ctx, rq.host); err != nil {
			return nil, rq.explain(err)
		}
		if c.o.Pace != nil {
			if err := c.o.Pace(ctx); err != nil {
				return nil, rq.explain(err)
			}
		}
		resp, err := c.authorized(ctx, rq)
		again, pause := c.passing(ctx, rq.host, resp, err)
		if rq.method == http.MethodHead && resp != nil && resp.StatusCode == http.StatusInternalServerError {
			again = false // some registries cannot HEAD: whoever asks has another way
		}
		if !again || try == most || (rq.once && (resp == nil || resp.StatusCode != http.StatusTooManyRequests)) {
			if err != nil {
				return nil, rq.explain(err)
			}
			c.warn(resp)
			return resp, nil
		}
		if resp != nil {
			discard(resp)
		}
		if pause > 0 {
			err = c.closeGate(ctx, rq.host, pause)
		} else {
			err = c.o.Sleep(ctx, backoff(try))
		}
		if err != nil {
			return nil, rq.explain(err)
		}
	}
}

// authorized makes the request with the token that is known, and with a new one
// when the registry asks for it: at most twice, as a registry may say 401 for ever.
func (c *Client) authorized(ctx context.Context, rq *request) (*http.Response, error) {
	auth := rq.host.known(rq.scopes)
	for fetched := 0; ; fetched++ {
		resp, err := c.follow(ctx, rq, auth)
		if err != nil || resp.StatusCode != http.StatusUnauthorized || fetched == maxFetches || !sameOrigin(resp.Request.URL, rq.host.origin()) {
			return resp, err
		}
		next, err := c.answer(ctx, rq, resp, auth)
		if err != nil {
			discard(resp)
			return nil, err
		}
		if next == auth { // nothing better to offer: the 401 is the answer
			return resp, nil
		}
		discard(resp)
		auth = next
	}
}

const maxRedirects = 10

// follow makes the request and follows redirects. The Authorization goes to the
// registry's own origin, and no more after a redirect led away from it.
func (c *Client) follow(ctx context.Context, rq *request, auth string) (*http.Response, error) {
	u := rq.target()
	for hop := 0; ; hop++ {
		if !sameOrigin(u, rq.host.origin()) {
			auth = ""
		}
		resp, err := c.attempt(ctx, rq, u, auth)
		for n := 1; untouched(err) && n <= maxUntouched; n++ {
			if c.o.Sleep(ctx, backoff(1)) != nil {
				break
			}
			resp, err = c.attempt(ctx, rq, u, auth)
		}
		if err != nil {
			return nil, err
		}
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther:
			if rq.method != http.MethodGet && rq.method != http.MethodHead {
				return resp, nil
			}
		case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
			if rq.once { // the body was sent; where it goes is said before
				return resp, nil
			}
		default:
			return resp, nil
		}
		u = resp.Request.URL // https, where a first attempt without found TLS
		next, err := u.Parse(resp.Header.Get("Location"))
		discard(resp)
		switch {
		case err != nil || resp.Header.Get("Location") == "":
			return nil, fmt.Errorf("%s redirects to %q, which is no address", u.Host, printable(resp.Header.Get("Location")))
		case hop == maxRedirects:
			return nil, fmt.Errorf("stopped after %d redirects, the last to %s", maxRedirects, next.Host)
		}
		if err := checkHop(u, next); err != nil {
			return nil, err
		}
		u = next
	}
}

// checkHop refuses where a registry may not send us.
func checkHop(from, to *url.URL) error {
	switch {
	case to.Host == "" || to.Scheme != "https" && to.Scheme != "http":
		return fmt.Errorf("%s points at %q, which is neither https nor http", from.Host, printable(to.Redacted()))
	case to.Scheme == "http" && from.Scheme == "https":
		return fmt.Errorf("%s points from https to http (%s): refused", from.Host, to.Host)
	case to.User != nil:
		return fmt.Errorf("%s points at an address with a user in it (%s): refused", from.Host, to.Host)
	}
	return nil
}

// attempt is one request and its answer.
func (c *Client) attempt(ctx context.Context, rq *request, u *url.URL, auth string) (*http.Response, error) {
	probing := rq.host.mayBeTLS() && sameOrigin(u, rq.host.origin())
	resp, err := c.roundTrip(ctx, rq, u, auth)
	if err != nil && rq.host.mayBePlain(u, err) {
		plain := *u
		plain.Scheme = "http"
		rq.host.bare(true)
		again, perr := c.roundTrip(ctx, rq, &plain, auth)
		if perr != nil {
			rq.host.bare(false)
			return nil, err
		}
		return again, nil
	}
	if !probing || ctx.Err() != nil {
		return resp, err
	}
	secure := *u
	secure.Scheme = "https"
	if !rq.host.mayBeTLS() { // another request found out meanwhile
		if rq.host.origin().Scheme != "https" {
			return resp, err
		}
		if resp != nil {
			discard(resp)
		}
		return c.roundTrip(ctx, rq, &secure, auth)
	}
	// A TLS server answers a plain request with 400, or with noise, or not at all.
	if err == nil && resp.StatusCode != http.StatusBadRequest {
		rq.host.settle(false)
		return resp, nil
	}
	if refused(err) {
		return nil, err
	}
	speaks := rq.host.speaksTLS(ctx)
	if err == nil || speaks {
		rq.host.settle(speaks)
	}
	if !speaks {
		return resp, err
	}
	if resp != nil {
		discard(resp)
	}
	return c.roundTrip(ctx, rq, &secure, auth)
}

func (c *Client) roundTrip(ctx context.Context, rq *request, u *url.URL, auth string) (*http.Response, error) {
	if c.o.Offline {
		return nil, &localError{fmt.Errorf("%w: %s would be asked (%s %s)", ErrOffline, u.Host, rq.method, u.Path)}
	}
	via := c.pool.viaProxy(u)
	if !via && sameOrigin(u, rq.host.origin()) {
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			GotConn: func(info httptrace.GotConnInfo) { c.remember(rq.host, info.Conn) },
		})
	}
	w := newWatch(ctx, c.headerWait)
	req, err := http.NewRequestWithContext(w.ctx, rq.method, u.String(), nil)
	if err != nil {
		w.stop()
		return nil, err
	}
	for k, v := range rq.header {
		req.Header[k] = v
	}
	req.Header.Set("User-Agent", c.o.UserAgent)
	req.Header.Set("Accept-Encoding", "identity")
	if auth != "" {
		req.Header.Set("Authorization", auth)
	}
	if rq.body != nil {
		body, err := rq.body()
		if err != nil {
			w.stop()
			return nil, &sourceError{err}
		}
		req.ContentLength = rq.size
		if rq.size == 0 {
			_ = body.Close()
			req.Body = http.NoBody
		} else {
			req.Body = &sendBody{ReadCloser: body, w: w, left: rq.size, idle: c.idle, wait: c.headerWait}
		}
	}
	t, err := c.transport(rq.host, u, via)
	if err != nil {
		w.stop()
		if errors.Is(err, errAddress) {
			return nil, err
		}
		return nil, &localError{err}
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		if cause := context.Cause(w.ctx); cause != nil {
			err = cause
		}
		w.stop()
		if sb, ok := req.Body.(*sendBody); ok {
			if failed := sb.failed(); failed != nil {
				err = &sourceError{failed}
			}
		}
		return nil, err
	}
	w.timer.Stop()
	rq.host.answers()
	resp.Body = &recvBody{ReadCloser: resp.Body, w: w, idle: c.idle}
	return resp, nil
}

// localError is a failure on this side, before anything was asked.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// sourceError is a failure of what is to be sent: asking again would not help.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return fmt.Sprintf("reading what is to be sent: %v", e.err) }
func (e *sourceError) Unwrap() error { return e.err }

// discard ends a response whose body nobody wants; a short rest is read, so
// that the connection can be used again.
func discard(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, maxErrorBody)
	_ = resp.Body.Close()
}

// readAll reads a body of at most limit bytes.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		return nil, fmt.Errorf("%w of %d bytes", errTooLong, limit)
	}
	return b, err
}

var errTooLong = errors.New("the answer is longer than the limit")
