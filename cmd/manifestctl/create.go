package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/pkg/draft"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// sourceText explains what a source is.
const sourceText = "A SOURCE is an image or an index: HOST[:PORT]/REPO[:TAG][@DIGEST], store:NAME[:TAG], oci:DIR[:TAG][@DIGEST],\n" +
	"oci-archive:FILE[:TAG] or docker-archive:FILE[:TAG]. It is pinned by its digest; an index is taken apart. Layers in\n" +
	"registries stay there until the push. The platform is the one in the index, else in the config; that they contradict\n" +
	"each other is an error."

// takeFlags say what of the sources is taken.
type takeFlags struct {
	platforms []string
	nested    bool
	replace   bool
}

func (t *takeFlags) add(e *env, f *pflag.FlagSet) {
	f.StringSliceVar(&t.platforms, "platform", nil, "`OS/ARCH[/VARIANT],...` of indexes only these platforms; linux/* is a pattern")
	f.BoolVar(&t.nested, "nested", false, "an index stays whole, as one entry, and is not taken apart")
	f.BoolVar(&t.replace, "replace-platform", false, "a new image for a platform takes the place of the old one")
	allFlag(f)
}

func (t *takeFlags) options() (draft.TakeOptions, error) {
	if t.nested && len(t.platforms) > 0 {
		return draft.TakeOptions{}, usagef("--nested and --platform exclude each other: an index that stays whole keeps its platforms")
	}
	return draft.TakeOptions{Platforms: t.platforms, Nested: t.nested}, nil
}

func newCreate(e *env) *cobra.Command {
	var take takeFlags
	var o draft.CreateOptions
	var annotations []string
	var fromDocker bool
	var form string
	cmd := &cobra.Command{
		Use:   "create [flags] LIST [SOURCE...]",
		Short: "Make a draft of an index from images",
		Long:  draftText + "\n\n" + sourceText,
		Example: "  manifestctl create registry.example/app:1.0 registry.example/app:1.0-amd64 oci:arm64\n" +
			"  manifestctl annotate registry.example/app:1.0 linux/arm64 --variant v8\n" +
			"  manifestctl push -p registry.example/app:1.0",
		Args: positional(1, 1<<20, "LIST and SOURCEs"),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := listName(args[0])
			if err != nil {
				return err
			}
			refs, err := parseRefs(args[1:])
			if err != nil {
				return err
			}
			if o.Docker, err = formOf(form); err != nil {
				return err
			}
			if o.Annotations, err = keyValues("annotation", annotations, nil); err != nil {
				return err
			}
			if o.Amend && o.Replace {
				return usagef("--amend and --replace exclude each other")
			}
			opts, err := take.options()
			if err != nil {
				return err
			}
			o.ReplacePlatform = take.replace
			return e.withDrafts(cmd.Context(), store.Options{}, func(d *draft.Drafts) error {
				var sources []draft.Source
				if fromDocker {
					dir, err := e.dockerConfig()
					if err != nil {
						return err
					}
					if sources, err = d.FromDocker(cmd.Context(), dir, list); err != nil {
						return err
					}
				}
				more, err := d.Take(cmd.Context(), refs, opts)
				if err != nil {
					return err
				}
				made, notes, err := d.Create(cmd.Context(), list, append(sources, more...), o)
				if err != nil {
					return err
				}
				e.notes(notes)
				return e.println(made.Desc.Digest)
			})
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.Amend, "amend", "a", false, "add to the draft if it exists")
	f.BoolVar(&o.Replace, "replace", false, "make the draft anew if it exists")
	f.StringArrayVar(&annotations, "annotation", nil, "`KEY=VALUE` an annotation of the index; may be repeated")
	f.StringVar(&form, "format", "oci", "`FORMAT` oci (default), or docker: a Docker manifest list")
	f.BoolVar(&fromDocker, "import-docker", false, "take over the draft that `docker manifest create` made under this name")
	take.add(e, f)
	return cmd
}

// formOf reads --format of commands that write an index; docker's and podman's names of the forms are understood.
func formOf(s string) (docker bool, err error) {
	switch s {
	case "", "oci":
		return false, nil
	case "docker", "v2s2":
		return true, nil
	}
	return false, usagef("--format %q: want oci or docker", s)
}

func newAdd(e *env) *cobra.Command {
	var take takeFlags
	var p platformFlags
	var annotations []string
	var a artifactFlags
	cmd := &cobra.Command{
		Use:   "add [flags] LIST SOURCE...",
		Short: "Add images to a draft",
		Long: draftText + "\n\n" + sourceText + "\n\n" +
			"--os, --arch and --variant say what a single image is, instead of its config; of an index they choose entries.\n\n" +
			"With --artifact the SOURCEs are files, and become one artifact.",
		Example: "  manifestctl add app:1.0 registry.example/app:1.0-s390x\n" +
			"  manifestctl add --arch arm --variant v6 app:1.0 docker-archive:app-armv6.tar",
		Args: positional(2, 1<<20, "LIST and SOURCEs"),
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := listName(args[0])
			if err != nil {
				return err
			}
			if a.artifact {
				return e.addArtifact(cmd, list, args[1:], &a, annotations, &p)
			}
			refs, err := parseRefs(args[1:])
			if err != nil {
				return err
			}
			opts, err := take.options()
			if err != nil {
				return err
			}
			opts.Platform = p.patch(cmd.Flags())
			if opts.Annotations, err = keyValues("annotation", annotations, nil); err != nil {
				return err
			}
			return e.addTo(cmd, list, refs, opts, take.replace)
		},
	}
	p.add(cmd.Flags())
	cmd.Flags().StringArrayVar(&annotations, "annotation", nil, "`KEY=VALUE` an annotation of the new entries; may be repeated")
	a.add(cmd.Flags())
	take.add(e, cmd.Flags())
	return cmd
}

func (e *env) addTo(cmd *cobra.Command, list ref.Ref, refs []ref.Ref, o draft.TakeOptions, replace bool) error {
	ctx := cmd.Context()
	return e.withDrafts(ctx, store.Options{}, func(d *draft.Drafts) error {
		if _, err := d.Get(ctx, list); err != nil { // before anything is fetched
			return err
		}
		sources, err := d.Take(ctx, refs, o)
		if err != nil {
			return err
		}
		for _, s := range sources {
			e.notes(s.Notes)
		}
		made, notes, err := d.Update(ctx, list, draft.Adding(sources, replace))
		if err != nil {
			return err
		}
		e.notes(notes)
		return e.println(made.Desc.Digest)
	})
}
