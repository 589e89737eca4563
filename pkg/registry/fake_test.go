package registry_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// fake is a small registry in memory that can be told to misbehave. It knows one
// manifest a tag, blobs by repository, and uploads in pieces.
type fake struct {
	t    *testing.T
	host string // HOST:PORT

	mu        sync.Mutex
	blobs     map[string][]byte // REPO@DIGEST
	manifests map[string][]byte // REPO:TAG and REPO@DIGEST
	types     map[string]string // by digest
	uploads   map[string][]byte
	nextID    int
	seen      []seen
	rules     []*rule
}

// seen is one request, for assertions on the whole conversation.
type seen struct {
	method, path, query, auth, rangeHeader string
	header                                 http.Header
}

func (s seen) String() string { return s.method + " " + s.path }

// rule is a misbehaviour: what to do with the from-th to the to-th request that
// matches. do reports whether it has answered.
type rule struct {
	method, path string // a part of the path
	from, to     int
	hits         int
	do           func(w http.ResponseWriter, r *http.Request) bool
}

func newFake(t *testing.T) *fake {
	f := unstarted(t)
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	f.host = strings.TrimPrefix(srv.URL, "http://")
	return f
}

func newTLSFake(t *testing.T) *fake {
	f := unstarted(t)
	srv := httptest.NewUnstartedServer(f)
	srv.Config.ErrorLog = quiet
	srv.StartTLS()
	t.Cleanup(srv.Close)
	f.host = strings.TrimPrefix(srv.URL, "https://")
	return f
}

// newFakeAt listens on another loopback address, to stand for another machine.
func newFakeAt(t *testing.T, ip string) *fake {
	f := unstarted(t)
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "tcp", net.JoinHostPort(ip, "0"))
	require.NoError(t, err)
	srv := httptest.NewUnstartedServer(f)
	require.NoError(t, srv.Listener.Close())
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	f.host = l.Addr().String()
	return f
}

func unstarted(t *testing.T) *fake {
	return &fake{t: t, blobs: map[string][]byte{}, manifests: map[string][]byte{}, types: map[string]string{}, uploads: map[string][]byte{}}
}

// when adds a rule for the n-th matching request, or for all when n is 0.
func (f *fake) when(method, path string, n int, do func(w http.ResponseWriter, r *http.Request) bool) *rule {
	f.mu.Lock()
	defer f.mu.Unlock()
	ru := &rule{method: method, path: path, from: n, to: n, do: do}
	if n == 0 {
		ru.from, ru.to = 1, 1<<30
	}
	f.rules = append(f.rules, ru)
	return ru
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

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.seen = append(f.seen, seen{r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Get("Authorization"), r.Header.Get("Range"), r.Header.Clone()})
	var act func(http.ResponseWriter, *http.Request) bool
	for _, ru := range f.rules {
		if ru.method != "" && ru.method != r.Method || !strings.Contains(r.URL.Path, ru.path) {
			continue
		}
		if ru.hits++; ru.hits >= ru.from && ru.hits <= ru.to && act == nil {
			act = ru.do
		}
	}
	f.mu.Unlock()
	if act != nil && act(w, r) {
		return
	}
	f.serve(w, r)
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
	n := len(parts)
	switch {
	case n >= 3 && parts[n-3] == "blobs" && parts[n-2] == "uploads":
		f.serveUpload(w, r, strings.Join(parts[:n-3], "/"), parts[n-1])
	case n >= 2 && parts[n-2] == "blobs":
		f.mu.Lock()
		b, ok := f.blobs[strings.Join(parts[:n-2], "/")+"@"+parts[n-1]]
		f.mu.Unlock()
		if !ok {
			status(404, "BLOB_UNKNOWN")(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(b)))
	case n >= 2 && parts[n-2] == "manifests":
		f.serveManifest(w, r, strings.Join(parts[:n-2], "/"), parts[n-1])
	case n >= 2 && parts[n-2] == "tags":
		fmt.Fprint(w, `{"name":"x","tags":["b","a"]}`)
	default:
		status(404, "NOT_FOUND")(w, r)
	}
}

