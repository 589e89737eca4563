package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/stage"
	"github.com/manifestctl/manifestctl/pkg/tags"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

func newTags(e *env) *cobra.Command {
	var all, full, asJSON bool
	cmd := &cobra.Command{
		Use:   "tags [flags] REPO",
		Short: "List the tags of a repository, a layout or an archive",
		Long: "tags lists the tags of HOST[:PORT]/REPO, store:NAME, oci:DIR or oci-archive:FILE in lexical order, without those that\n" +
			"are no images: signatures and the like under the digest that they are about, and marks of concurrent merges, stages.",
		Args: positional(1, 1, "REPO"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := e.readRef(args[0])
			if err != nil {
				return err
			}
			return e.withOpener(cmd.Context(), r, func(o *source.Opener) error {
				list, err := o.Tags(cmd.Context(), r)
				if err != nil {
					return err
				}
				out := []string{}
				for _, t := range list {
					if _, _, related := source.RelatedTag(t); !all && (related || transfer.IsMarker(t) || stage.IsTag(t)) {
						continue
					}
					if full {
						t = r.WithTag(t).String()
					}
					out = append(out, t)
				}
				if asJSON {
					return e.printJSON(out)
				}
				for _, t := range out {
					if err := e.println(escape(t)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "those too that are no images")
	cmd.Flags().BoolVar(&full, "full-ref", false, "print HOST/REPO:TAG")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON list")
	cmd.Flags().BoolP("omit-digest-tags", "O", true, "crane's spelling of what is done anyway")
	cmd.Flags().Lookup("omit-digest-tags").Hidden = true
	return cmd
}

func newTag(e *env) *cobra.Command {
	var ifMatch string
	cmd := &cobra.Command{
		Use:   "tag [flags] REF TAG...",
		Short: "Give what a reference names other tags",
		Long: "tag gives the index or image that REF names other tags in the same repository, layout or store: TAG is a tag alone, or a\n" +
			"whole reference in the same place. To another place see `copy`.",
		Example: "  manifestctl tag registry.example/app:1.0 latest stable\n" +
			"  manifestctl tag registry.example/app@sha256:... registry.example/app:1.0\n" +
			"  manifestctl tag store:app:1.0 registry.example/app:1.0",
		Args: positional(2, 1<<20, "REF and TAGs"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := ref.Parse(args[0])
			if err != nil {
				return err
			}
			var to []ref.Ref
			for _, a := range args[1:] {
				name, err := newName(r, a)
				if err != nil {
					return err
				}
				to = append(to, name)
			}
			condition, err := transfer.ParseCondition(ifMatch)
			if err != nil {
				return err
			}
			return e.withTransfer(cmd.Context(), []ref.Ref{r}, to, func(env transfer.Env) (err error) {
				opener := &source.Opener{Registry: env.Registry, Store: env.Store}
				img, err := opener.Open(cmd.Context(), r)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, img.Close()) }()
				root := transfer.Root{Desc: img.Root(), From: img, Names: to}
				if _, err := transfer.Move(cmd.Context(), env, []transfer.Root{root}, transfer.Options{Condition: condition}); err != nil {
					return err
				}
				return e.println(img.Root().Digest)
			})
		},
	}
	cmd.Flags().StringVar(&ifMatch, "if-match", "", "`DIGEST|none` only if the tag points at this, or does not exist; else exit code 5")
	return cmd
}

// newName is what TAG means beside r.
func newName(r ref.Ref, arg string) (ref.Ref, error) {
	if !strings.ContainsAny(arg, "/:@") && r.Kind != ref.Store {
		if err := ref.CheckTag(arg); err != nil {
			return r, err
		}
		return r.WithTag(arg), nil
	}
	if r.Kind == ref.Store && !strings.HasPrefix(arg, "store:") {
		n, err := ref.ParseTag(arg)
		if err != nil {
			return r, err
		}
		return draftRef(n)
	}
	n, err := ref.Parse(arg)
	switch {
	case err != nil:
		return n, err
	case n.Digest != "":
		return n, usagef("%q: a tag cannot have a digest", arg)
	case n.Kind == ref.Store && r.Kind == ref.Store:
	case n.WithTag("") != r.WithTag(""):
		return n, usagef("%q is not in the same place as %q", arg, r).withHint("`manifestctl copy` copies to another place")
	}
	return n, nil
}

func newDelete(e *env) *cobra.Command {
	var force, ignore bool
	cmd := &cobra.Command{
		Use:   "delete [flags] REF...",
		Short: "Delete a tag, or a manifest, from a registry",
		Long: "delete with REPO:TAG deletes the tag and nothing else, also in registries that can delete only whole manifests.\n" +
			"With REPO@DIGEST it deletes the manifest; one that a tag reaches, directly or as a platform of an index, only with\n" +
			"--force: the tag would be broken. Names in the store are removed by `rm`.",
		Example: "  manifestctl delete registry.example/app:old\n" +
			"  manifestctl delete registry.example/app@sha256:...",
		Args: positional(1, 1<<20, "REF"),
		RunE: func(cmd *cobra.Command, args []string) error {
			refs, err := parseRefs(args)
			if err != nil {
				return err
			}
			for i, r := range refs {
				if r.Kind != ref.Registry {
					return usagef("%q is not in a registry", args[i]).withHint("`manifestctl rm` removes names from the store")
				}
				if r.Digest == "" && !strings.Contains(args[i][strings.LastIndexByte(args[i], '/')+1:], ":") {
					return usagef("%q names neither a tag nor a digest", args[i]).withHint("write %s:TAG", args[i])
				}
			}
			client := registry.New(e.registry())
			defer client.Close()
			var errs []error
			for _, r := range refs {
				if err := tags.Delete(cmd.Context(), client, r, force); err != nil && !(ignore && errors.Is(err, registry.ErrNotFound)) {
					errs = append(errs, err)
				}
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "delete a manifest that tags reach, and break them")
	cmd.Flags().BoolVarP(&ignore, "ignore", "i", false, "it is no error when there is nothing to delete")
	return cmd
}
