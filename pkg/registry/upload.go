package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/ref"
)

// maxMounts is how many repositories are asked for a blob before it is sent.
const maxMounts = 3

// PushBlob makes sure r's repository holds the blob: asks, mounts from one of from on the same host, else uploads.
// uploaded is false when no bytes moved.
func (c *Client) PushBlob(ctx context.Context, r ref.Ref, desc ocispec.Descriptor, open Open, from []ref.Ref) (uploaded bool, err error) {
	moved, err := c.MoveBlob(ctx, r, desc, open, from, false)
	return moved == Uploaded, err
}

// isAnswer tells what a registry said from a failure to reach it.
func isAnswer(err error) bool {
	var e *Error
	return errors.As(err, &e)
}

// upload sends one blob: in one request if it can, and else in pieces, going on
// where the registry says it is.
type upload struct {
	c        *Client
	ref      ref.Ref
	desc     ocispec.Descriptor
	parts    *pieces
	progress *progress

	session  *url.URL // where to send; nil when there is none
	offset   int64    // what the registry holds in the session
	minChunk int64    // it takes no smaller pieces but the last
	chunk    int64    // largest piece; 0: the whole in one request
	refused  bool     // the digest of what was sent was refused once
}

func (u *upload) request(op, method string) *request {
	rq := u.c.request(u.ref, op, method, "/blobs/uploads/", actPush)
	rq.what = u.ref.Repository() + "@" + u.desc.Digest.String()
	if method != http.MethodPost {
		rq.url = u.session
	}
	return rq
}

// mount asks the registry to take the blob from another of its repositories.
// Whatever it answers but a 201 means no.
func (u *upload) mount(ctx context.Context, from []ref.Ref) (bool, error) {
	home, err := u.c.home(u.ref)
	if err != nil {
		return false, err
	}
	asked := map[string]bool{home.Ref.Repo: true}
	for _, f := range from {
		if f.Kind != ref.Registry || check(f) != nil {
			continue
		}
		p, err := u.c.home(f)
		if f = p.Ref; err != nil || f.Host != home.Ref.Host || asked[f.Repo] || len(asked) > maxMounts {
			continue
		}
		asked[f.Repo] = true
		rq := u.request("mounting blob", http.MethodPost)
		rq.query = url.Values{"mount": {u.desc.Digest.String()}, "from": {f.Repo}}.Encode()
		rq.scopes = append(rq.scopes, scope{repo: f.Repo, actions: actPull})
		resp, err := u.c.do(ctx, rq)
		if err != nil {
			if ctx.Err() != nil {
				return false, err
			}
			continue
		}
		discard(resp)
		switch resp.StatusCode {
		case http.StatusCreated:
			u.cancel(ctx)
			return true, nil
		case http.StatusAccepted: // not mounted, but an upload may begin
			u.cancel(ctx)
			if u.begun(resp) != nil {
				u.session = nil
			}
		}
	}
	return false, nil
}

// cancel gives a session back that is not needed. It is a courtesy.
func (u *upload) cancel(ctx context.Context) {
	if u.session == nil {
		return
	}
	rq := u.request("cancelling the upload of blob", http.MethodDelete)
	rq.once = true
	if resp, err := u.c.do(ctx, rq); err == nil {
		discard(resp)
	}
	u.session = nil
}

// begin opens a session. done is true when the registry has the blob already.
func (u *upload) begin(ctx context.Context) (done bool, err error) {
	rq := u.request("pushing blob", http.MethodPost)
	rq.body = func() (io.ReadCloser, error) { return http.NoBody, nil } // Content-Length: 0
	resp, err := u.c.do(ctx, rq)
	if err != nil {
		return false, err
	}
	switch resp.StatusCode {
	case http.StatusAccepted:
		discard(resp)
		return false, u.begun(resp)
	case http.StatusCreated:
		discard(resp)
		return true, nil
	}
	return false, rq.fail(resp)
}

// begun takes the session from the answer of a POST.
func (u *upload) begun(resp *http.Response) error {
	u.offset = 0
	if n, err := strconv.ParseInt(resp.Header.Get("OCI-Chunk-Min-Length"), 10, 64); err == nil && n > 0 {
		u.minChunk = n
	}
	return u.moved(resp)
}

