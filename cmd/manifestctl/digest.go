package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
)

func newDigest(e *env) *cobra.Command {
	var want string
	var full bool
	cmd := &cobra.Command{
		Use:   "digest [flags] REF",
		Short: "Print the digest of what a reference names",
		Long: "digest prints the digest of the index or image that REF names: HOST[:PORT]/REPO[:TAG][@DIGEST], store:NAME[:TAG],\n" +
			"oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:TAG].",
		Example: "  manifestctl digest registry.example/app:1.0\n" +
			"  manifestctl digest --platform linux/arm64 --full-ref registry.example/app:1.0",
		Args: positional(1, 1, "REF"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := e.readRef(args[0])
			if err != nil {
				return err
			}
			p, err := parsePlatform(want)
			if err != nil {
				return err
			}
			return e.withOpener(cmd.Context(), r, func(o *source.Opener) (err error) {
				ctx := cmd.Context()
				if r.Kind == ref.Registry && p.IsZero() {
					desc, err := o.Registry.Resolve(ctx, r) // a HEAD, where the registry can
					if err != nil {
						return err
					}
					return e.printDigest(r.WithDigest(desc.Digest), full)
				}
				img, err := o.Open(ctx, r)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, img.Close()) }()
				d := img.Root().Digest
				if !p.IsZero() {
					found, err := source.Resolve(ctx, img, p)
					if err != nil {
						return err
					}
					d = found.Desc.Digest
				}
				return e.printDigest(r.WithDigest(d), full)
			})
		},
	}
	cmd.Flags().StringVar(&want, "platform", "", "`OS/ARCH[/VARIANT]` of the image that a client of this platform gets; local is this machine")
	cmd.Flags().BoolVar(&full, "full-ref", false, "print HOST/REPO@DIGEST")
	return cmd
}

func (e *env) printDigest(r ref.Ref, full bool) error {
	if full {
		return e.println(r.String())
	}
	return e.println(r.Digest)
}
