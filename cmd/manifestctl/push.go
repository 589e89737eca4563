package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/draft"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// pushFlags are what push can be told.
type pushFlags struct {
	gate       gateFlags
	purge      bool
	quiet      bool
	form       string
	digestFile string
	ifMatch    string
}

func newPush(e *env) *cobra.Command {
	var p pushFlags
	cmd := &cobra.Command{
		Use:   "push [flags] LIST [DEST...]",
		Short: "Push a draft, or any name in the store",
		Long: draftText + "\n\n" +
			"push brings LIST with everything it names to its own name in a registry, or to every DEST: references of registries,\n" +
			"oci:DIR[:TAG], oci-archive:FILE[:TAG]. Layers and manifests come first and tags last, when every destination has\n" +
			"everything. Layers that lie in the same registry are mounted. The digest goes to stdout.",
		Example: "  manifestctl push registry.example/app:1.0\n" +
			"  manifestctl push -p app:1.0 registry.example/app:1.0 registry.example/app:latest",
		Args: positional(1, 1<<20, "LIST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			e.globals.silent = p.quiet
			list, err := listName(args[0])
			if err != nil {
				return err
			}
			to, err := parseRefs(args[1:])
			if err != nil {
				return err
			}
			return e.push(cmd.Context(), list, to, &p, cmd.Flags().Changed("format"))
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&p.purge, "purge", "p", false, "remove the draft when it is pushed")
	f.BoolVar(&p.purge, "rm", false, "podman's spelling of --purge")
	f.Lookup("rm").Hidden = true
	f.StringVarP(&p.form, "format", "f", "", "`FORMAT` oci or docker: the form of the index, instead of its own")
	f.StringVar(&p.digestFile, "digestfile", "", "`FILE` write the digest to it")
	f.StringVar(&p.ifMatch, "if-match", "", "`DIGEST|none` only if the tag points at this, or does not exist; else exit code 5")
	f.BoolVarP(&p.quiet, "quiet", "q", false, "do not tell what was moved")
	p.gate.add(f)
	allFlag(f)
	return cmd
}

func (e *env) push(ctx context.Context, list ref.Ref, to []ref.Ref, p *pushFlags, convert bool) error {
	o := draft.PushOptions{Purge: p.purge, Stdout: e.stdout, Now: e.now}
	docker, err := formOf(p.form)
	if err != nil {
		return err
	}
	switch {
	case convert && docker:
		o.Form = draft.Docker
	case convert:
		o.Form = draft.OCI
	}
	if o.Condition, err = transfer.ParseCondition(p.ifMatch); err != nil {
		return err
	}
	return e.withDrafts(ctx, store.Options{}, func(d *draft.Drafts) error {
		gate, err := p.gate.open(ctx, e, d.Store)
		if err != nil {
			return err
		}
		if gate != nil {
			o.Check = gate.image
		}
		desc, report, err := d.Push(ctx, list, to, o)
		if err != nil {
			return err
		}
		e.notes(report.Notes)
		if !p.quiet {
			e.note("pushed %s and %s (%s), %d mounted, %d were there", count(report.Manifests, "manifest"), count(report.Blobs, "blob"),
				bytesText(report.Bytes), report.Mounted, report.Skipped)
		}
		if p.digestFile != "" {
			if err := writeFile(p.digestFile, []byte(desc.Digest)); err != nil {
				return err
			}
		}
		return e.println(desc.Digest)
	})
}
