package testregistry

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Fault is what happens to one request.
type Fault func(*call)

// call is a request under a fault.
type call struct {
	w        *countedWriter
	r        *http.Request
	registry *Registry
	next     http.Handler // what would answer
}

// abort ends the connection without an end of the answer: a reset, or RST_STREAM in HTTP/2.
func abort() { panic(http.ErrAbortHandler) }

// Do is a fault of the test's own. It reports whether it has answered; if not, the registry does.
func Do(f func(w http.ResponseWriter, r *http.Request) bool) Fault {
	return func(c *call) {
		if !f(c.w, c.r) {
			c.next.ServeHTTP(c.w, c.r)
		}
	}
}

// Pass is no fault: it lets the request through, and counts for rules after it.
func Pass() Fault { return func(c *call) { c.next.ServeHTTP(c.w, c.r) } }

// Status answers with a status, an error code of the specification and headers ("Name", "value", ...). The body of the
// request is not read.
func Status(status int, code string, headers ...string) Fault {
	return func(c *call) {
		setHeaders(c.w.Header(), headers)
		refuse(c.w, status, code)
	}
}

// Answer answers with any body.
func Answer(status int, body []byte, headers ...string) Fault {
	return func(c *call) {
		setHeaders(c.w.Header(), headers)
		c.w.WriteHeader(status)
		_, _ = c.w.Write(body)
	}
}

// Redirect points elsewhere.
func Redirect(status int, to string) Fault { return Status(status, "", "Location", to) }

// Headers lets the registry answer, with these headers beside or instead of its own; a value of "" removes one.
func Headers(headers ...string) Fault {
	return func(c *call) {
		c.w.before = func(h http.Header) { setHeaders(h, headers) }
		c.next.ServeHTTP(c.w, c.r)
	}
}

func setHeaders(h http.Header, pairs []string) {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			h.Del(pairs[i])
			continue
		}
		h.Set(pairs[i], pairs[i+1])
	}
}

// Reset ends the connection without an answer, before the request's body is read.
func Reset() Fault { return func(*call) { abort() } }

// Lost lets the registry do what it was asked, and loses its answer.
func Lost() Fault {
	return func(c *call) {
		c.next.ServeHTTP(nowhere{http.Header{}}, c.r)
		abort()
	}
}

// Cut sends n bytes of the answer's body, and ends the connection.
func Cut(n int64) Fault {
	return func(c *call) {
		c.w.limit, c.w.atLimit = n, abort
		c.w.limited = true
		c.next.ServeHTTP(c.w, c.r)
		_ = http.NewResponseController(c.w.ResponseWriter).Flush()
		abort() // also when the body was shorter
	}
}

// CutUpload reads n bytes of the request's body and ends the connection; a registry keeps those, if it keeps parts.
func CutUpload(n int64) Fault {
	return func(c *call) {
		c.r.Body.(*countedBody).limit(n)
		c.next.ServeHTTP(nowhere{http.Header{}}, c.r)
		abort()
	}
}

// Stall sends n bytes of the answer's body, and then nothing more while the client stays; n < 0: not even a header.
func Stall(n int64) Fault {
	return func(c *call) {
		wait := func() {
			select {
			case <-c.r.Context().Done():
			case <-c.registry.stopped:
			}
			abort()
		}
		if n < 0 {
			wait()
		}
		c.w.limit, c.w.limited, c.w.atLimit = n, true, wait
		c.next.ServeHTTP(c.w, c.r)
	}
}

// StallUpload reads n bytes of the request's body, and then waits.
func StallUpload(n int64) Fault {
	return func(c *call) {
		_, _ = io.CopyN(io.Discard, c.r.Body, n)
		select {
		case <-c.r.Context().Done():
		case <-c.registry.stopped:
		}
		abort()
	}
}

// Slow sends the body in pieces of n bytes with a pause before each.
func Slow(n int, pause time.Duration) Fault {
	return func(c *call) {
		c.w.piece, c.w.pause = n, pause
		c.next.ServeHTTP(c.w, c.r)
	}
}

// Length declares a body that is by more bytes longer (or shorter) than it is.
func Length(more int) Fault {
	return func(c *call) {
		c.w.before = func(h http.Header) {
			if n, err := strconv.Atoi(h.Get("Content-Length")); err == nil {
				h.Set("Content-Length", strconv.Itoa(n+more))
				if more < 0 {
					c.w.limited, c.w.limit, c.w.atLimit = true, int64(n+more), abort
				}
			}
		}
		c.next.ServeHTTP(c.w, c.r)
	}
}

// Raw writes text to the connection as it is, headers and all, and closes it. Not for HTTP/2.
func Raw(format string, a ...any) Fault {
	return func(c *call) {
		conn, rw, err := http.NewResponseController(c.w.ResponseWriter).Hijack()
		if err != nil {
			abort()
		}
		fmt.Fprintf(rw, format, a...)
		_ = rw.Flush()
		_ = conn.Close()
	}
}

// nowhere is where lost answers go.
type nowhere struct{ h http.Header }

func (n nowhere) Header() http.Header         { return n.h }
func (n nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (n nowhere) WriteHeader(int)             {}

var errCut = errors.New("the connection was cut")

// countedWriter counts and shapes an answer.
type countedWriter struct {
	http.ResponseWriter
	e      *Request
	t      *Transcript
	before func(http.Header) // when the header goes out
	wrote  bool

	limited bool
	limit   int64  // bytes of the body that still go out
	atLimit func() // does not return
	piece   int    // bytes a write; 0: as they come
	pause   time.Duration
}

func (w *countedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *countedWriter) WriteHeader(status int) {
	if !w.wrote {
		w.wrote = true
		if w.before != nil {
			w.before(w.Header())
		}
		w.t.edit(func() {
			w.e.Status = status
			w.e.SentFrom = rangeStart(w.Header().Get("Content-Range"))
		})
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *countedWriter) Write(p []byte) (int, error) {
	if !w.wrote {
		w.WriteHeader(http.StatusOK)
	}
	done := 0
	for {
		part := p[done:]
		if w.piece > 0 && len(part) > w.piece {
			part = part[:w.piece]
		}
		if w.limited && int64(len(part)) > w.limit {
			part = part[:w.limit]
		}
		if w.pause > 0 {
			time.Sleep(w.pause)
		}
		n, err := w.ResponseWriter.Write(part)
		done += n
		w.limit -= int64(n)
		w.t.edit(func() { w.e.Sent += int64(n) })
		if w.pause > 0 || w.limited && w.limit == 0 {
			_ = http.NewResponseController(w.ResponseWriter).Flush()
		}
		if err != nil {
			return done, err
		}
		if w.limited && w.limit == 0 {
			w.atLimit()
		}
		if done == len(p) {
			return done, nil
		}
	}
}

// countedBody counts what arrives, and ends it when told.
type countedBody struct {
	io.ReadCloser
	e     *Request
	t     *Transcript
	left  int64
	short bool
}

func (b *countedBody) limit(n int64) { b.left, b.short = n, true }

// at says where in the blob the body begins.
func (b *countedBody) at(offset int64) { b.t.edit(func() { b.e.ReceivedFrom = offset }) }

func (b *countedBody) Read(p []byte) (int, error) {
	if b.short {
		if b.left == 0 {
			return 0, errCut
		}
		if int64(len(p)) > b.left {
			p = p[:b.left]
		}
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	b.t.edit(func() { b.e.Received += int64(n) })
	return n, err
}
