// Package serve offers a directory, the store, or an image layout as a registry:
// the OCI distribution specification over HTTP, with handlers of its own.
//
// Everybody may everything, and the loopback is all it listens on, unless there are
// users, or it is told so. With [Options.Proxy] it is a cache of another registry.
//
// # Invariants
//
//   - What was answered with 201 survives a kill -9: blobs, manifests and tags are
//     written, synced and renamed before the answer, what they need before them.
//   - A tag, read at any time, is one complete manifest that was pushed under it.
//   - What does not have its digest, is cut short, or names what is not there is
//     refused and leaves nothing behind.
//   - No name of a request becomes a path before the specification's grammar has
//     accepted it.
//   - Uploads stream to disk; a slow one holds up nobody else, and each read and
//     write of a connection has its deadline.
//   - Who may not do something learns nothing from trying: names and passwords are
//     looked at before anything else of a request.
package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// The kinds of errors.
var (
	// ErrInvalid is a request for a server that cannot be: no place, or two.
	ErrInvalid = errors.New("invalid server")
	// ErrNotRegistry is a directory that holds something else.
	ErrNotRegistry = errors.New("not a directory of this registry")
	// ErrInUse is a directory, or an address, that another process has.
	ErrInUse = errors.New("in use")
	// ErrOpen is a registry that others could reach and that would let them in
	// without a name, or with one in clear text.
	ErrOpen = errors.New("the registry would be open to others")
)

// DefaultListen is where a registry listens that is not told otherwise.
const DefaultListen = "127.0.0.1:5000"

// Options says what to serve, to whom and where. Exactly one of Dir, Store and
// Layout is set; the zero value of the others is the recommended one.
type Options struct {
	Listen string       // HOST:PORT; "": DefaultListen; port 0: a free one
	Dir    string       // a directory of its own, made if missing
	Store  *store.Store // the content store; its refs are the repositories
	Layout string       // an OCI layout: a directory, or an archive of one; only read

	// Proxy is another registry, HOST[:PORT][/PREFIX]: what clients ask for is fetched from there, with the credentials that
	// Upstream finds, and kept in Dir. Clients only read.
	Proxy    string
	Upstream registry.Options

	ReadOnly bool // refuse every change
	Sparse   bool // accept manifests whose blobs or children are missing

	Users          string   // file of Apache's htpasswd, bcrypt only; "": everybody may everything
	Writers        []string // users who may change things; nil: all of them
	AnonymousRead  bool     // without a name one may read; with Users
	AllowAnonymous bool     // listen beyond the loopback without users
	AllowPlainHTTP bool     // listen beyond the loopback without TLS although there are passwords

	Certificate, Key string // files, PEM: TLS; read again when they change

	Limits   Limits
	Timeouts Timeouts

	MetricsListen string       // HOST:PORT of /metrics and /healthz; "": nowhere
	AccessLog     io.Writer    // a line of JSON for each request; nil: none
	Log           *slog.Logger // requests at debug, trouble above; nil: silent

	Ready        func(addr string) // called once, with the address that is listened on
	ReadyMetrics func(addr string)
}

// Timeouts are how long a registry waits. Zero is the recommended value.
type Timeouts struct {
	Header time.Duration // for the header of a request; 30 s
	Idle   time.Duration // for the next request on a connection; 2 min
	Body   time.Duration // for one read of a body to bring something, or one megabyte of an answer to leave; 1 min
	Stop   time.Duration // for requests that run when the registry is to end; 10 s
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

func (t Timeouts) header() time.Duration { return orDefault(t.Header, 30*time.Second) }
func (t Timeouts) idle() time.Duration   { return orDefault(t.Idle, 2*time.Minute) }
func (t Timeouts) body() time.Duration   { return orDefault(t.Body, time.Minute) }
func (t Timeouts) stop() time.Duration   { return orDefault(t.Stop, 10*time.Second) }

// Server is the registry as an http.Handler.
type Server struct {
	content  storage
	readOnly bool
	sparse   bool
	users    access
	limits   Limits
	quota    quota
	timeouts Timeouts
	log      *slog.Logger
	metrics  *metrics
	now      func() time.Time
	sessions sessions
	repos    keyedLocks

	collector collector
	self      string // of a proxy: what its own requests say

	access       *accessLog // nil: none
	accessFailed atomic.Bool
}

// Handler opens what o says and returns the registry on it, to be closed. What o
// says about listening is not looked at.
func Handler(ctx context.Context, o Options) (_ *Server, err error) {
	s := &Server{
		readOnly: o.ReadOnly, sparse: o.Sparse, log: o.Log, limits: o.Limits, timeouts: o.Timeouts,
		now: time.Now, //nolint:forbidigo // for logs and metrics
	}
	s.metrics = newMetrics(s.now())
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if o.AccessLog != nil {
		s.access = &accessLog{to: o.AccessLog}
	}
	if err := o.Limits.check(); err != nil {
		return nil, err
	}
	if s.users, err = newAccess(&o, s); err != nil {
		return nil, err
	}
	if s.content, err = s.open(ctx, &o); err != nil {
		return nil, err
	}
	used, err := s.content.Usage(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("counting the content: %w", err), s.content.Close())
	}
	s.quota.limit = o.Limits.Total
	s.quota.used.Store(used)
	return s, nil
}

// open opens the one place that o names.
func (s *Server) open(ctx context.Context, o *Options) (storage, error) {
	places := 0
	for _, named := range []bool{o.Dir != "", o.Store != nil, o.Layout != ""} {
		if named {
			places++
		}
	}
	switch {
	case o.Proxy != "" && (o.Dir == "" || places != 1 || o.ReadOnly):
		return nil, fmt.Errorf("%w: a proxy keeps what it fetches in a directory of its own, which it writes to", ErrInvalid)
	case places != 1:
		return nil, fmt.Errorf("%w: a registry serves one place: a directory, a layout or the store", ErrInvalid)
	case o.Store != nil:
		return newStored(o.Store), nil
	case o.Layout != "":
		s.readOnly = true
		return openLayout(ctx, o.Layout)
	}
	dir, err := openDir(ctx, o.Dir, o.ReadOnly, s.log)
	if err != nil {
		return nil, err
	}
	if o.Proxy == "" {
		return dir, nil
	}
	s.readOnly = true // for clients
	p, err := openProxy(s, o, dir)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return p, nil
}

var (
	_ http.Handler = (*Server)(nil)
	_ io.Closer    = (*Server)(nil)
)

// Close drops uploads that did not end and releases the directory. The caller
// has made sure that no request runs.
func (s *Server) Close() error {
	s.collector.close()
	s.sessions.close()
	return s.content.Close()
}
