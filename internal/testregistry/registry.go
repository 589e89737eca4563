// Package testregistry is a registry in memory that misbehaves as a test's script
// says: the Nth request of a kind gets a status, a cut at byte N, a stall, a slow
// body, a wrong length or a redirect. Everything it was asked is in a transcript.
// [Proxy] does the same to bytes, below HTTP.
//
// It is for tests only, of every package that talks to registries. The script
// lies over any http.Handler: over the registry of this package, or a real one.
//
// # Invariants
//
//   - Without a rule it behaves as the distribution specification says, and keeps
//     what arrived of an upload that was cut.
//   - A request is in the transcript before it is answered.
//   - It listens on loopback only, and ends with its test.
package testregistry

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

// Parts of paths, to match kinds of requests.
const (
	Blobs     = "/blobs/sha"     // of blobs that exist
	Uploads   = "/blobs/uploads" // of sessions, and where they begin
	Manifests = "/manifests/"
	Tags      = "/tags/list"
	Referrers = "/referrers/"
)

// Options says where and how a registry listens. The zero value is plain http on 127.0.0.1.
type Options struct {
	TLS     *tls.Config // nil: http. A config without certificates gets one that no system trusts.
	HTTP2   bool        // with TLS
	Address string      // another loopback address, to stand for another machine: "127.0.0.2"

	Handler    http.Handler // what answers when no rule does; nil: the registry in memory
	Transcript *Transcript  // one for several registries; nil: one of its own
	DropCut    bool         // an upload that was cut keeps nothing of that request, as distribution 2.8 does
}

// Registry is a registry and the script it plays.
type Registry struct {
	Host string // HOST:PORT
	*Transcript

	o       Options
	memory  *memory
	stopped chan struct{}

	script sync.Mutex
	rules  []*rule
}

// rule is a misbehaviour: what to do with the from-th to the to-th request that matches.
type rule struct {
	method, path   string
	from, to, hits int
	fault          Fault
}

// New starts a registry. It stops when the test ends.
func New(tb testing.TB, o Options) *Registry {
	tb.Helper()
	r := Unstarted(o)
	srv := httptest.NewUnstartedServer(r)
	if o.Address != "" {
		var lc net.ListenConfig
		l, err := lc.Listen(context.Background(), "tcp", net.JoinHostPort(o.Address, "0"))
		if err != nil {
			tb.Fatalf("listening on %s: %v", o.Address, err)
		}
		_ = srv.Listener.Close()
		srv.Listener = l
	}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that refuse it are a part of tests
	if o.TLS != nil {
		srv.TLS, srv.EnableHTTP2 = o.TLS.Clone(), o.HTTP2
		srv.StartTLS()
	} else {
		srv.Start()
	}
	r.Host = srv.Listener.Addr().String()
	tb.Cleanup(func() { r.Stop(); srv.Close() })
	return r
}

// Unstarted is a registry whose ServeHTTP is served by the test itself, which sets Host.
func Unstarted(o Options) *Registry {
	r := &Registry{o: o, Transcript: o.Transcript, memory: newMemory(o.DropCut), stopped: make(chan struct{})}
	if r.Transcript == nil {
		r.Transcript = &Transcript{}
	}
	if r.o.Handler == nil {
		r.o.Handler = r.memory
	}
	return r
}

// Stop ends what waits in a [Stall].
func (r *Registry) Stop() {
	r.script.Lock()
	defer r.script.Unlock()
	select {
	case <-r.stopped:
	default:
		close(r.stopped)
	}
}

// URL is the registry's origin.
func (r *Registry) URL() string {
	if r.o.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// When plays a fault to the nth request whose method is method ("": any) and whose path holds path, counted from 1; to all
// of them when nth is 0. Of several rules for a request, the first counts.
func (r *Registry) When(method, path string, nth int, f Fault) {
	if nth == 0 {
		r.Between(method, path, 1, 1<<30, f)
		return
	}
	r.Between(method, path, nth, nth, f)
}

// Between is When for the first to the last request that matches.
func (r *Registry) Between(method, path string, first, last int, f Fault) {
	r.script.Lock()
	defer r.script.Unlock()
	r.rules = append(r.rules, &rule{method: method, path: path, from: first, to: last, fault: f})
}

// fault picks what happens to a request; nil: nothing.
func (r *Registry) fault(req *http.Request) Fault {
	r.script.Lock()
	defer r.script.Unlock()
	var f Fault
	for _, ru := range r.rules {
		if ru.method != "" && ru.method != req.Method || !strings.Contains(req.URL.Path, ru.path) {
			continue
		}
		if ru.hits++; ru.hits >= ru.from && ru.hits <= ru.to && f == nil {
			f = ru.fault
		}
	}
	return f
}

// ServeHTTP implements http.Handler.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	e := r.begin(r, req)
	defer r.edit(func() { e.over = true })
	req.Body = &countedBody{ReadCloser: req.Body, e: e, t: r.Transcript}
	cw := &countedWriter{ResponseWriter: w, e: e, t: r.Transcript}
	if f := r.fault(req); f != nil {
		f(&call{w: cw, r: req, registry: r, next: r.o.Handler})
		return
	}
	r.o.Handler.ServeHTTP(cw, req)
}

// Put makes the registry hold a blob, and returns its digest.
func (r *Registry) Put(repo string, b []byte) digest.Digest {
	d := digest.FromBytes(b)
	r.memory.state.Lock()
	defer r.memory.state.Unlock()
	r.memory.blobs[repo+"@"+d.String()] = b
	return d
}

// Drop makes it lose a blob.
func (r *Registry) Drop(repo string, d digest.Digest) {
	r.memory.state.Lock()
	defer r.memory.state.Unlock()
	delete(r.memory.blobs, repo+"@"+d.String())
}

// Blob returns what it holds under a digest.
func (r *Registry) Blob(repo string, d digest.Digest) ([]byte, bool) {
	r.memory.state.Lock()
	defer r.memory.state.Unlock()
	b, ok := r.memory.blobs[repo+"@"+d.String()]
	return b, ok
}

// PutManifest makes it hold a manifest under a tag ("": by digest only).
func (r *Registry) PutManifest(repo, tag, mediaType string, raw []byte) digest.Digest {
	r.memory.state.Lock()
	defer r.memory.state.Unlock()
	return r.memory.putManifest(repo, tag, mediaType, raw)
}

// Manifest returns what a tag or digest names.
func (r *Registry) Manifest(repo, id string) ([]byte, bool) {
	r.memory.state.Lock()
	defer r.memory.state.Unlock()
	raw, ok := r.memory.manifests[manifestKey(repo, id)]
	return raw, ok
}

// Keep adds bytes to an upload session, whose id is the last part of its path.
func (r *Registry) Keep(session string, b []byte) {
	r.memory.state.Lock()
	defer r.memory.state.Unlock()
	have := r.memory.uploads[session]
	r.memory.uploads[session] = append(have[:len(have):len(have)], b...)
}

// ForgetSessions loses all uploads that are under way, as a restart may.
func (r *Registry) ForgetSessions() {
	r.memory.state.Lock()
	defer r.memory.state.Unlock()
	clear(r.memory.uploads)
}
