package main

import (
	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

func newCopy(e *env) *cobra.Command {
	var t transferFlags
	var noReferrers, referrers, asJSON, ignored bool
	cmd := &cobra.Command{
		Use:     "copy [flags] SRC DST",
		Aliases: []string{"cp"},
		Short:   "Copy an image or index, with everything it reaches, between any two places",
		Long: "copy copies what SRC names to DST: between registries, the store, OCI layouts (directories and tars) and docker\n" +
			"archives, in any pair. Digests stay. What DST holds already is not copied again, and what its registry can mount\n" +
			"from another repository does not move. Referrers and cosign's signatures of what is copied go along.\n\n" +
			"With --platform, an index is written anew with these platforms and their attestations; an annotation tells the\n" +
			"original's digest. With --sparse it stays as it is, and the children that it leaves out are missing.\n\n" +
			"The digest at DST is printed.",
		Example: "  manifestctl copy docker.io/library/debian:bookworm-slim registry.example/debian:bookworm-slim\n" +
			"  manifestctl copy --platform linux/amd64,linux/arm64 registry.example/app:1.0 oci:app:1.0\n" +
			"  manifestctl copy --all-tags registry.example/app oci-archive:app.tar",
		Args: positional(2, 2, "SRC and DST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			src, err := ref.Parse(args[0])
			if err != nil {
				return err
			}
			dst, err := ref.Parse(args[1])
			if err != nil {
				return err
			}
			o, err := t.parse()
			if err != nil {
				return err
			}
			if noReferrers || !referrers {
				o.Referrers = transfer.NoReferrers
			}
			return e.withTransfer(cmd.Context(), []ref.Ref{src}, []ref.Ref{dst}, func(env transfer.Env) error {
				rep, err := transfer.Copy(cmd.Context(), env, src, dst, o)
				if err != nil {
					return err
				}
				if asJSON {
					return e.printJSON(rep)
				}
				e.reported(rep, o.DryRun)
				if dst.Path == "-" {
					return nil // the archive is there
				}
				for _, r := range rep.Roots {
					if err := e.println(r.Digest); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	f := cmd.Flags()
	t.add(f)
	f.BoolVar(&t.options.Sparse, "sparse", false, "keep the index as it is when --platform leaves out children, and let children be missing")
	f.BoolVarP(&t.options.AllTags, "all-tags", "a", false, "every tag of SRC's repository, layout or archive")
	f.BoolVar(&referrers, "referrers", true, "what refers to the image goes along: signatures, SBOMs")
	f.BoolVar(&noReferrers, "no-referrers", false, "the same as --referrers=false")
	f.BoolVar(&t.options.AllLayers, "all-layers", false, "layers that are not to be distributed as well")
	f.BoolVar(&asJSON, "json", false, "print a report as JSON instead of the digest")
	// Peers' spellings of what is done anyway.
	for _, name := range []string{"all", "preserve-digests", "recursive"} {
		f.BoolVar(&ignored, name, false, "")
		_ = f.MarkHidden(name)
	}
	return cmd
}
