// Package serve offers a directory, or the store, as a registry: the OCI
// distribution specification over HTTP, with handlers of its own.
//
// It has no users and no TLS: it is for loopback, and for networks whose members
// may all read and write. Nothing here is a cache or a proxy.
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
package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

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
)

// DefaultListen is where a registry listens that is not told otherwise.
const DefaultListen = "127.0.0.1:5000"

// Options says what to serve and where. Exactly one of Dir and Store is set; the
// zero value of the others is the recommended one.
type Options struct {
	Listen   string       // HOST:PORT; "": DefaultListen; port 0: a free one
	Dir      string       // a directory of its own, made if missing
	Store    *store.Store // the content store; its refs are the repositories
	ReadOnly bool         // refuse every change
	Sparse   bool         // accept manifests whose blobs or children are missing

	Ready func(addr string) // called once, with the address that is listened on
	Log   *slog.Logger      // requests at debug, trouble above; nil: silent
}

const (
	headerTimeout   = 30 * time.Second
	idleTimeout     = 2 * time.Minute
	shutdownTimeout = 10 * time.Second
	maxHeader       = 64 << 10
)

// Run serves until ctx ends, then lets what runs end and returns nil.
func Run(ctx context.Context, o Options) (err error) {
	h, err := Handler(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	listen := o.Listen
	if listen == "" {
		listen = DefaultListen
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", listen)
	if err != nil {
		if isAddrInUse(err) {
			err = fmt.Errorf("%w: %w (another registry? --listen 127.0.0.1:0 takes a free port)", ErrInUse, err)
		}
		return fmt.Errorf("listening on %s: %w", listen, err)
	}
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		ErrorLog:          slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
	if o.Ready != nil {
		o.Ready(l.Addr().String())
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		h.log.Warn("ending requests that run", "error", err)
		_ = srv.Close()
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// IsLoopback reports whether HOST:PORT can be reached from this machine only.
// Whoever listens elsewhere should be told that the registry has no users.
func IsLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// Server is the registry as an http.Handler.
type Server struct {
	content  storage
	readOnly bool
	sparse   bool
	log      *slog.Logger
	sessions sessions
	repos    repoLocks
}

// Handler opens what o says and returns the registry on it, to be closed. Listen
// and Ready are not looked at.
func Handler(ctx context.Context, o Options) (*Server, error) {
	s := &Server{readOnly: o.ReadOnly, sparse: o.Sparse, log: o.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	switch {
	case (o.Dir == "") == (o.Store == nil):
		return nil, fmt.Errorf("%w: a registry serves either a directory or the store", ErrInvalid)
	case o.Store != nil:
		s.content = newStored(o.Store)
	default:
		d, err := openDir(ctx, o.Dir, o.ReadOnly, s.log)
		if err != nil {
			return nil, err
		}
		s.content = d
	}
	return s, nil
}

var (
	_ http.Handler = (*Server)(nil)
	_ io.Closer    = (*Server)(nil)
)

// Close drops uploads that did not end and releases the directory. The caller
// has made sure that no request runs.
func (s *Server) Close() error {
	s.sessions.close()
	return s.content.Close()
}
