package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// loadFlags are what load can be told.
type loadFlags struct {
	transferFlags
	input  string
	to     string
	scoped bool
	check  bool
	json   bool
}

func newLoad(e *env) *cobra.Command {
	var l loadFlags
	cmd := &cobra.Command{
		Use:   "load [flags] [-i FILE] [NAME]",
		Short: "Bring what an archive holds to a registry, the store or a layout",
		Long: "load reads an archive of `save`, an OCI archive, or one of docker save or podman save, plain or compressed, from FILE\n" +
			"or standard input. All of it is verified before the first byte is written: what is damaged, missing or too much is\n" +
			"named, and changes nothing. What the destination has is not written again, so that a second run goes on where the\n" +
			"first one stopped; names are written last.\n\n" +
			"Images keep their names and go to the store. With --to HOST[/PREFIX] they go to that registry\n" +
			"(registry.example/team/app:1.0 becomes HOST/PREFIX/team/app:1.0), with --to oci:DIR to a layout. NAME is for an archive\n" +
			"of one image, or of one repository: what it is to be called. The digest of each image is printed.",
		Example: "  manifestctl load -i apps.tar --to registry.internal:5000/mirror\n" +
			"  manifestctl load -i app.tar registry.internal:5000/app:1.0\n" +
			"  manifestctl load --check -i apps.tar\n" +
			"  ssh outside cat apps.tar | manifestctl load",
		Args: positional(0, 1, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			var name ref.Ref
			if len(args) == 1 {
				var err error
				if name, err = ref.Parse(args[0]); err != nil {
					return err
				}
			}
			return e.load(cmd.Context(), name, &l)
		},
	}
	f := cmd.Flags()
	l.transferFlags.addWithout(f, "platform")
	f.StringVarP(&l.input, "input", "i", "-", "`FILE` the archive; - is standard input")
	f.StringVar(&l.to, "to", "", "`PLACE` where all names go: HOST[/PREFIX], oci:DIR or store: (the default)")
	f.BoolVar(&l.scoped, "scoped", false, "with --to, keep the hosts of names as a part of the repositories' names")
	f.BoolVar(&l.check, "check", false, "verify the archive, and write nothing")
	f.BoolVar(&l.json, "json", false, "print a report as JSON instead of the digests")
	f.BoolVarP(&e.globals.silent, "quiet", "q", false, "no progress and no summary")
	return cmd
}

func (e *env) load(ctx context.Context, name ref.Ref, l *loadFlags) error {
	o, err := l.parse()
	if err != nil {
		return err
	}
	lo := transfer.LoadOptions{Options: o, Name: name, Check: l.check, Stdin: e.stdin, Spool: e.getenv("TMPDIR")}
	if l.to != "" && name.Kind != "" {
		return usagef("NAME says what one image is called, --to where all go: give one of them")
	}
	if lo.To, err = transfer.ParsePlace(l.to); err != nil {
		return err
	}
	lo.To.Scoped = l.scoped
	writes := []ref.Ref{name}
	if name.Kind == "" {
		writes[0].Kind = lo.To.Kind
	}
	if l.check { // nothing is opened for writing
		writes = nil
	}
	return e.withTransfer(ctx, nil, writes, func(env transfer.Env) error {
		rep, err := transfer.Load(ctx, env, l.input, lo)
		if err != nil {
			return err
		}
		if l.json {
			return e.printJSON(rep)
		}
		if l.check {
			e.note("%s: whole, %s", l.input, count(len(rep.Roots), "image"))
		} else {
			e.reported(rep, o.DryRun)
		}
		for _, r := range rep.Roots {
			if err := e.println(r.Digest); err != nil {
				return err
			}
		}
		return nil
	})
}
