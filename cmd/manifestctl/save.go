package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// saveFlags are what save can be told.
type saveFlags struct {
	transferFlags
	output      string
	since       []string
	lock        string
	noReferrers bool
	json        bool
	format      string
}

func newSave(e *env) *cobra.Command {
	var s saveFlags
	cmd := &cobra.Command{
		Use:   "save [flags] -o FILE REF...",
		Short: "Write images with everything they reach into one archive, to carry it elsewhere",
		Long: "save writes what every REF names (an image or an index, in a registry, the store, a layout or an archive), with all\n" +
			"children, layers, signatures, SBOMs and other referrers, into one archive: an OCI layout in a tar, which skopeo and\n" +
			"podman read too. The same images give the same bytes. `load` brings it to where it is going.\n\n" +
			"With --since, what an older archive brought is left out: it takes that archive, or the lock written with it by\n" +
			"--lock. A run that was interrupted is taken up where it stopped. `-o -` writes to standard output.",
		Example: "  manifestctl save -o apps.tar registry.example/app:1.0 registry.example/db:15\n" +
			"  manifestctl save -o apps.tar --lock apps.lock --platform linux/arm64 registry.example/app:1.0\n" +
			"  manifestctl save -o update.tar --since apps.lock --lock apps.lock registry.example/app:1.1",
		Args: positional(1, 1<<20, "at least one REF"),
		RunE: func(cmd *cobra.Command, args []string) error {
			refs, err := parseRefs(args)
			if err != nil {
				return err
			}
			return e.save(cmd.Context(), refs, &s)
		},
	}
	f := cmd.Flags()
	s.transferFlags.addWithout(f, "if-match")
	f.StringVarP(&s.output, "output", "o", "", "`FILE` the archive; - is standard output")
	f.StringArrayVar(&s.since, "since", nil, "`ARCHIVE|LOCK` leave out what it holds; may be given several times")
	f.StringVar(&s.lock, "lock", "", "`FILE` write what the other side will have, for the next --since")
	f.BoolVarP(&s.options.AllTags, "all-tags", "a", false, "every tag of each REF's repository")
	f.BoolVar(&s.noReferrers, "no-referrers", false, "without signatures, SBOMs and other referrers")
	f.BoolVar(&s.options.AllLayers, "all-layers", false, "layers that are not to be distributed as well")
	f.BoolVar(&s.json, "json", false, "print a report as JSON to stdout instead of the digests")
	f.BoolVarP(&e.globals.silent, "quiet", "q", false, "no progress and no summary")
	f.StringVar(&s.format, "format", "", "podman's: oci-archive")
	f.Lookup("format").Hidden = true
	return cmd
}

func (e *env) save(ctx context.Context, refs []ref.Ref, s *saveFlags) error {
	switch {
	case s.output == "":
		return usagef("save needs -o FILE (or -o - for standard output)")
	case s.format == "docker-archive":
		return usagef("--format docker-archive").withHint("`manifestctl copy --platform OS/ARCH REF docker-archive:FILE` writes what docker load reads")
	case s.format != "" && s.format != "oci-archive":
		return usagef("--format %q: want oci-archive", s.format)
	}
	o, err := s.parse()
	if err != nil {
		return err
	}
	if s.noReferrers {
		o.Referrers = transfer.NoReferrers
	}
	return e.withTransfer(ctx, refs, nil, func(env transfer.Env) error {
		so := transfer.SaveOptions{Options: o}
		for _, path := range s.since {
			c, err := transfer.ReadSince(ctx, env, path)
			if err != nil {
				return err
			}
			so.Since = append(so.Since, c)
		}
		saved, err := transfer.Save(ctx, env, refs, s.output, so)
		if err != nil {
			return err
		}
		if s.lock != "" && !o.DryRun {
			raw, err := saved.Contents.Encode()
			if err != nil {
				return err
			}
			if err := writeFile(s.lock, append(raw, '\n')); err != nil {
				return err
			}
		}
		return e.saved(saved, s, o.DryRun)
	})
}

// saved tells what save did, or would do.
func (e *env) saved(saved transfer.Saved, s *saveFlags, dry bool) error {
	for _, n := range saved.Notes {
		e.note("note: %s", n)
	}
	verb := "wrote"
	if dry {
		verb = "would write"
	}
	if !e.globals.silent || dry {
		text := fmt.Sprintf("%s %s: %s and %s, %s in all", verb, s.output, count(saved.Manifests, "manifest"), count(saved.Blobs, "blob"), bytesText(saved.Size))
		if saved.Base > 0 {
			text += fmt.Sprintf("; %s left out, which the other side has", count(saved.Base, "blob"))
		}
		if saved.Resumed > 0 {
			text += fmt.Sprintf("; %s were there of an earlier attempt", bytesText(saved.Resumed))
		}
		e.note("%s", text)
	}
	if s.output == "-" {
		return nil
	}
	if s.json {
		return e.printJSON(saved)
	}
	for _, r := range saved.Roots {
		if err := e.println(r.Digest); err != nil {
			return err
		}
	}
	return nil
}
