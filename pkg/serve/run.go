package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

const maxHeader = 64 << 10

// Run serves until ctx ends, then lets what runs end and returns nil.
func Run(ctx context.Context, o Options) (err error) {
	h, err := Handler(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	l, err := listen(ctx, &o, h.log)
	if err != nil {
		return err
	}
	var running underWay
	servers := []*http.Server{h.httpServer(ctx, running.counted(h), h.timeouts)}
	listeners := []net.Listener{l}
	if o.MetricsListen != "" {
		m, err := listenOn(ctx, o.MetricsListen)
		if err != nil {
			return errors.Join(err, l.Close())
		}
		servers = append(servers, h.httpServer(ctx, h.Metrics(), Timeouts{}))
		listeners = append(listeners, m)
		if o.ReadyMetrics != nil {
			o.ReadyMetrics(m.Addr().String())
		}
	}
	if o.Ready != nil {
		o.Ready(l.Addr().String())
	}
	done := make(chan error, len(servers))
	for i, srv := range servers {
		go func() { done <- srv.Serve(listeners[i]) }()
	}
	var failed error
	waiting := len(servers)
	select {
	case failed = <-done:
		waiting--
	case <-ctx.Done():
	}
	h.stop(ctx, servers, &running)
	for range waiting {
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// httpServer is a server whose handlers outlive ctx: they are let end.
func (s *Server) httpServer(ctx context.Context, h http.Handler, t Timeouts) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: t.header(),
		IdleTimeout:       t.idle(),
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// listen opens the registry's address, if others may reach it.
func listen(ctx context.Context, o *Options, log *slog.Logger) (net.Listener, error) {
	addr := o.Listen
	if addr == "" {
		addr = DefaultListen
	}
	var config *tls.Config
	if o.Certificate != "" || o.Key != "" {
		if o.Certificate == "" || o.Key == "" {
			return nil, fmt.Errorf("%w: TLS needs a certificate and its key", ErrInvalid)
		}
		c, err := openCertificate(o.Certificate, o.Key, log)
		if err != nil {
			return nil, err
		}
		config = c.config()
	}
	l, err := listenOn(ctx, addr)
	if err != nil {
		return nil, err
	}
	// What the name of a host means is known only now; nobody has been let in yet.
	if err := mayListen(o, l.Addr().String()); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	return l, nil
}

func listenOn(ctx context.Context, addr string) (net.Listener, error) {
	lc := net.ListenConfig{KeepAlive: 30 * time.Second}
	l, err := lc.Listen(ctx, "tcp", addr)
	if err == nil {
		return l, nil
	}
	if isAddrInUse(err) {
		err = fmt.Errorf("%w: %w (another registry? --listen 127.0.0.1:0 takes a free port)", ErrInUse, err)
	}
	return nil, fmt.Errorf("listening on %s: %w", addr, err)
}

// mayListen refuses an address that others reach, unless they need a name and
// nobody on the way can read it, or the caller has said that this is meant.
func mayListen(o *Options, addr string) error {
	switch {
	case IsLoopback(addr):
		return nil
	case o.Users == "" && !o.AllowAnonymous:
		what := "read and change everything in it"
		if o.ReadOnly || o.Layout != "" {
			what = "read everything in it"
		}
		return &OpenError{addr, "everyone who reaches it could " + what, "give --htpasswd FILE (and --tls-cert, --tls-key), or --allow-anonymous if that is meant"}
	case o.Users != "" && o.Certificate == "" && !o.AllowPlainHTTP:
		return &OpenError{addr, "names and passwords would travel in clear text", "give --tls-cert FILE and --tls-key FILE, or --allow-plain-http if something in front of it does TLS"}
	}
	return nil
}

// OpenError is an address that was refused: its kind is ErrOpen.
type OpenError struct {
	Addr string
	Why  string
	What string // to do now
}

func (e *OpenError) Error() string { return fmt.Sprintf("%v: on %s %s", ErrOpen, e.Addr, e.Why) }

// Hint is the next step.
func (e *OpenError) Hint() string { return e.What }

// Is reports the kind.
func (e *OpenError) Is(target error) bool { return target == ErrOpen }

// IsLoopback reports whether HOST:PORT can be reached from this machine only.
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
