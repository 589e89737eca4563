package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/lint"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
)

// findingJSON is a finding in the output of lint --format json.
type findingJSON struct {
	Rule   string `json:"rule"`
	Level  string `json:"level"`
	Digest string `json:"digest,omitempty"`
	Text   string `json:"text"`
}

func newLint(e *env) *cobra.Command {
	var format string
	var ignored []string
	cmd := &cobra.Command{
		Use:   "lint [flags] REF",
		Short: "Look for what makes an index mean the wrong thing to somebody",
		Long:  "lint reads an index, its manifests and configs, and looks for:\n\n" + ruleText() + "\nExit code 4 says that it found something.",
		Example: "  manifestctl lint registry.example/app:1.0\n" +
			"  manifestctl lint --format sarif oci:app > app.sarif",
		Args: positional(1, 1, "REF"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := e.readRef(args[0])
			if err != nil {
				return err
			}
			if format != "text" && format != "json" && format != "sarif" {
				return usagef("--format %q: want text, json or sarif", format)
			}
			for _, id := range ignored {
				if !knownRule(id) {
					return usagef("--ignore %q: there is no such rule", id).withHint("`manifestctl lint --help` lists the rules")
				}
			}
			return e.withOpener(cmd.Context(), r, func(o *source.Opener) (err error) {
				img, err := o.Open(cmd.Context(), r)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, img.Close()) }()
				report, err := lint.Run(cmd.Context(), img)
				if err != nil {
					return err
				}
				report.Ignore(ignored...)
				return e.printLint(report, format)
			})
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "`FORMAT` text (default), json or sarif")
	cmd.Flags().StringSliceVar(&ignored, "ignore", nil, "`RULE,...` do not look for these")
	return cmd
}

func ruleText() string {
	var b strings.Builder
	for _, r := range lint.Rules() {
		fmt.Fprintf(&b, "  %-20s %s\n", r.ID, r.Text)
	}
	return b.String()
}

func knownRule(id string) bool {
	for _, r := range lint.Rules() {
		if r.ID == id {
			return true
		}
	}
	return false
}

func (e *env) printLint(r *lint.Report, format string) error {
	var err error
	switch format {
	case "sarif":
		err = e.printJSON(r.SARIF(version()))
	case "json":
		out := make([]findingJSON, 0, len(r.Findings))
		for _, f := range r.Findings {
			out = append(out, findingJSON{f.Rule.ID, string(f.Rule.Level), f.Digest.String(), f.Text})
		}
		err = e.printJSON(out)
	default:
		for _, f := range r.Findings {
			if err = e.println(escape(fmt.Sprintf("%s: %s: %s", f.Rule.Level, f.Rule.ID, f.Text))); err != nil {
				break
			}
		}
	}
	if err == nil && len(r.Findings) > 0 {
		return &findingsError{text: fmt.Sprintf("%s: %s", r.Name, count(len(r.Findings), "finding"))}
	}
	return err
}

// choiceJSON is what one runtime takes in the output of resolve --format json.
type choiceJSON struct {
	As       string `json:"as"`
	Host     string `json:"host"`
	Digest   string `json:"digest,omitempty"`
	Platform string `json:"platform,omitempty"`
	Why      string `json:"why"`
}

func newResolve(e *env) *cobra.Command {
	var as, hosts []string
	var format string
	cmd := &cobra.Command{
		Use:   "resolve [flags] REF",
		Short: "Tell which entry of an index each runtime takes, and why",
		Long: "resolve tells what docker, containerd, podman and crane, and the programs that choose like them, take from the index REF\n" +
			"on a machine of a platform. Exit code 6 says that one of them takes none.",
		Example: "  manifestctl resolve --host linux/arm/v6 registry.example/app:1.0\n" +
			"  manifestctl resolve --as podman --host linux/arm64 oci:app",
		Args: positional(1, 1, "REF"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := e.readRef(args[0])
			if err != nil {
				return err
			}
			asJSON, err := formatFlag(format)
			if err != nil {
				return err
			}
			runtimes := index.Runtimes()
			if len(as) > 0 {
				runtimes = nil
			}
			for _, name := range as {
				rt, err := index.ParseRuntime(name)
				if err != nil {
					return usagef("--as: %w", err)
				}
				runtimes = append(runtimes, rt)
			}
			machines := []platform.Platform{emulate.Machine()}
			if len(hosts) > 0 {
				if machines, err = parsePlatforms(hosts); err != nil {
					return err
				}
			}
			return e.withOpener(cmd.Context(), r, func(o *source.Opener) (err error) {
				img, err := o.Open(cmd.Context(), r)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, img.Close()) }()
				choices, err := lint.Choose(cmd.Context(), img, runtimes, machines)
				if err != nil {
					return err
				}
				return e.printChoices(choices, r, asJSON)
			})
		},
	}
	cmd.Flags().StringSliceVar(&as, "as", nil, "`RUNTIME,...` docker, containerd, podman or crane, or a program that chooses like one: skopeo, ctr, ko (default all four)")
	cmd.Flags().StringSliceVar(&hosts, "host", nil, "`OS/ARCH[/VARIANT],...` of the machine (default this one)")
	cmd.Flags().StringVar(&format, "format", "table", "`FORMAT` table or json")
	return cmd
}

func (e *env) printChoices(choices []lint.Choice, r ref.Ref, asJSON bool) error {
	rows := [][]string{{"RUNTIME", "HOST", "TAKES", "DIGEST", "WHY"}}
	out := make([]choiceJSON, 0, len(choices))
	none := 0
	for _, c := range choices {
		row := choiceJSON{As: string(c.Runtime), Host: c.Host.String(), Digest: c.Desc.Digest.String(), Platform: c.Platform, Why: c.Why}
		out = append(out, row)
		takes, digest := row.Platform, row.Digest
		if digest == "" {
			none++
			takes, digest = "none", "-"
		} else if takes == "" {
			takes = "?"
		}
		rows = append(rows, []string{row.As, row.Host, takes, digest, row.Why})
	}
	var err error
	if asJSON {
		err = e.printJSON(out)
	} else {
		err = e.printTable(rows)
	}
	if err == nil && none > 0 {
		return fmt.Errorf("%s: %w: %s would get no image", r, source.ErrNotFound, count(none, "runtime"))
	}
	return err
}
