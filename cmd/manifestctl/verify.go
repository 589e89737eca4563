package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/facts"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/verify"
)

// verifyFlags are what verify can be told.
type verifyFlags struct {
	platforms []string
	allow     []string
	level     string
	format    string
	noCache   bool
}

func newVerify(e *env) *cobra.Command {
	var v verifyFlags
	cmd := &cobra.Command{
		Use:   "verify [flags] REF...",
		Short: "Check that the contents of images are of the platforms they claim",
		Long: "verify reads the layers of every image of every REF and judges the merged trees: are the programs that are started\n" +
			"(entrypoint, command, their interpreters and libraries, the directories of PATH) there and for the platform, and does\n" +
			"config say what the index says? What is only carried along for other machines is a warning or a note.\n\n" +
			"What a layer says is kept in the store by its digest: a second run reads no layer.\n\n" + verifyRuleText() +
			"\nExit code 4 says that there are findings of --level or worse.",
		Example: "  manifestctl verify registry.example/app:1.0\n" +
			"  manifestctl verify --platform linux/arm64 --format sarif oci:app store:app:1.0 > app.sarif\n" +
			"  manifestctl verify --allow '/opt/prebuilds/**=any' --level warning registry.example/app:1.0",
		Args: positional(1, 1<<20, "REF"),
		RunE: func(cmd *cobra.Command, args []string) error {
			refs, err := parseRefs(args)
			if err != nil {
				return err
			}
			return v.run(e, cmd.Context(), refs)
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&v.platforms, "platform", nil, "`OS/ARCH[/VARIANT],...` only the images of these; local is this machine")
	allowFlag(f, &v.allow)
	f.StringVar(&v.level, "level", "error", "`LEVEL` error, warning or note: what fails. Warnings are shown with error, too; notes only with note")
	f.StringVar(&v.format, "format", "table", "`FORMAT` table, json or sarif")
	f.BoolVar(&v.noCache, "no-cache", false, "read all layers, and keep nothing in the store")
	return cmd
}

func allowFlag(f *pflag.FlagSet, list *[]string) {
	f.StringArrayVar(list, "allow", nil, "`PATH-GLOB=PLATFORM|any` files that may be of this platform as well; may be repeated")
}

// parseAllows reads --allow.
func parseAllows(list []string) ([]verify.Allow, error) {
	var out []verify.Allow
	for _, s := range list {
		a, err := verify.ParseAllow(s)
		if err != nil {
			return nil, usagef("--allow: %w", err)
		}
		out = append(out, a)
	}
	return out, nil
}

// verifyMode reads --verify.
func verifyMode(s string) (build.VerifyMode, error) {
	switch s {
	case "error":
		return build.VerifyError, nil
	case "warn":
		return build.VerifyWarn, nil
	case "off":
		return build.VerifyOff, nil
	}
	return "", usagef("--verify %q: want error, warn or off", s)
}

func verifyRuleText() string {
	var b strings.Builder
	for _, r := range verify.Rules() {
		fmt.Fprintf(&b, "  %-20s %s\n", r.ID, r.Text)
	}
	return b.String()
}

func (v *verifyFlags) run(e *env, ctx context.Context, refs []ref.Ref) error {
	level, err := verify.ParseLevel(v.level)
	if err != nil {
		return usagef("--level %w", err)
	}
	if v.format != "table" && v.format != "json" && v.format != "sarif" {
		return usagef("--format %q: want table, json or sarif", v.format)
	}
	var o verify.Options
	if o.Platforms, err = parsePlatforms(v.platforms); err != nil {
		return err
	}
	if o.Allow, err = parseAllows(v.allow); err != nil {
		return err
	}
	var reports []*verify.Report
	err = e.withFacts(ctx, refs, v.noCache, func(opener *source.Opener, reader *verify.Reader) error {
		for _, r := range refs {
			report, err := verifyOne(ctx, opener, reader, r, o)
			if err != nil {
				return err
			}
			report.Keep(shown(level))
			reports = append(reports, report)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return e.printVerify(reports, level, v.format)
}

func verifyOne(ctx context.Context, opener *source.Opener, reader *verify.Reader, r ref.Ref, o verify.Options) (_ *verify.Report, err error) {
	img, err := opener.Open(ctx, r)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, img.Close()) }()
	return reader.Run(ctx, img, o)
}

// shown is the lowest level that is printed: who fails on errors sees warnings as well.
func shown(level verify.Level) verify.Level {
	if level == verify.Error {
		return verify.Warning
	}
	return level
}

// withFacts opens references and what is known of layers for the time of f. Without a store that can be written,
// nothing is kept.
func (e *env) withFacts(ctx context.Context, refs []ref.Ref, noCache bool, f func(*source.Opener, *verify.Reader) error) error {
	opener := &source.Opener{Registry: registry.New(e.registry())}
	needed := false
	for _, r := range refs {
		needed = needed || r.Kind == ref.Store
	}
	if noCache && !needed {
		return f(opener, &verify.Reader{})
	}
	work := func(st *store.Store) error {
		opener.Store = st
		reader := &verify.Reader{}
		if !noCache {
			reader.Cache = facts.Cache{Store: st}
		}
		return f(opener, reader)
	}
	root, err := e.storeRoot()
	if err != nil && !needed {
		return f(opener, &verify.Reader{})
	} else if err != nil {
		return err
	}
	st, err := store.Open(ctx, root, store.Options{})
	if err != nil {
		if !needed {
			e.note("warning: nothing is kept for the next run: %s", err)
			return f(opener, &verify.Reader{})
		}
		noCache = true // somebody else's store, or a disk that cannot be written
		return e.withStore(ctx, store.Options{ReadOnly: true}, work)
	}
	err = work(st)
	if cerr := st.Close(); err == nil {
		err = cerr
	}
	return err
}

// verifyJSON is a report in the output of verify --format json.
type verifyJSON struct {
	Ref       string              `json:"ref"`
	Digest    string              `json:"digest"`
	Platforms []string            `json:"platforms"`
	BytesRead int64               `json:"bytesRead"`
	Findings  []verifyFindingJSON `json:"findings"`
}

type verifyFindingJSON struct {
	Rule     string   `json:"rule"`
	Level    string   `json:"level"`
	Platform string   `json:"platform,omitempty"`
	Digest   string   `json:"digest,omitempty"`
	Path     string   `json:"path,omitempty"`
	Paths    []string `json:"paths,omitempty"`
	Count    int      `json:"count,omitempty"`
	Layer    int      `json:"layer,omitempty"`
	Step     string   `json:"step,omitempty"`
	Text     string   `json:"text"`
}

func (e *env) printVerify(reports []*verify.Report, level verify.Level, format string) error {
	var err error
	switch format {
	case "sarif":
		err = e.printJSON(verify.SARIF(version(), reports))
	case "json":
		out := make([]verifyJSON, 0, len(reports))
		for _, r := range reports {
			j := verifyJSON{r.Name, r.Digest.String(), r.Platforms, r.Read, []verifyFindingJSON{}}
			for _, f := range r.Findings {
				j.Findings = append(j.Findings, verifyFindingJSON{
					f.Rule.ID, string(f.Level), f.Platform, f.Digest.String(), f.Path, f.Paths, f.Count, f.Layer, f.Step, f.String(),
				})
			}
			out = append(out, j)
		}
		err = e.printJSON(out)
	default:
		err = e.printVerifyTable(reports)
	}
	if err != nil {
		return err
	}
	bad, names := 0, []string{}
	for _, r := range reports {
		if n := verify.Count(r.Findings, level); n > 0 {
			bad += n
			names = append(names, r.Name)
		}
	}
	if bad > 0 {
		return &findingsError{text: fmt.Sprintf("%s: %s", strings.Join(names, ", "), count(bad, "finding"))}
	}
	return nil
}

// printVerifyTable prints a line for each platform, and below them what was found.
func (e *env) printVerifyTable(reports []*verify.Report) error {
	rows := [][]string{{"REF", "PLATFORM", "ERRORS", "WARNINGS"}}
	for _, r := range reports {
		for _, p := range r.Platforms {
			errs, warnings := 0, 0
			for _, f := range r.Findings {
				switch {
				case f.Platform != p:
				case f.Level == verify.Error:
					errs++
				case f.Level == verify.Warning:
					warnings++
				}
			}
			rows = append(rows, []string{r.Name, p, fmt.Sprint(errs), fmt.Sprint(warnings)})
		}
	}
	if err := e.printTable(rows); err != nil {
		return err
	}
	for _, r := range reports {
		prefix := ""
		if len(reports) > 1 {
			prefix = r.Name + ": "
		}
		for _, f := range r.Findings {
			if err := e.println(escape(fmt.Sprintf("%s: %s%s [%s]", f.Level, prefix, f, f.Rule.ID))); err != nil {
				return err
			}
		}
	}
	return nil
}
