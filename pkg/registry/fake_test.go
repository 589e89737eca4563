package registry_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/internal/testregistry"
	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// fake is a registry of the test, with a script.
type fake struct {
	*testregistry.Registry
	host string // HOST:PORT
}

// seen is one request, for assertions on the whole conversation.
type seen struct {
	method, path, query, auth, rangeHeader string
	header                                 http.Header
}

func (s seen) String() string { return s.method + " " + s.path }

func newFake(t *testing.T) *fake { return fakeOf(testregistry.New(t, testregistry.Options{})) }

func newTLSFake(t *testing.T) *fake {
	return fakeOf(testregistry.New(t, testregistry.Options{TLS: &tls.Config{}}))
}

// newFakeAt listens on another loopback address, to stand for another machine.
func newFakeAt(t *testing.T, ip string) *fake {
	return fakeOf(testregistry.New(t, testregistry.Options{Address: ip}))
}

func unstarted() *fake { return fakeOf(testregistry.Unstarted(testregistry.Options{})) }

func fakeOf(r *testregistry.Registry) *fake { return &fake{r, r.Host} }

// when adds a rule for the n-th matching request, or for all when n is 0.
func (f *fake) when(method, path string, n int, do func(w http.ResponseWriter, r *http.Request) bool) {
	f.When(method, path, n, testregistry.Do(do))
}

// status answers with a status and an error document.
func status(code int, errCode string, headers ...string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, _ *http.Request) bool {
		for i := 0; i+1 < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"told to"}]}`, errCode)
		return true
	}
}

// reset cuts the connection without an answer.
func reset(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }

// put makes the fake hold a blob.
func (f *fake) put(repo string, b []byte) { f.Put(repo, b) }

// putManifest makes the fake hold a manifest under a tag.
func (f *fake) putManifest(repo, tag, mediaType string, raw []byte) digest.Digest {
	return f.PutManifest(repo, tag, mediaType, raw)
}

func (f *fake) holds(repo string, b []byte) bool {
	_, ok := f.Blob(repo, digest.FromBytes(b))
	return ok
}

// requests lists what was seen so far.
func (f *fake) requests() (out []seen) {
	for _, r := range f.Requests() {
		out = append(out, seen{r.Method, r.Path, r.Query, r.Auth(), r.Range(), r.Header})
	}
	return out
}

// count counts the requests of a method whose path holds a text.
func (f *fake) count(method, path string) int { return f.Count(method, path) }

// naps records waits instead of waiting.
type naps struct {
	mu   sync.Mutex
	list []time.Duration
}

func (n *naps) sleep(ctx context.Context, d time.Duration) error {
	n.mu.Lock()
	n.list = append(n.list, d)
	n.mu.Unlock()
	return ctx.Err()
}

func (n *naps) total() (sum time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range n.list {
		sum += d
	}
	return sum
}

// events records events.
type events struct {
	mu   sync.Mutex
	list []event.Event
}

func (e *events) sink(ev event.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, ev)
}

func (e *events) of(kind event.Kind) (out []event.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range e.list {
		if ev.Kind == kind {
			out = append(out, ev)
		}
	}
	return out
}

// client is a client that does not wait between tries.
func client(o registry.Options) *registry.Client {
	if o.Sleep == nil {
		o.Sleep = (&naps{}).sleep
	}
	if o.Keychain == nil {
		o.Keychain = anonymous
	}
	if o.CertDirs == nil {
		o.CertDirs = []string{}
	}
	return registry.New(o)
}

// everywhere are all hosts.
var everywhere = registry.Hosts{All: true}
