package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/pkg/serve"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// serveFlags are the flags of serve that are not fields of serve.Options.
type serveFlags struct {
	accessLog string
	debug     bool
}

func newServe(e *env) *cobra.Command {
	var o serve.Options
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve [flags] [DIR | oci:DIR | oci-archive:FILE]",
		Short: "Offer a directory, the store, or a layout as a registry",
		Long: "serve is a registry for docker, podman, skopeo, crane and others: of the directory DIR, which is made if it is\n" +
			"missing; of an OCI layout or an archive of one, as it is, for reading; else of the store. docs/serve.md tells all.\n\n" +
			"It listens on the loopback unless told otherwise. Elsewhere it wants users (--htpasswd) and TLS, or to be told that\n" +
			"it is meant (--allow-anonymous). With --proxy it is a cache of another registry: what is not in DIR is fetched from there, with\n" +
			"this user's credentials, and kept; clients only read. It prints the address to stderr. SIGINT or SIGTERM lets requests end that run, and\n" +
			"the exit code is 0; a second one ends it at once.",
		Example: "  manifestctl serve registry\n" +
			"  manifestctl serve --read-only --listen 127.0.0.1:0\n" +
			"  manifestctl serve oci-archive:carried.tar\n" +
			"  manifestctl serve --proxy docker.io cache\n" +
			"  manifestctl serve --listen :5000 --htpasswd users --tls-cert cert.pem --tls-key key.pem registry",
		Args: positional(0, 1, ""),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			level := slog.LevelWarn
			if f.debug {
				level = slog.LevelDebug
			}
			o.Log = slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: level}))
			log, err := e.openAccessLog(f.accessLog)
			if err != nil {
				return err
			}
			if log != nil {
				o.AccessLog = log
				defer func() { err = errors.Join(err, log.Close()) }()
			}
			o.ReadyMetrics = func(addr string) { e.note("metrics on http://%s/metrics", addr) }
			return e.serve(cmd.Context(), &o, args)
		},
	}
	serveOptions(cmd.Flags(), &o)
	cmd.Flags().StringVar(&f.accessLog, "access-log", "", "append a line of JSON for each request to `FILE`; - is stderr")
	cmd.Flags().BoolVar(&f.debug, "debug", false, "log every request, for people")
	return cmd
}

func serveOptions(f *pflag.FlagSet, o *serve.Options) {
	f.StringVar(&o.Listen, "listen", serve.DefaultListen, "`HOST:PORT` where to listen; port 0 is a free one")
	f.StringVar(&o.Proxy, "proxy", "", "be a cache of the registry `HOST[:PORT][/PREFIX]`, in DIR; clients only read")
	f.BoolVar(&o.ReadOnly, "read-only", false, "refuse every change")
	f.BoolVar(&o.Sparse, "sparse", false, "accept manifests that name what is not there")
	f.StringVar(&o.Users, "htpasswd", "", "users and passwords: `FILE` of Apache's htpasswd -B; read again when it changes")
	f.StringSliceVar(&o.Writers, "writer", nil, "only `USER`s so named may change things; the others read")
	f.BoolVar(&o.AnonymousRead, "anonymous-read", false, "who gives no name may read")
	f.BoolVar(&o.AllowAnonymous, "allow-anonymous", false, "listen beyond the loopback without users")
	f.BoolVar(&o.AllowPlainHTTP, "allow-plain-http", false, "listen beyond the loopback with users and without TLS")
	f.StringVar(&o.Certificate, "tls-cert", "", "TLS with the certificate (and its chain) in `FILE`, PEM; read again when it changes")
	f.StringVar(&o.Key, "tls-key", "", "`FILE` of the certificate's key, PEM")
	f.Var((*bytesValue)(&o.Limits.Total), "max-total", "hold at most `BYTES` (512M, 20G) of content")
	f.Var((*bytesValue)(&o.Limits.Blob), "max-blob", "refuse blobs of more than `BYTES`")
	f.Var((*bytesValue)(&o.Limits.Manifest), "max-manifest", "refuse manifests of more than `BYTES`; 4M unless given")
	f.DurationVar(&o.Timeouts.Header, "header-timeout", 0, "wait so long for a request's header (default 30s)")
	f.DurationVar(&o.Timeouts.Idle, "idle-timeout", 0, "keep a connection so long without a request (default 2m)")
	f.DurationVar(&o.Timeouts.Body, "body-timeout", 0, "wait so long for a body to go on (default 1m)")
	f.DurationVar(&o.Timeouts.Stop, "stop-timeout", 0, "at the end wait so long for requests that run (default 10s)")
	f.StringVar(&o.MetricsListen, "metrics", "", "offer Prometheus /metrics, and /healthz, on `HOST:PORT`")
}