// moved follows the Location of an answer. Another origin gets the bytes only
// over TLS (or as plain as the registry itself), and no credentials.
func (u *upload) moved(resp *http.Response) error {
	loc := resp.Header.Get("Location")
	next, err := resp.Request.URL.Parse(loc)
	if loc == "" || err != nil {
		return fmt.Errorf("pushing blob %s@%s: the registry gives no place to upload to (Location %q)", u.ref.Repository(), u.desc.Digest, printable(loc))
	}
	upgrade(next, resp.Request.URL)
	if err := checkHop(resp.Request.URL, next); err != nil {
		return fmt.Errorf("pushing blob %s@%s: the place to upload to: %w", u.ref.Repository(), u.desc.Digest, err)
	}
	u.session = next
	return nil
}

// run uploads until the registry has the blob. A session that breaks is taken up
// again, one that is lost begun anew; both a limited number of times unless
// bytes move.
func (u *upload) run(ctx context.Context) error {
	var mark int64
	for fails := 0; ; {
		if u.session == nil {
			done, err := u.begin(ctx)
			if done || err != nil {
				return err
			}
		}
		err := u.send(ctx)
		if err == nil {
			u.progress.at(u.desc.Size)
			return nil
		}
		if fails++; fails >= tries || ctx.Err() != nil || !u.mayGoOn(err) {
			return err
		}
		if err := u.c.o.Sleep(ctx, backoff(fails)); err != nil {
			return u.request("pushing blob", http.MethodPut).explain(err)
		}
		u.takeUp(ctx)
		if u.session == nil && u.arrived(ctx) {
			u.progress.at(u.desc.Size)
			return nil
		}
		if u.offset-mark >= worthwhile { // further than ever before
			fails, mark = 0, u.offset
		}
	}
}

// arrived asks whether a session is gone because it ended well, and only the answer to its last request was lost.
func (u *upload) arrived(ctx context.Context) bool {
	has, err := u.c.hasBlob(ctx, u.ref, u.desc.Digest, actPush)
	return err == nil && has
}

// mayGoOn decides by the failure whether the rest can be sent, and how.
func (u *upload) mayGoOn(err error) bool {
	var e *Error
	if errors.Is(err, ErrMirror) {
		u.session = nil // what was sent is not the blob; opened again, it comes from elsewhere
		return true
	}
	if !errors.As(err, &e) {
		u.inPieces()
		return passingError(err) || refused(err) || errors.Is(err, errStale)
	}
	switch {
	case e.Status == http.StatusNotFound || e.has("BLOB_UPLOAD_UNKNOWN"): // the session is lost
		u.session = nil
		return true
	case e.has("DIGEST_INVALID") && !u.refused:
		// What is sent is verified as it is read: the registry put pieces together wrongly, or lost some.
		u.refused, u.session = true, nil
		return true
	case e.Status == http.StatusRequestEntityTooLarge:
		if u.chunk > 0 && u.chunk <= max(u.minChunk, 1<<20) {
			return false
		}
		if u.chunk > 0 {
			u.chunk /= 2
		}
		u.inPieces()
		return true
	case e.Status == http.StatusRequestedRangeNotSatisfiable:
		if u.inPieces(); u.offset == 0 {
			u.session = nil // "0-0" may be one byte or none
		}
		return true
	case e.Status >= 500 || e.Status == http.StatusRequestTimeout || e.Status == http.StatusTooManyRequests:
		u.inPieces()
		return true
	}
	return false
}

// inPieces limits requests from now on, so that less is lost by the next cut.
func (u *upload) inPieces() {
	if u.chunk == 0 {
		u.chunk = u.c.o.ChunkSize
	}
	u.chunk = max(u.chunk, u.minChunk)
}

