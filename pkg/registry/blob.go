package registry

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/ref"
)

// Blob opens a blob of r's repository. Read reports ErrCorrupt in place of io.EOF when the bytes do not match desc.
// A connection that is cut is taken up again where it was. A size of 0 or less is not checked.
func (c *Client) Blob(ctx context.Context, r ref.Ref, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if err := checkBlob(r, desc.Digest); err != nil {
		return nil, err
	}
	places, err := c.places(r, true)
	if err != nil {
		return nil, err
	}
	b := &blobReader{c: c, ctx: ctx, places: c.trusted(places, desc.Digest), desc: desc, sum: desc.Digest.Algorithm().Hash()}
	for {
		err := b.open()
		if err == nil {
			break
		}
		if !b.elsewhere(err) {
			return nil, err
		}
	}
	b.progress = c.track("pulling", desc.Digest, desc.Size)
	return b, nil
}

// blobReader reads a blob over as many connections as it takes.
type blobReader struct {
	c    *Client
	ctx  context.Context //nolint:containedctx // io.Reader has none: it is the one of the Blob call
	desc ocispec.Descriptor

	places []Place // those left to ask, the first now
	gave   []Place // mirrors that gave a part before

	body     io.ReadCloser // nil between connections
	skip     int64         // bytes that come again, of a registry that ignores Range
	offset   int64         // bytes handed out and hashed
	sum      hash.Hash
	progress *progress

	cuts  int   // since mark
	mark  int64 // offset when the last worthwhile progress was made
	final error // what every later Read reports
}

func (b *blobReader) request() *request {
	rq := b.c.requestAt(b.places[0], "pulling blob", http.MethodGet, "/blobs/"+b.desc.Digest.String(), actPull)
	rq.what = b.what()
	return rq
}

func (b *blobReader) what() string {
	return b.places[0].Ref.Repository() + "@" + b.desc.Digest.String()
}

// elsewhere gives a mirror up for the next place, if there is one; what was read stays read, and is verified in the end.
func (b *blobReader) elsewhere(err error) bool {
	var local *localError
	if len(b.places) < 2 || b.ctx.Err() != nil || errors.As(err, &local) {
		return false
	}
	b.c.missed(b.places[0], err)
	if b.offset > 0 {
		b.gave = append(b.gave, b.places[0])
	}
	b.places, b.cuts, b.mark = b.places[1:], 0, b.offset
	for len(b.places) > 1 && b.c.isDown(b.places[0]) {
		b.places = b.places[1:]
	}
	return true
}

// trusted leaves out mirrors that are down, or had other bytes under d.
func (c *Client) trusted(places []Place, d digest.Digest) []Place {
	var out []Place
	for i, p := range places {
		if i == len(places)-1 || !c.isDown(p) && !c.hostAt(p).lied(d) {
			out = append(out, p)
		}
	}
	return out
}

// open asks for the blob from offset on.
func (b *blobReader) open() error {
	rq := b.request()
	if b.offset > 0 {
		rq.header.Set("Range", "bytes="+strconv.FormatInt(b.offset, 10)+"-")
	}
	resp, err := b.c.do(b.ctx, rq)
	if err != nil {
		return err
	}
	skip, err := b.accept(rq, resp)
	if err != nil {
		resp.Body.Close()
		return err
	}
	b.body, b.skip = resp.Body, skip
	return nil
}

