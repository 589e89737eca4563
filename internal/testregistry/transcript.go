package testregistry

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Request is one request, for assertions on the whole conversation.
type Request struct {
	Origin              string // of the server that got it: "https://127.0.0.1:4711"
	Method, Path, Query string
	Proto               string
	Header              http.Header
	Status              int   // 0: no answer yet, or never
	ReceivedFrom        int64 // where in the blob the body of an upload begins, when the registry in memory took it
	Received            int64 // bytes of the request's body that were read
	SentFrom, Sent      int64 // the same of the answer's body

	over bool
}

// Auth is the Authorization of the request.
func (r Request) Auth() string { return r.Header.Get("Authorization") }

// Range is the range that was asked for.
func (r Request) Range() string { return r.Header.Get("Range") }

func (r Request) String() string { return r.Method + " " + r.Origin + r.Path }

// Transcript is what one or more servers were asked, in order.
type Transcript struct {
	lines sync.Mutex
	list  []*Request
}

func (t *Transcript) begin(r *Registry, req *http.Request) *Request {
	e := &Request{Origin: r.URL(), Method: req.Method, Path: req.URL.Path, Query: req.URL.RawQuery, Proto: req.Proto, Header: req.Header.Clone()}
	t.lines.Lock()
	defer t.lines.Unlock()
	t.list = append(t.list, e)
	return e
}

func (t *Transcript) edit(f func()) {
	t.lines.Lock()
	defer t.lines.Unlock()
	f()
}

// Requests lists what was asked so far.
func (t *Transcript) Requests() []Request {
	t.lines.Lock()
	defer t.lines.Unlock()
	out := make([]Request, 0, len(t.list))
	for _, e := range t.list {
		out = append(out, *e)
	}
	return out
}

// Settled is Requests when all of them are answered, or cut: an answer may arrive before its server has written that down.
func (t *Transcript) Settled(tb testing.TB) []Request {
	tb.Helper()
	for range 12_000 {
		t.lines.Lock()
		open := slices.ContainsFunc(t.list, func(r *Request) bool { return !r.over })
		t.lines.Unlock()
		if !open {
			return t.Requests()
		}
		time.Sleep(5 * time.Millisecond)
	}
	tb.Error("requests are not answered after a minute")
	return t.Requests()
}

// Of lists the requests with a method ("": any) whose path holds a text.
func (t *Transcript) Of(method, path string) []Request {
	return slices.DeleteFunc(t.Requests(), func(r Request) bool {
		return method != "" && r.Method != method || !strings.Contains(r.Path, path)
	})
}

// Count is how many of them there are.
func (t *Transcript) Count(method, path string) int { return len(t.Of(method, path)) }

// NoSecrets fails the test when another origin than these got an Authorization, a cookie or one of the secrets,
// in a header, a path or a query.
func (t *Transcript) NoSecrets(tb testing.TB, allowed []string, secrets ...string) {
	tb.Helper()
	for _, r := range t.Requests() {
		if slices.Contains(allowed, r.Origin) {
			continue
		}
		for _, name := range []string{"Authorization", "Cookie", "Proxy-Authorization"} {
			if r.Header.Get(name) != "" {
				tb.Errorf("%s got the %s of another origin", r, name)
			}
		}
		for _, s := range secrets {
			for name, values := range r.Header {
				if strings.Contains(strings.Join(values, "\n"), s) {
					tb.Errorf("%s got a secret in its header %s", r, name)
				}
			}
			if strings.Contains(r.Path+"?"+r.Query, s) {
				tb.Errorf("%s got a secret in its address", r)
			}
		}
	}
}

// rangeStart reads "bytes START-...": 0 when there is none.
func rangeStart(contentRange string) int64 {
	s, _, _ := strings.Cut(strings.TrimPrefix(contentRange, "bytes "), "-")
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