// serve runs a registry of what the argument names.
func (e *env) serve(ctx context.Context, o *serve.Options, args []string) error {
	place := ""
	if len(args) == 1 {
		place = args[0]
	}
	for _, prefix := range []string{"oci:", "oci-layout://", "ocidir://", "oci-archive:"} {
		if rest, ok := strings.CutPrefix(place, prefix); ok {
			o.Layout, o.Ready = rest, e.serving(o, place)
			return serve.Run(ctx, *o)
		}
	}
	if place != "" {
		what := place
		if o.Proxy != "" {
			what, o.Upstream = o.Proxy+" through "+place, e.registry()
		}
		o.Dir, o.Ready = place, e.serving(o, what)
		return serve.Run(ctx, *o)
	}
	if o.Proxy != "" {
		return usagef("--proxy needs a directory to keep what it fetches").withHint("manifestctl serve --proxy %s DIR", o.Proxy)
	}
	return e.withStore(ctx, store.Options{ReadOnly: o.ReadOnly}, func(st *store.Store) error {
		o.Store, o.Ready = st, e.serving(o, "the store "+st.Root())
		return serve.Run(ctx, *o)
	})
}

// serving tells where a registry listens.
func (e *env) serving(o *serve.Options, what string) func(addr string) {
	return func(addr string) {
		if o.Users == "" && !serve.IsLoopback(addr) {
			e.note("warning: everyone who reaches %s is let in: this registry has no users", addr)
		}
		scheme := "http"
		if o.Certificate != "" {
			scheme = "https"
		}
		e.note("serving %s on %s://%s", what, scheme, addr)
	}
}

// openAccessLog opens the file of --access-log; nil when there is none.
func (e *env) openAccessLog(name string) (io.WriteCloser, error) {
	switch name {
	case "":
		return nil, nil
	case "-":
		return nopCloser{e.stderr}, nil
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, usagef("--access-log: %w", err)
	}
	return f, nil
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// bytesValue is a number of bytes: digits, and K, M, G or T for powers of 1024.
type bytesValue int64

var _ pflag.Value = (*bytesValue)(nil)

// Set implements pflag.Value.
func (v *bytesValue) Set(s string) error {
	digits, shift := s, 0
	if i := strings.IndexAny(s, "KMGTkmgt"); i > 0 {
		unit := strings.ToUpper(s[i:])
		if rest := unit[1:]; rest != "" && rest != "B" && rest != "IB" {
			return usagef("%q is not a number of bytes: 1000, 64K, 512M, 20G", s)
		}
		digits, shift = s[:i], 10*(1+strings.Index("KMGT", unit[:1]))
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 1 || n > 1<<62>>shift {
		return usagef("%q is not a number of bytes: 1000, 64K, 512M, 20G", s)
	}
	*v = bytesValue(n << shift)
	return nil
}

// String implements pflag.Value.
func (v *bytesValue) String() string {
	if *v == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*v), 10)
}

// Type implements pflag.Value.
func (v *bytesValue) Type() string { return "bytes" }
