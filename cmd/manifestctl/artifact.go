package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/pkg/draft"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// artifactFlags say what files are that become an artifact, as podman has them.
type artifactFlags struct {
	artifact    bool
	subject     string
	annotations []string
	what        draft.Artifact
}

func (a *artifactFlags) add(f *pflag.FlagSet) {
	f.BoolVar(&a.artifact, "artifact", false, "the SOURCEs are files, which become an artifact")
	f.StringVar(&a.what.Type, "artifact-type", "", "`TYPE` what the artifact is")
	f.StringVar(&a.what.ConfigFile, "artifact-config", "", "`FILE` its config (default an empty one)")
	f.StringVar(&a.what.ConfigType, "artifact-config-type", "", "`TYPE` of its config")
	f.StringVar(&a.what.LayerType, "artifact-layer-type", "", "`TYPE` of its files (default application/octet-stream)")
	f.StringVar(&a.subject, "artifact-subject", "", "`REF` the image or index that it is about")
	f.StringArrayVar(&a.annotations, "artifact-annotation", nil, "`KEY=VALUE` an annotation of its manifest; may be repeated")
	f.BoolVar(&a.what.NoTitles, "artifact-exclude-titles", false, "leave out the names of the files")
}

// addArtifact adds files to a draft as an artifact.
func (e *env) addArtifact(cmd *cobra.Command, list ref.Ref, files []string, a *artifactFlags, annotations []string, p *platformFlags) error {
	ctx := cmd.Context()
	var err error
	if a.what.Annotations, err = keyValues("artifact-annotation", a.annotations, nil); err != nil {
		return err
	}
	set, err := keyValues("annotation", annotations, nil)
	if err != nil {
		return err
	}
	return e.withDrafts(ctx, store.Options{}, func(d *draft.Drafts) error {
		if _, err := d.Get(ctx, list); err != nil { // before anything is put into the store
			return err
		}
		if a.subject != "" {
			if a.what.Subject, err = e.describe(ctx, d, a.subject); err != nil {
				return err
			}
		}
		src, err := d.TakeFiles(ctx, files, a.what)
		if err != nil {
			return err
		}
		entry := src.Entries[0]
		if entry, err = entry.SetPlatform(p.patch(cmd.Flags())); err != nil {
			return err
		}
		if entry, err = entry.Annotate(set); err != nil {
			return err
		}
		src.Entries[0] = entry
		made, notes, err := d.Update(ctx, list, draft.Adding([]draft.Source{src}, false))
		if err != nil {
			return err
		}
		e.notes(notes)
		return e.println(made.Desc.Digest)
	})
}
