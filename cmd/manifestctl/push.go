package main

import (
	"context"
	"errors"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/draft"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// pushFlags are what push can be told.
type pushFlags struct {
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
	allFlag(f)
	e.tlsVerify(f)
	return cmd
}

func (e *env) push(ctx context.Context, list ref.Ref, to []ref.Ref, p *pushFlags, convert bool) error {
	docker, err := formOf(p.form)
	if err != nil {
		return err
	}
	condition, err := transfer.ParseCondition(p.ifMatch)
	if err != nil {
		return err
	}
	from, err := draftRef(list)
	if err != nil {
		return err
	}
	if len(to) == 0 {
		self, err := ref.ParseTag(from.Familiar())
		if err != nil {
			return err
		}
		to = []ref.Ref{self}
	}
	return e.withDrafts(ctx, store.Options{}, func(d *draft.Drafts) (err error) {
		img, err := d.Opener.Open(ctx, from)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, img.Close()) }()
		root := transfer.Root{Desc: img.Root(), From: img, Names: to}
		if root.Raw, err = img.Manifest(ctx, root.Desc); err != nil {
			return err
		}
		pinned := root.Desc.Digest
		if convert {
			notes, err := convertRoot(&root, docker)
			if err != nil {
				return err
			}
			e.notes(notes)
		}
		if index.IsIndex(root.Desc.MediaType) {
			parts, err := d.Parts(ctx, img, root.Raw, to)
			if err != nil {
				return err
			}
			root.Parts = make(map[digest.Digest]transfer.Source, len(parts))
			for m, part := range parts {
				root.Parts[m] = part
			}
		} else if part, ok, err := d.Part(img, root.Desc.Digest, to); err != nil {
			return err
		} else if ok {
			root.From = part
		}
		env := transfer.Env{Registry: d.Opener.Registry, Store: d.Store, Stdout: e.stdout, Now: e.now}
		report, err := transfer.Move(ctx, env, []transfer.Root{root}, transfer.Options{Condition: condition})
		if err != nil {
			return err
		}
		e.notes(report.Notes)
		if !p.quiet {
			e.note("pushed %d manifests and %d blobs (%s), mounted %d, %d were there",
				report.Manifests, report.Blobs, bytesText(report.Bytes), report.Mounted, report.Skipped)
		}
		if p.digestFile != "" {
			if err := writeFile(p.digestFile, []byte(root.Desc.Digest.String())); err != nil {
				return err
			}
		}
		if p.purge {
			if err := e.purge(ctx, d, from, pinned); err != nil {
				return err
			}
		}
		return e.println(root.Desc.Digest)
	})
}

// convertRoot gives an index the other form.
func convertRoot(root *transfer.Root, docker bool) ([]string, error) {
	if !index.IsIndex(root.Desc.MediaType) {
		return nil, usagef("--format is of an index, and this is a single image")
	}
	x, err := index.Edit(root.Raw)
	if err != nil {
		return nil, err
	}
	if err := x.Convert(docker); err != nil {
		return nil, err
	}
	root.Desc, root.Raw, err = x.Finish()
	return x.Notes(), err
}

// purge removes a draft if it still is what was pushed.
func (e *env) purge(ctx context.Context, d *draft.Drafts, from ref.Ref, pushed digest.Digest) error {
	err := d.Store.RemoveRef(ctx, from.Familiar(), pushed)
	if errors.Is(err, store.ErrConflict) {
		e.note("%s was changed while it was pushed: the draft stays", from.Familiar())
		return nil
	}
	return err
}

var _ transfer.Source = source.Image(nil)