// accept checks what kind of answer it is, and how many bytes of it were read before.
func (b *blobReader) accept(rq *request, resp *http.Response) (skip int64, err error) {
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return 0, b.corrupt("it comes with Content-Encoding " + printable(enc))
	}
	switch resp.StatusCode {
	case http.StatusOK:
		// Also when a range was asked for: registries may ignore that.
		if resp.ContentLength >= 0 && b.desc.Size > 0 && resp.ContentLength != b.desc.Size {
			return 0, b.corrupt(fmt.Sprintf("it is %d bytes long, and should be %d", resp.ContentLength, b.desc.Size))
		}
		return b.offset, nil
	case http.StatusPartialContent:
		start, total, ok := contentRange(resp.Header.Get("Content-Range"))
		switch {
		case !ok || start != b.offset:
			return 0, b.corrupt(fmt.Sprintf("asked for bytes from %d on, it sent %q", b.offset, printable(resp.Header.Get("Content-Range"))))
		case total >= 0 && b.desc.Size > 0 && total != b.desc.Size:
			return 0, b.corrupt(fmt.Sprintf("it is %d bytes long, and should be %d", total, b.desc.Size))
		}
		return 0, nil
	case http.StatusRequestedRangeNotSatisfiable:
		return 0, b.corrupt(fmt.Sprintf("it ends before byte %d, and should be %d bytes long", b.offset, b.desc.Size))
	}
	return 0, rq.fail(resp)
}

func (b *blobReader) corrupt(why string) error {
	return fmt.Errorf("pulling blob %s: %w: %s", b.what(), ErrCorrupt, why)
}

