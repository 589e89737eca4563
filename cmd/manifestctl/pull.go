package main

import (
	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/ref"
)

func newPull(e *env) *cobra.Command {
	var c copyFlags
	var name string
	cmd := &cobra.Command{
		Use:   "pull [flags] REF...",
		Short: "Bring images from a registry into the store",
		Long: "pull copies what each REF names, with all of its platforms or with those of --platform, into the store, under its own\n" +
			"name or -t NAME: builds, `run`, `save` and `serve` find it there without the registry. It is `copy REF store:REF`.\n\n" +
			"The digest of each is printed.",
		Example: "  manifestctl pull docker.io/library/debian:bookworm-slim\n" +
			"  manifestctl pull --platform linux/amd64,linux/arm64 registry.example/app:1.0\n" +
			"  manifestctl pull -t base:today registry.example/base@sha256:...",
		Args: positional(1, 1<<20, "REF"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if name != "" && len(args) > 1 {
				return usagef("-t %s is the name of one image, and there are %d", name, len(args))
			}
			type way struct{ src, dst ref.Ref }
			var ways []way
			for _, a := range args {
				src, err := e.readRef(a)
				if err != nil {
					return err
				}
				if src.Kind != ref.Registry {
					return usagef("%q is not in a registry", a).withHint("`manifestctl copy %s store:NAME` brings it into the store", a)
				}
				as := name
				if as == "" {
					if src.Tag == "" {
						return usagef("%q has no tag to be its name in the store", a).withHint("-t NAME gives it one")
					}
					as = src.WithTag(src.Tag).Familiar()
				}
				tag, err := ref.ParseTag(as)
				if err != nil {
					return err
				}
				dst, err := draftRef(tag)
				if err != nil {
					return err
				}
				ways = append(ways, way{src, dst})
			}
			for _, w := range ways {
				if err := e.copy(cmd.Context(), w.src, w.dst, &c); err != nil {
					return err
				}
			}
			return nil
		},
	}
	f := cmd.Flags()
	c.transferFlags.addWithout(f, "if-match")
	c.referrers, c.verify.src, c.verify.dst = true, true, true
	f.StringVarP(&name, "tag", "t", "", "`NAME[:TAG]` its name in the store (default its own)")
	f.BoolVar(&c.noReferrers, "no-referrers", false, "without what refers to the image: signatures, SBOMs")
	f.BoolVarP(&e.globals.silent, "quiet", "q", false, "no progress and no summary")
	return cmd
}
