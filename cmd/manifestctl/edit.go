package main

import (
	"context"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/pkg/edit"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// editText is what the help of every command that edits images says.
const editText = "REF and NEW are HOST[:PORT]/REPO[:TAG][@DIGEST], store:NAME[:TAG], oci:DIR[:TAG], oci-archive:FILE[:TAG] or\n" +
	"docker-archive:FILE[:TAG]. Of an index every image is changed, or those of --platform, and the index with them: its\n" +
	"order, its annotations and whatever else it says stay, and so do the fields of manifests and configs that nothing was\n" +
	"said about. Attestations and referrers are made to describe what their images became; signatures are not, for they\n" +
	"would be wrong. Nothing takes the time from the clock: equal edits give equal digests. The digest is printed."

// editFlags are the flags of every command that edits images.
type editFlags struct {
	transferFlags
	tags        []string
	inPlace     bool
	annotations []string
	remove      []string
	form        string
	metadata    string
	referrers   bool
}

func (d *editFlags) add(e *env, f *pflag.FlagSet) {
	f.StringArrayVarP(&d.tags, "tag", "t", nil, "`NEW` where the result goes; may be repeated")
	f.BoolVar(&d.inPlace, "replace", false, "the result takes the place of REF, unless somebody else changes it meanwhile")
	d.transferFlags.add(f)
	f.StringArrayVarP(&d.annotations, "annotation", "a", nil, "`[LEVEL[[PLATFORM]]:]KEY=VALUE` LEVEL is manifest (default), index, index-descriptor or manifest-descriptor; may be repeated")
	f.StringArrayVar(&d.remove, "remove-annotation", nil, "`[LEVEL[[PLATFORM]]:]KEY` take one away; may be repeated")
	f.StringVar(&d.form, "format", "", "`oci|docker` of manifests and index (default what they are)")
	f.BoolVarP(&e.globals.silent, "quiet", "q", false, "no progress and no summary")
	f.StringVar(&d.metadata, "metadata-file", "", "`FILE` write digest and descriptor as JSON")
	f.BoolVar(&d.referrers, "referrers", true, "what refers to an image refers to what it becomes")
	f.StringArrayVar(&d.tags, "create", nil, "regctl's spelling of --tag")
	f.Lookup("create").Hidden = true
}

// parse makes options, source and destinations of the flags.
func (d *editFlags) parse(arg string) (o edit.Options, src ref.Ref, names []ref.Ref, err error) {
	if o.Options, err = d.transferFlags.parse(); err != nil {
		return o, src, nil, err
	}
	if src, err = ref.Parse(arg); err != nil {
		return o, src, nil, err
	}
	if names, err = parseRefs(d.tags); err != nil {
		return o, src, nil, err
	}
	switch {
	case len(names) == 0 && !d.inPlace:
		return o, src, nil, usagef("there is no destination: give -t NEW").withHint("--replace puts the result in the place of %s", arg)
	case d.inPlace && src.Digest != "":
		return o, src, nil, usagef("--replace: %s is named by its digest, which is another afterwards", arg)
	case d.inPlace:
		names = append(names, src)
	}
	if o.Annotations, err = editAnnotations("annotation", d.annotations, ""); err != nil {
		return o, src, nil, err
	}
	if o.Unannotate, err = editAnnotations("remove-annotation", d.remove, "="); err != nil {
		return o, src, nil, err
	}
	if d.form != "" {
		docker, err := formOf(d.form)
		if err != nil {
			return o, src, nil, err
		}
		if o.Form = edit.OCI; docker {
			o.Form = edit.Docker
		}
	}
	o.NoReferrers = !d.referrers
	return o, src, names, nil
}

// editAnnotations reads annotations; without a level they are the manifests', as crane's and regctl's are. regctl's form
// [PLATFORM]KEY=VALUE is understood, and [*] for the index.
func editAnnotations(flag string, values []string, end string) ([]transfer.Annotation, error) {
	var out []transfer.Annotation
	for _, v := range values {
		text := v + end
		key, _, _ := strings.Cut(text, "=")
		switch where, rest, ok := strings.Cut(strings.TrimPrefix(text, "["), "]"); {
		case strings.HasPrefix(text, "[") && ok && where == "*":
			text = string(transfer.LevelIndex) + "," + string(transfer.LevelManifest) + ":" + rest
		case strings.HasPrefix(text, "[") && ok:
			var levels []string
			for p := range strings.SplitSeq(where, ",") {
				levels = append(levels, string(transfer.LevelManifest)+"["+p+"]")
			}
			text = strings.Join(levels, ",") + ":" + rest
		default:
			if list, err := transfer.ParseAnnotation(text); err == nil && len(list) == 1 && list[0].Key == key {
				text = string(transfer.LevelManifest) + ":" + text // no level was given
			}
		}
		list, err := transfer.ParseAnnotation(text)
		if err != nil {
			return nil, usagef("--%s: %w", flag, err)
		}
		out = append(out, list...)
	}
	return out, nil
}

// edited runs an edit and prints what it made.
func (e *env) edited(ctx context.Context, d *editFlags, arg string, more []ref.Ref,
	f func(env transfer.Env, src ref.Ref, names []ref.Ref, o edit.Options) (edit.Result, error),
) error {
	o, src, names, err := d.parse(arg)
	if err != nil {
		return err
	}
	writes := names
	if o.DryRun {
		writes = nil
	}
	return e.withTransfer(ctx, append([]ref.Ref{src}, more...), writes, func(env transfer.Env) error {
		if d.inPlace && src.Kind == ref.Registry && len(names) == 1 && o.Condition.IsZero() {
			now, err := env.Registry.Resolve(ctx, src)
			if err != nil {
				return err
			}
			o.Condition.Match = now.Digest
			src.Digest = now.Digest // what is edited is what is replaced
		}
		res, err := f(env, src, names, o)
		if err != nil {
			return err
		}
		e.reported(res.Report, o.DryRun)
		if o.DryRun {
			_, err := e.stdout.Write(append(res.Raw, '\n'))
			return err
		}
		if err := writeMetadata(d.metadata, res.Desc, names); err != nil {
			return err
		}
		for _, n := range names {
			if n.Path == "-" {
				return nil // the archive is there
			}
		}
		return e.println(res.Desc.Digest)
	})
}

// configSpellings are regctl's and buildah's names of flags, and ours.
var configSpellings = map[string]string{
	"config-entrypoint": "entrypoint", "config-cmd": "cmd", "config-platform": "set-platform", "time": "created", "expose-add": "exposed-ports",
	"expose-rm": "unset-ports", "volume-add": "volume", "volume-rm": "unset-volume", "unsetenv": "unset-env", "unsetlabel": "unset-label",
	"workingdir": "workdir", "port": "exposed-ports",
}

// compressionFlag is how layers that are made are compressed.
func compressionFlag(f *pflag.FlagSet) *string {
	return f.String("compression", "gzip", "`gzip|zstd|uncompressed[:LEVEL]` of what is not compressed already")
}

func parseCompression(s string) (layer.Compression, error) {
	algorithm, level, _ := strings.Cut(s, ":")
	c, err := layer.ParseCompression(algorithm, level)
	if err != nil {
		return c, usagef("--compression: %w", err)
	}
	return c, nil
}

func newAppend(e *env) *cobra.Command {
	var d editFlags
	var c configFlags
	var base string
	var files []string
	var compression *string
	cmd := &cobra.Command{
		Use:   "append [flags] REF LAYER.tar... -t NEW",
		Short: "Add layers to an image, or to every image of an index",
		Long: "append puts layers, tars in any compression, on top of images; - is the standard input. Each is checked as a layer\n" +
			"first.\n\n" + editText,
		Example: "  manifestctl append registry.example/app:1.0 certs.tar -t registry.example/app:1.0-certs\n" +
			"  tar c -C dir . | manifestctl append --platform linux/arm64 oci:app:1.0 - -t oci:app:1.1",
		Args: positional(0, 1<<20, "REF and LAYER.tar"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			args = slices.Concat(strings.Fields(base), args)
			args = append(args, files...)
			if len(args) < 2 {
				return usagef("%s needs REF and LAYER.tar", cmd.CommandPath()).withHint("usage: %s", useLine(cmd))
			}
			var o edit.AppendOptions
			if o.Compression, err = parseCompression(*compression); err != nil {
				return err
			}
			if o.Change, err = c.parse(cmd.Flags()); err != nil {
				return err
			}
			layers := args[1:]
			for i, l := range layers {
				if l != "-" {
					continue
				}
				path, err := edit.Spool("", e.stdin)
				if path != "" {
					defer os.Remove(path)
				}
				if err != nil {
					return err
				}
				layers[i] = path
			}
			return e.edited(cmd.Context(), &d, args[0], nil, func(env transfer.Env, src ref.Ref, names []ref.Ref, all edit.Options) (edit.Result, error) {
				o.Options = all
				return edit.Append(cmd.Context(), env, src, names, layers, o)
			})
		},
	}
	f := cmd.Flags()
	d.add(e, f)
	compression = compressionFlag(f)
	c.add(f)
	// crane's spellings.
	f.StringVarP(&base, "base", "b", "", "REF")
	f.StringArrayVarP(&files, "new_layer", "f", nil, "LAYER.tar")
	f.StringArrayVar(&d.tags, "new_tag", nil, "NEW")
	hide(f, "base", "new_layer", "new_tag")
	return cmd
}

func hide(f *pflag.FlagSet, names ...string) {
	for _, n := range names {
		f.Lookup(n).Hidden = true
	}
}

func newFlatten(e *env) *cobra.Command {
	var d editFlags
	var compression *string
	cmd := &cobra.Command{
		Use:   "flatten [flags] REF -t NEW",
		Short: "Make one layer of all layers of an image, or of every image of an index",
		Long:  "flatten writes what a container would see as one layer.\n\n" + editText,
		Example: "  manifestctl flatten registry.example/app:1.0 -t registry.example/app:1.0-flat\n" +
			"  manifestctl flatten --compression zstd oci:app:1.0 -t oci:app:flat",
		Args: positional(1, 1, "REF"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			var o edit.FlattenOptions
			if o.Compression, err = parseCompression(*compression); err != nil {
				return err
			}
			return e.edited(cmd.Context(), &d, args[0], nil, func(env transfer.Env, src ref.Ref, names []ref.Ref, all edit.Options) (edit.Result, error) {
				o.Options = all
				return edit.Flatten(cmd.Context(), env, src, names, o)
			})
		},
	}
	d.add(e, cmd.Flags())
	compression = compressionFlag(cmd.Flags())
	return cmd
}

func newRebase(e *env) *cobra.Command {
	var d editFlags
	var from, to string
	cmd := &cobra.Command{
		Use:   "rebase [flags] REF --old-base OLD --new-base NEW -t NEW",
		Short: "Put an image, or every image of an index, on another base",
		Long: "rebase puts the layers of a new base in the place of those of the old one. Each image gets the bases of its platform,\n" +
			"and must be built on the old one. Without --new-base it is the name in the annotation\n" +
			"org.opencontainers.image.base.name, and without --old-base the digest in org.opencontainers.image.base.digest.\n\n" + editText,
		Example: "  manifestctl rebase registry.example/app:1.0 --old-base debian:12.1 --new-base debian:12.2 -t registry.example/app:1.0-r1",
		Args:    positional(1, 1, "REF"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var o edit.RebaseOptions
			var more []ref.Ref
			for _, b := range []struct {
				text string
				to   **ref.Ref
			}{{from, &o.Old}, {to, &o.New}} {
				if b.text == "" {
					continue
				}
				r, err := ref.Parse(b.text)
				if err != nil {
					return err
				}
				*b.to = &r
				more = append(more, r)
			}
			return e.edited(cmd.Context(), &d, args[0], more, func(env transfer.Env, src ref.Ref, names []ref.Ref, all edit.Options) (edit.Result, error) {
				o.Options = all
				return edit.Rebase(cmd.Context(), env, src, names, o)
			})
		},
	}
	f := cmd.Flags()
	d.add(e, f)
	f.StringVar(&from, "old-base", "", "`REF` what the image is built on now")
	f.StringVar(&to, "new-base", "", "`REF` what it is to be built on")
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(strings.ReplaceAll(name, "_base", "-base")) // crane's spelling
	})
	return cmd
}
