package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/inspect"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
)

func newInspect(e *env) *cobra.Command {
	var o inspect.Options
	var want string
	cmd := &cobra.Command{
		Use:   "inspect [flags] REF",
		Short: "Print an index or image and its platforms",
		Long: "inspect prints what REF names: a table of its platforms, its exact bytes, or what a template makes of it.\n\n" +
			"REF is HOST[:PORT]/REPO[:TAG][@DIGEST], store:NAME[:TAG], oci:DIR[:TAG][@DIGEST], oci-archive:FILE[:TAG] or\n" +
			"docker-archive:FILE[:TAG]. A name without a registry's host means the store when it is there, as for drafts.",
		Example: "  manifestctl inspect localhost:5000/hello:1.0\n" +
			"  manifestctl inspect --tree localhost:5000/hello:1.0\n" +
			"  manifestctl inspect --raw oci:hello | sha256sum\n" +
			"  manifestctl inspect --format '{{json .Manifest.Digest}}' store:hello:1.0\n" +
			"  manifestctl inspect --platform linux/arm64 --format '{{.Architecture}}' localhost:5000/hello:1.0",
		Args: positional(1, 1, "REF"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := e.readRef(args[0])
			if err != nil {
				return err
			}
			if o.Platform, err = parsePlatform(want); err != nil {
				return err
			}
			if r, err = e.draftOr(r, args[0]); err != nil {
				return err
			}
			return e.withOpener(cmd.Context(), r, func(opener *source.Opener) error {
				res, err := inspect.Run(cmd.Context(), opener, r, o)
				if err != nil {
					return err
				}
				for _, w := range res.Warnings {
					e.note("warning: %s", w)
				}
				return res.Write(e.stdout)
			})
		},
	}
	cmd.Flags().BoolVar(&o.Raw, "raw", false, "the exact bytes of the manifest or index")
	cmd.Flags().BoolVar(&o.Tree, "tree", false, "everything it leads to: nested indexes, attestations, artifacts, layers, sizes, all annotations")
	cmd.Flags().StringVarP(&o.Format, "format", "f", "", "`FORMAT` json, or a Go template with .Name, .Manifest and .Image")
	cmd.Flags().BoolVarP(&o.Tree, "verbose", "v", false, "docker's spelling of --tree")
	hide(cmd.Flags(), "verbose")
	cmd.Flags().StringVarP(&want, "platform", "p", "", "`OS/ARCH[/VARIANT]` the image that a client of this platform gets; local is this machine")
	return cmd
}

// draftOr is the store's image of a short name, when there is one: what "create app:1.0" made is inspected as "app:1.0".
func (e *env) draftOr(r ref.Ref, text string) (ref.Ref, error) {
	first, _, slash := strings.Cut(text, "/")
	if r.Kind != ref.Registry || r.Digest != "" || strings.HasPrefix(text, "docker://") || slash && strings.ContainsAny(first, ".:") || first == "localhost" {
		return r, nil
	}
	local, err := draftRef(r)
	if err != nil {
		return r, err
	}
	there, err := e.hasStore()
	if err != nil || !there {
		return r, err
	}
	err = e.withStore(context.Background(), store.Options{ReadOnly: true}, func(st *store.Store) error {
		_, err := st.GetRef(local.Familiar())
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return r, nil
	}
	return local, err
}

// parsePlatform reads one platform; "" is none.
func parsePlatform(s string) (platform.Platform, error) {
	if s == "" {
		return platform.Platform{}, nil
	}
	list, err := parsePlatforms([]string{s})
	if err != nil {
		return platform.Platform{}, err
	}
	if len(list) != 1 {
		return platform.Platform{}, usagef("--platform %q: want one platform", s)
	}
	return list[0], nil
}

// withOpener opens references for the time of f; the store only when r is in it.
func (e *env) withOpener(ctx context.Context, r ref.Ref, f func(*source.Opener) error) error {
	opener := &source.Opener{Registry: registry.New(e.registry())}
	if r.Kind != ref.Store {
		return f(opener)
	}
	return e.withStore(ctx, store.Options{ReadOnly: true}, func(st *store.Store) error {
		opener.Store = st
		return f(opener)
	})
}
