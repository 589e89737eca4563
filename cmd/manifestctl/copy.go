package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// copyFlags are what copy can be told.
type copyFlags struct {
	transferFlags
	referrers, noReferrers bool
	json                   bool
	digestFile             string
	multiArch              string
	verify                 struct{ src, dst bool }
}

func newCopy(e *env) *cobra.Command {
	var c copyFlags
	cmd := &cobra.Command{
		Use:     "copy [flags] SRC DST",
		Aliases: []string{"cp"},
		Short:   "Copy an image or index, with everything it reaches, between any two places",
		Long: "copy copies what SRC names to DST: between registries, the store, OCI layouts (directories and tars) and docker\n" +
			"archives, in any pair. Digests stay. What DST holds already is not copied again, and what its registry can mount\n" +
			"from another repository does not move. Referrers and cosign's signatures of what is copied go along.\n\n" +
			"With --platform, an index is written anew with these platforms and their attestations; an annotation tells the\n" +
			"original's digest. What refers to the original is made to refer to the new index, and the original's bytes go along\n" +
			"as a referrer, so that its signatures can still be checked. With --sparse the index stays as it is, and the children\n" +
			"that it leaves out are missing.\n\n" +
			"The digest at DST is printed.",
		Example: "  manifestctl copy docker.io/library/debian:bookworm-slim registry.example/debian:bookworm-slim\n" +
			"  manifestctl copy --platform linux/amd64,linux/arm64 registry.example/app:1.0 oci:app:1.0\n" +
			"  manifestctl copy --all-tags --no-clobber registry.example/app mirror.example/app\n" +
			"  manifestctl copy --dry-run registry.example/app:1.0 mirror.example/app:1.0",
		Args: positional(2, 2, "SRC and DST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			src, err := e.readRef(args[0])
			if err != nil {
				return err
			}
			dst, err := ref.Parse(args[1])
			if err != nil {
				return err
			}
			if c.options.AllTags {
				for i, r := range []ref.Ref{src, dst} {
					if r.Digest != "" || r.Tag != "" && strings.HasSuffix(args[i], ":"+r.Tag) {
						return usagef("--all-tags copies every tag, and %q names one", args[i]).withHint("write %s", strings.TrimSuffix(args[i], ":"+r.Identifier()))
					}
				}
			}
			return e.copy(cmd.Context(), src, dst, &c)
		},
	}
	c.add(e, cmd.Flags())
	return cmd
}

func (c *copyFlags) add(e *env, f *pflag.FlagSet) {
	c.transferFlags.add(f)
	f.BoolVar(&c.options.Sparse, "sparse", false, "keep the index as it is when --platform leaves out children, and let children be missing")
	f.BoolVarP(&c.options.AllTags, "all-tags", "a", false, "every tag of SRC's repository, layout or archive")
	f.BoolVarP(&c.options.NoClobber, "no-clobber", "n", false, "leave tags that exist at DST as they are")
	f.BoolVar(&c.referrers, "referrers", true, "what refers to the image goes along: signatures, SBOMs")
	f.BoolVar(&c.noReferrers, "no-referrers", false, "the same as --referrers=false")
	f.BoolVar(&c.options.AllLayers, "all-layers", false, "layers that are not to be distributed as well")
	f.BoolVar(&c.json, "json", false, "print a report as JSON instead of the digest")
	f.BoolVarP(&e.globals.silent, "quiet", "q", false, "no progress and no summary")
	f.StringVar(&c.digestFile, "digestfile", "", "`FILE` write the digest to it")
	// Peers' spellings.
	f.StringVar(&c.multiArch, "multi-arch", "", "skopeo's: all, system, index-only or platforms")
	f.BoolVar(&c.verify.src, "src-tls-verify", true, "skopeo's spelling of the opposite of --insecure=HOST")
	f.BoolVar(&c.verify.dst, "dest-tls-verify", true, "skopeo's spelling of the opposite of --insecure=HOST")
	var ignored bool
	for _, name := range []string{"all", "preserve-digests", "recursive"} { // what is done anyway
		f.BoolVar(&ignored, name, false, "")
	}
	for _, name := range []string{"multi-arch", "src-tls-verify", "dest-tls-verify", "all", "preserve-digests", "recursive"} {
		f.Lookup(name).Hidden = true
	}
}

// parse makes options of the flags, and of the peers' spellings.
func (c *copyFlags) parse() (transfer.Options, error) {
	switch c.multiArch {
	case "", "all":
	case "system":
		c.platforms = append(c.platforms, "local")
	case "index-only":
		return c.options, usagef("--multi-arch index-only: an index without its images is of no use to a reader").
			withHint("--sparse --platform OS/ARCH keeps the index and takes some of its images")
	default:
		c.platforms = append(c.platforms, c.multiArch)
	}
	o, err := c.transferFlags.parse()
	if c.noReferrers || !c.referrers {
		o.Referrers = transfer.NoReferrers
	}
	return o, err
}

func (e *env) copy(ctx context.Context, src, dst ref.Ref, c *copyFlags) error {
	o, err := c.parse()
	if err != nil {
		return err
	}
	for _, side := range []struct {
		verify bool
		host   string
	}{{c.verify.src, src.Host}, {c.verify.dst, dst.Host}} {
		if !side.verify && side.host != "" {
			e.globals.insecure.Names = append(e.globals.insecure.Names, side.host)
		}
	}
	return e.withTransfer(ctx, []ref.Ref{src}, []ref.Ref{dst}, func(env transfer.Env) error {
		rep, err := transfer.Copy(ctx, env, src, dst, o)
		if err != nil {
			return err
		}
		if c.digestFile != "" && len(rep.Roots) > 0 {
			if err := writeFile(c.digestFile, []byte(rep.Roots[0].Digest)); err != nil {
				return err
			}
		}
		if c.json {
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
}