// takeUp asks the registry how far the session is; one that it does not know
// any more, or whose answer makes no sense, is given up.
func (u *upload) takeUp(ctx context.Context) {
	if u.session == nil {
		return
	}
	rq := u.request("asking for the upload of blob", http.MethodGet)
	resp, err := u.c.do(ctx, rq)
	if err != nil {
		u.session = nil
		return
	}
	discard(resp)
	stored, ok := uploadRange(resp.Header.Get("Range"))
	if resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusOK || !ok || stored > u.desc.Size {
		u.session = nil
		return
	}
	if resp.Header.Get("Location") != "" && u.moved(resp) != nil {
		u.session = nil
		return
	}
	u.offset = stored
}

// uploadRange reads "0-LAST" (with or without "bytes="): how many bytes are
// stored. No header, and "0-0" of a session without bytes, is zero: a single
// byte is sent again.
func uploadRange(s string) (int64, bool) {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "bytes"), "=")
	if s == "" || s == "0-0" || s == "0--1" || s == "-1" {
		return 0, true
	}
	first, last, ok := strings.Cut(s, "-")
	n, err := strconv.ParseInt(last, 10, 64)
	if !ok || first != "0" || err != nil || n < 0 {
		return 0, false
	}
	return n + 1, true
}

// errStale says that a registry took a piece and kept less of it.
var errStale = errors.New("the registry did not keep what was sent")

// send sends the rest of the blob into the session.
func (u *upload) send(ctx context.Context) error {
	if u.chunk == 0 && u.offset == 0 {
		return u.put(ctx, u.desc.Size)
	}
	for u.offset < u.desc.Size {
		if err := u.patch(ctx); err != nil {
			return err
		}
	}
	return u.put(ctx, 0)
}

// patch sends one piece.
func (u *upload) patch(ctx context.Context) error {
	n := min(u.desc.Size-u.offset, u.chunk)
	rq := u.request("pushing blob", http.MethodPatch)
	rq.once = true
	rq.header.Set("Content-Type", "application/octet-stream")
	rq.header.Set("Content-Range", fmt.Sprintf("%d-%d", u.offset, u.offset+n-1))
	rq.size, rq.body = n, u.part(ctx, u.offset, n)
	resp, err := u.c.do(ctx, rq)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusNoContent && resp.StatusCode != http.StatusCreated {
		return rq.fail(resp)
	}
	discard(resp)
	if err := u.moved(resp); err != nil {
		return err
	}
	sent := u.offset + n
	stored, ok := uploadRange(resp.Header.Get("Range"))
	switch {
	case resp.Header.Get("Range") == "" || stored == 0 && sent == 1:
		stored = sent
	case !ok || stored > sent:
		return fmt.Errorf("pushing blob %s@%s: %w: it says it holds %q after %d bytes", u.ref.Repository(), u.desc.Digest, errStale, printable(resp.Header.Get("Range")), sent)
	case stored <= u.offset:
		return fmt.Errorf("pushing blob %s@%s: %w", u.ref.Repository(), u.desc.Digest, errStale)
	}
	u.offset = stored
	return nil
}

// put ends the session: with the whole blob, or with nothing after pieces.
func (u *upload) put(ctx context.Context, n int64) error {
	rq := u.request("pushing blob", http.MethodPut)
	end := *u.session
	if end.RawQuery != "" {
		end.RawQuery += "&"
	}
	end.RawQuery += "digest=" + url.QueryEscape(u.desc.Digest.String())
	rq.url, rq.once = &end, true
	rq.header.Set("Content-Type", "application/octet-stream")
	rq.size, rq.body = n, u.part(ctx, 0, n)
	resp, err := u.c.do(ctx, rq)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNoContent {
		return rq.fail(resp)
	}
	discard(resp)
	became := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	if became.Validate() == nil && became.Algorithm() == u.desc.Digest.Algorithm() && became != u.desc.Digest {
		return fmt.Errorf("pushing blob %s@%s: %w: it became %s", u.ref.Repository(), u.desc.Digest, ErrCorrupt, became)
	}
	return nil
}

// part opens n bytes of the blob from offset on, for every attempt.
func (u *upload) part(ctx context.Context, offset, n int64) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return u.parts.from(ctx, offset, n, u.desc.Size) }
}
