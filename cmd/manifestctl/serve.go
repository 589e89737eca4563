package main

import (
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/serve"
	"github.com/manifestctl/manifestctl/pkg/store"
)

func newServe(e *env) *cobra.Command {
	var o serve.Options
	var debug bool
	cmd := &cobra.Command{
		Use:   "serve [flags] [DIR]",
		Short: "Offer a directory, or the store, as a registry",
		Long: "serve is a registry for docker, podman, skopeo, crane and others: of the directory DIR, which is made if it is\n" +
			"missing, else of the store. It has no users and no TLS, and listens on the loopback unless told otherwise. It\n" +
			"prints the address to stderr and ends by SIGINT or SIGTERM, with exit code 0.",
		Example: "  manifestctl serve registry\n" +
			"  manifestctl serve --read-only --listen 127.0.0.1:0",
		Args: positional(0, 1, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			level := slog.LevelWarn
			if debug {
				level = slog.LevelDebug
			}
			o.Log = slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: level}))
			if len(args) == 1 {
				o.Dir = args[0]
				o.Ready = e.serving(o.Dir)
				return serve.Run(cmd.Context(), o)
			}
			return e.withStore(cmd.Context(), store.Options{ReadOnly: o.ReadOnly}, func(st *store.Store) error {
				o.Store, o.Ready = st, e.serving("the store "+st.Root())
				return serve.Run(cmd.Context(), o)
			})
		},
	}
	cmd.Flags().StringVar(&o.Listen, "listen", serve.DefaultListen, "`HOST:PORT` where to listen; port 0 is a free one")
	cmd.Flags().BoolVar(&o.ReadOnly, "read-only", false, "refuse every change")
	cmd.Flags().BoolVar(&o.Sparse, "sparse", false, "accept manifests that name what is not there")
	cmd.Flags().BoolVar(&debug, "debug", false, "log every request")
	return cmd
}

// serving tells where a registry listens.
func (e *env) serving(what string) func(addr string) {
	return func(addr string) {
		if !serve.IsLoopback(addr) {
			e.note("warning: everyone who reaches %s can read and write: this registry has no users", addr)
		}
		e.note("%s", fmt.Sprintf("serving %s on http://%s", what, addr))
	}
}
