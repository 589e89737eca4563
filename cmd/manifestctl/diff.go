package main

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/diff"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

func newDiff(e *env) *cobra.Command {
	var o diff.Options
	var platforms []string
	var format string
	var quiet bool
	cmd := &cobra.Command{
		Use:   "diff [flags] A B",
		Short: "Tell how two images or indexes differ",
		Long: "diff compares what A and B name, wherever they are: the platforms they have, and for each of them the manifest, the\n" +
			"config and the layers; with --files also the files that a container would see: type, mode, owner, link, extended\n" +
			"attributes and content, but no times. A layer that is only compressed in another way is shown as repacked.\n\n" +
			"The exit code is 0 when they are the same, and 4 when they differ.",
		Example: "  manifestctl diff registry.example/app:1.0 registry.example/app:1.1\n" +
			"  manifestctl diff --files --platform linux/arm64 oci:before:1 oci:after:1\n" +
			"  manifestctl diff --format json store:app:1.0 docker.io/me/app:1.0",
		Args: positional(2, 2, "A and B"),
		RunE: func(cmd *cobra.Command, args []string) error {
			asJSON, err := formatFlag(format)
			if err != nil {
				return err
			}
			refs, err := parseRefs(args)
			if err != nil {
				return err
			}
			if o.Platforms, err = parsePlatforms(platforms); err != nil {
				return err
			}
			return e.withTransfer(cmd.Context(), refs, nil, func(env transfer.Env) error {
				rep, err := e.compare(cmd, env, refs, o)
				if err != nil {
					return err
				}
				switch {
				case quiet:
				case asJSON:
					err = e.printJSON(rep)
				default:
					err = e.printDiff(rep)
				}
				if err == nil && !rep.Same {
					err = &findingsError{text: args[0] + " and " + args[1] + " differ"}
				}
				return err
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.Files, "files", false, "compare the files of the images too")
	f.StringSliceVar(&platforms, "platform", nil, "`OS/ARCH[/VARIANT],...` these only")
	f.StringVar(&format, "format", "table", "`FORMAT` table or json")
	f.BoolVarP(&quiet, "quiet", "q", false, "print nothing: the exit code says it")
	return cmd
}

func (e *env) compare(cmd *cobra.Command, env transfer.Env, refs []ref.Ref, o diff.Options) (*diff.Report, error) {
	opener := env.Opener()
	a, err := opener.Open(cmd.Context(), refs[0])
	if err != nil {
		return nil, err
	}
	defer a.Close()
	b, err := opener.Open(cmd.Context(), refs[1])
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return diff.Run(cmd.Context(), a, b, o)
}

// marks are what a line begins with, as in diff -u.
var marks = map[diff.Status]string{diff.Same: " ", diff.Changed: "~", diff.Added: "+", diff.Removed: "-", diff.Repacked: "="}

// printDiff prints a report for people.
func (e *env) printDiff(r *diff.Report) error {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	line := func(format string, a ...any) {
		text := strings.Split(fmt.Sprintf(format, a...), "\t")
		for i, cell := range text {
			text[i] = strings.ReplaceAll(shorten(escape(cell)), "\n", `\n`)
		}
		fmt.Fprintln(w, strings.Join(text, "\t"))
	}
	changes := func(list []diff.Change, what string) {
		for _, c := range list {
			switch {
			case c.A == "":
				line("    + %s %s = %s", what, c.Path, c.B)
			case c.B == "":
				line("    - %s %s = %s", what, c.Path, c.A)
			default:
				line("    ~ %s %s: %s -> %s", what, c.Path, c.A, c.B)
			}
		}
	}
	line("--- %s\t%s", r.A.Name, r.A.Digest)
	line("+++ %s\t%s", r.B.Name, r.B.Digest)
	w.Flush()
	if len(r.Index) > 0 {
		line("~ index")
		changes(r.Index, "index")
	}
	for _, p := range r.Platforms {
		line("%s %s", marks[p.Status], p.Platform)
		changes(p.Manifest, "manifest")
		changes(p.Config, "config")
		for _, l := range p.Layers {
			d, size := l.B, l.SizeB
			if d == "" {
				d, size = l.A, l.SizeA
			}
			line("    %s layer %s  %s  %s", marks[l.Status], short(d.String()), bytesText(size), l.By)
		}
		for _, f := range p.Files {
			line("    %s %s %s", marks[f.Status], f.Path, strings.Join(f.What, ", "))
		}
	}
	for _, x := range r.Others {
		line("%s %s %s", marks[x.Status], x.Kind, x.Digest)
	}
	w.Flush()
	if r.Same {
		b.WriteString("the same\n")
	}
	if _, err := e.stdout.Write([]byte(b.String())); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}

// short is the beginning of a digest, as docker shows it.
func short(d string) string {
	if _, hex, ok := strings.Cut(d, ":"); ok && len(hex) > 12 {
		return hex[:12]
	}
	return d
}

// shorten cuts text of an image.
func shorten(s string) string {
	const most = 300
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "..."
	}
	return s
}