// Read implements io.Reader.
func (b *blobReader) Read(p []byte) (int, error) {
	for b.final == nil {
		if b.body == nil {
			if b.final = b.resume(); b.final != nil {
				break
			}
		}
		if b.skip > 0 {
			n, err := io.CopyN(io.Discard, b.body, b.skip)
			if b.skip -= n; err != nil {
				b.cut(err)
			}
			continue
		}
		n, err := b.body.Read(p)
		if n > 0 {
			b.offset += int64(n)
			_, _ = b.sum.Write(p[:n])
			b.progress.at(b.offset)
		}
		if sized := b.desc.Size > 0; sized && b.offset >= b.desc.Size {
			// The sum is known before the EOF is: a reader that stops at the
			// size has also verified.
			switch {
			case b.offset > b.desc.Size:
				b.final = b.wrong(fmt.Sprintf("it goes on after %d bytes", b.desc.Size))
			case !b.verified():
				b.final = b.mismatch()
			case errors.Is(err, io.EOF):
				b.final = io.EOF
			case n == 0 && err != nil: // cut after the last byte
				b.final = io.EOF
			}
			if n > 0 || b.final != nil {
				return n, b.final
			}
			continue
		} else if errors.Is(err, io.EOF) && !sized {
			b.final = io.EOF
			if !b.verified() {
				b.final = b.mismatch()
			}
			return n, b.final
		}
		if err != nil {
			b.cut(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, b.final
}

// Verifies says which digest the bytes have of whoever reads them to their end: nobody needs to hash them once more.
func (b *blobReader) Verifies() digest.Digest { return b.desc.Digest }

func (b *blobReader) verified() bool {
	return digest.NewDigest(b.desc.Digest.Algorithm(), b.sum) == b.desc.Digest
}

func (b *blobReader) mismatch() error {
	return b.wrong("its digest is " + digest.NewDigest(b.desc.Digest.Algorithm(), b.sum).String())
}

// wrong is the end of a blob that is not what it should be. When a mirror had a part in it, only whoever asked can begin
// anew, as the bytes are handed out: then other places are asked.
func (b *blobReader) wrong(why string) error {
	suspects := b.gave
	if len(b.places) > 1 {
		suspects = append(suspects, b.places[0])
	}
	if len(suspects) == 0 {
		return b.corrupt(why)
	}
	for _, p := range suspects {
		b.c.hostAt(p).lie(b.desc.Digest)
	}
	return fmt.Errorf("pulling blob %s: %w sent other bytes: %s", b.what(), ErrMirror, why)
}

// cut ends a connection that failed; the next Read takes it up.
func (b *blobReader) cut(err error) {
	_ = b.body.Close()
	b.body = nil
	if b.offset-b.mark >= worthwhile {
		b.cuts, b.mark = 0, b.offset
	}
	b.cuts++
	if b.ctx.Err() != nil {
		b.final = fmt.Errorf("pulling blob %s: %w", b.what(), context.Cause(b.ctx))
	} else if b.cuts >= tries && !b.elsewhere(err) {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		b.final = fmt.Errorf("pulling blob %s: cut %d times at byte %d: %w", b.what(), b.cuts, b.offset, err)
	}
}

// resume opens a connection for the rest. What passes was waited out below.
func (b *blobReader) resume() error {
	if b.cuts > 0 {
		if err := b.c.o.Sleep(b.ctx, backoff(b.cuts)); err != nil {
			return b.request().explain(err)
		}
	}
	for {
		err := b.open()
		if err == nil || !b.elsewhere(err) {
			return err
		}
	}
}

// Close implements io.Closer.
func (b *blobReader) Close() error {
	if b.final == nil {
		b.final = errors.New("the blob is closed")
	}
	if b.body == nil {
		return nil
	}
	err := b.body.Close()
	b.body = nil
	return err
}

// contentRange reads "bytes START-END/TOTAL"; TOTAL may be "*" (-1).
func contentRange(s string) (start, total int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	if !ok {
		return 0, 0, false
	}
	span, size, ok1 := strings.Cut(s, "/")
	first, _, ok2 := strings.Cut(span, "-")
	start, err := strconv.ParseInt(first, 10, 64)
	if !ok1 || !ok2 || err != nil || start < 0 {
		return 0, 0, false
	}
	if size == "*" {
		return start, -1, true
	}
	total, err = strconv.ParseInt(size, 10, 64)
	return start, total, err == nil && total > 0
}

// HasBlob asks whether r's repository holds the blob.
func (c *Client) HasBlob(ctx context.Context, r ref.Ref, d digest.Digest) (bool, error) {
	return c.hasBlob(ctx, r, d, actPull)
}

func (c *Client) hasBlob(ctx context.Context, r ref.Ref, d digest.Digest, actions string) (bool, error) {
	_, err := c.blobSize(ctx, r, d, actions)
	if errors.Is(err, errNoBlob) {
		return false, nil
	}
	return err == nil, err
}

// BlobSize asks how many bytes the blob of r's repository has; ErrNotFound when it has none, ErrCorrupt when the registry does
// not say.
func (c *Client) BlobSize(ctx context.Context, r ref.Ref, d digest.Digest) (int64, error) {
	size, err := c.blobSize(ctx, r, d, actPull)
	if err == nil && size < 0 {
		err = fmt.Errorf("looking for blob %s@%s: %w: it has no length", r.Repository(), d, ErrCorrupt)
	}
	return size, err
}

var errNoBlob = fmt.Errorf("blob: %w", ErrNotFound)

// blobSize is less than 0 when the registry does not say.
func (c *Client) blobSize(ctx context.Context, r ref.Ref, d digest.Digest, actions string) (int64, error) {
	if err := checkBlob(r, d); err != nil {
		return 0, err
	}
	for _, method := range []string{http.MethodHead, http.MethodGet} {
		rq := c.request(r, "looking for blob", method, "/blobs/"+d.String(), actions)
		rq.what = r.Repository() + "@" + d.String()
		if method == http.MethodGet {
			rq.header.Set("Range", "bytes=0-0")
		}
		resp, err := c.do(ctx, rq)
		if err != nil {
			return 0, err
		}
		switch resp.StatusCode {
		case http.StatusOK:
			resp.Body.Close() // not read: it may be the whole blob
			return resp.ContentLength, nil
		case http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable:
			resp.Body.Close()
			if _, total, ok := contentRange(resp.Header.Get("Content-Range")); ok {
				return total, nil
			}
			return -1, nil
		case http.StatusNotFound:
			discard(resp)
			return 0, fmt.Errorf("%s: %w", rq.what, errNoBlob)
		}
		if method == http.MethodGet || resp.StatusCode == http.StatusUnauthorized {
			return 0, rq.fail(resp)
		}
		discard(resp) // a registry that cannot HEAD a blob may still GET it
	}
	return 0, errNoBlob
}
