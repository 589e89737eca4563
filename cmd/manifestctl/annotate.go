package main

import (
	"context"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/pkg/draft"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// annotateFlags say what changes.
type annotateFlags struct {
	platform     platformFlags
	annotations  []string
	remove       []string
	whole        bool // podman's --index
	subject      string
	artifactType string
}

func newAnnotate(e *env) *cobra.Command {
	var a annotateFlags
	cmd := &cobra.Command{
		Use:   "annotate [flags] LIST [PLATFORM|DIGEST|SOURCE]",
		Short: "Change what a draft says of itself, or of one entry",
		Long: draftText + "\n\n" +
			"With an entry, named by its platform, its digest or the source that it was made from, the flags change the entry;\n" +
			"without, the index. An empty value removes: --variant=\"\". Everything else in the index stays as it is.",
		Example: "  manifestctl annotate app:1.0 linux/arm64 --variant v8\n" +
			"  manifestctl annotate --os windows --arch amd64 --os-version 10.0.17763.1 app:1.0 registry.example/app:win\n" +
			"  manifestctl annotate --annotation org.opencontainers.image.version=1.0 app:1.0",
		Args: positional(1, 2, "LIST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := listName(args[0])
			if err != nil {
				return err
			}
			target := ""
			if len(args) == 2 {
				target = args[1]
			}
			return e.annotate(cmd.Context(), list, target, &a, cmd.Flags())
		},
	}
	f := cmd.Flags()
	a.platform.add(f)
	f.StringArrayVar(&a.annotations, "annotation", nil, "`KEY=VALUE` set an annotation; may be repeated")
	f.StringArrayVar(&a.remove, "remove-annotation", nil, "`KEY` remove an annotation; may be repeated")
	f.BoolVar(&a.whole, "index", false, "annotations are of the index, also when an entry is named")
	f.StringVar(&a.subject, "subject", "", "`REF` the image or index that this index is about; \"\" removes it")
	f.StringVar(&a.artifactType, "artifact-type", "", "`TYPE` what the index, or the entry, is if no image")
	return cmd
}

func (e *env) annotate(ctx context.Context, list ref.Ref, target string, a *annotateFlags, f *pflag.FlagSet) error {
	set, err := keyValues("annotation", a.annotations, nil)
	if err != nil {
		return err
	}
	patch := a.platform.patch(f)
	onIndex := a.whole || target == ""
	switch {
	case target == "" && !patch.IsZero():
		return usagef("--os, --arch and the like are of an entry: name one after LIST")
	case patch.IsZero() && len(set)+len(a.remove) == 0 && !f.Changed("subject") && !f.Changed("artifact-type"):
		return usagef("nothing to change").withHint("`manifestctl annotate --help` lists what can be")
	}
	var t draft.Target
	if target != "" {
		if t, err = draft.ParseTarget(target); err != nil {
			return err
		}
	}
	return e.withDrafts(ctx, store.Options{}, func(d *draft.Drafts) error {
		var subject *ocispec.Descriptor
		if a.subject != "" {
			if subject, err = e.describe(ctx, d, a.subject); err != nil {
				return err
			}
		}
		made, notes, err := d.Update(ctx, list, func(x *index.Editor) error {
			if onIndex {
				if err := x.Annotate(set, a.remove...); err != nil {
					return err
				}
			}
			if f.Changed("subject") {
				if err := x.SetSubject(subject); err != nil {
					return err
				}
			}
			if f.Changed("artifact-type") && onIndex {
				x.SetArtifactType(a.artifactType)
			}
			if target == "" {
				return nil
			}
			at, err := d.Find(ctx, x, t)
			if err != nil {
				return err
			}
			for _, i := range at {
				entry, err := x.Entries()[i].SetPlatform(patch)
				if err == nil && !onIndex {
					entry, err = entry.Annotate(set, a.remove...)
				}
				if err == nil && f.Changed("artifact-type") && !onIndex {
					entry, err = entry.SetArtifactType(a.artifactType)
				}
				if err == nil {
					err = x.Set(i, entry)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		e.notes(notes)
		return e.println(made.Desc.Digest)
	})
}

// describe resolves what a subject is.
func (e *env) describe(ctx context.Context, d *draft.Drafts, text string) (*ocispec.Descriptor, error) {
	r, err := ref.Parse(text)
	if err != nil {
		return nil, err
	}
	img, err := d.Opener.Open(ctx, r)
	if err != nil {
		return nil, err
	}
	root := img.Root()
	return &root, img.Close()
}

func newRemove(e *env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove [flags] LIST PLATFORM|DIGEST|SOURCE...",
		Short: "Remove entries from a draft, with their attestations",
		Long:  draftText,
		Args:  positional(2, 1<<20, "LIST and what to remove"),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := listName(args[0])
			if err != nil {
				return err
			}
			targets := make([]draft.Target, 0, len(args)-1)
			for _, a := range args[1:] {
				t, err := draft.ParseTarget(a)
				if err != nil {
					return err
				}
				targets = append(targets, t)
			}
			return e.withDrafts(cmd.Context(), store.Options{}, func(d *draft.Drafts) error {
				made, notes, err := d.Update(cmd.Context(), list, func(x *index.Editor) error {
					var gone []int
					for _, t := range targets {
						at, err := d.Find(cmd.Context(), x, t)
						if err != nil {
							return err
						}
						gone = append(gone, at...)
					}
					x.Remove(gone...)
					return nil
				})
				if err != nil {
					return err
				}
				e.notes(notes)
				return e.println(made.Desc.Digest)
			})
		},
	}
	return cmd
}