func (f *fake) serveManifest(w http.ResponseWriter, r *http.Request, repo, id string) {
	key := repo + ":" + id
	if strings.Contains(id, ":") {
		key = repo + "@" + id
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	switch r.Method {
	case http.MethodPut:
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		d := digest.FromBytes(b).String()
		f.manifests[key], f.manifests[repo+"@"+d] = b, b
		f.types[d] = r.Header.Get("Content-Type")
		w.Header().Set("Docker-Content-Digest", d)
		w.WriteHeader(http.StatusCreated)
	default:
		b, ok := f.manifests[key]
		if !ok {
			status(404, "MANIFEST_UNKNOWN")(w, r)
			return
		}
		d := digest.FromBytes(b).String()
		w.Header().Set("Docker-Content-Digest", d)
		w.Header().Set("Content-Type", f.types[d])
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		_, _ = w.Write(b)
	}
}

// serveUpload keeps what arrived of a request that was cut, as distribution does.
func (f *fake) serveUpload(w http.ResponseWriter, r *http.Request, repo, id string) {
	if r.Method == http.MethodPost {
		q := r.URL.Query()
		f.mu.Lock()
		defer f.mu.Unlock()
		if b, ok := f.blobs[q.Get("from")+"@"+q.Get("mount")]; ok {
			f.blobs[repo+"@"+q.Get("mount")] = b
			w.WriteHeader(http.StatusCreated)
			return
		}
		f.nextID++
		id = fmt.Sprintf("session-%d", f.nextID)
		f.uploads[id] = nil
		w.Header().Set("Location", "/v2/"+repo+"/blobs/uploads/"+id+"?state=a%2Fb")
		w.WriteHeader(http.StatusAccepted)
		return
	}
	f.mu.Lock()
	have, ok := f.uploads[id]
	f.mu.Unlock()
	if !ok {
		status(404, "BLOB_UPLOAD_UNKNOWN")(w, r)
		return
	}
	if r.Method == http.MethodPatch {
		if want := fmt.Sprintf("%d-%d", len(have), int64(len(have))+r.ContentLength-1); r.Header.Get("Content-Range") != want {
			w.Header().Set("Range", fmt.Sprintf("0-%d", max(len(have)-1, 0)))
			status(416, "BLOB_UPLOAD_INVALID")(w, r)
			return
		}
	}
	body, err := io.ReadAll(r.Body)
	have = append(have[:len(have):len(have)], body...)
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Method == http.MethodDelete {
		delete(f.uploads, id)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	f.uploads[id] = have
	if err != nil {
		return
	}
	w.Header().Set("Location", "/v2/"+repo+"/blobs/uploads/"+id+"?state=c")
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(len(have)-1, 0)))
	switch r.Method {
	case http.MethodGet:
		w.WriteHeader(http.StatusNoContent)
	case http.MethodPatch:
		w.WriteHeader(http.StatusAccepted)
	case http.MethodPut:
		delete(f.uploads, id)
		d := r.URL.Query().Get("digest")
		if digest.FromBytes(have).String() != d {
			status(400, "DIGEST_INVALID")(w, r)
			return
		}
		f.blobs[repo+"@"+d] = have
		w.Header().Set("Docker-Content-Digest", d)
		w.WriteHeader(http.StatusCreated)
	}
}

// put makes the fake hold a blob.
func (f *fake) put(repo string, b []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.blobs[repo+"@"+digest.FromBytes(b).String()] = b
}

// putManifest makes the fake hold a manifest under a tag.
func (f *fake) putManifest(repo, tag, mediaType string, raw []byte) digest.Digest {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := digest.FromBytes(raw)
	f.manifests[repo+":"+tag], f.manifests[repo+"@"+d.String()] = raw, raw
	f.types[d.String()] = mediaType
	return d
}

func (f *fake) holds(repo string, b []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.blobs[repo+"@"+digest.FromBytes(b).String()]
	return ok
}

// requests lists what was seen so far.
func (f *fake) requests() []seen {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]seen(nil), f.seen...)
}

// count counts the requests of a method whose path holds a text.
func (f *fake) count(method, path string) int {
	n := 0
	for _, s := range f.requests() {
		if (method == "" || s.method == method) && strings.Contains(s.path, path) {
			n++
		}
	}
	return n
}

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
	return registry.New(o)
}

// everywhere are all hosts.
var everywhere = registry.Hosts{All: true}
