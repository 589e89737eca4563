package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/parity"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/verify"
)

// maxRows is how many differences of one area the table shows.
const maxRows = 50

// parityJSON is the output of parity --format json.
type parityJSON struct {
	Ref         string               `json:"ref"`
	Platforms   []paritySummaryJSON  `json:"platforms"`
	Differences []parityDifferenceJS `json:"differences"`
	Problems    []string             `json:"problems,omitempty"`
	BytesRead   int64                `json:"bytesRead"`
}

type paritySummaryJSON struct {
	Platform string `json:"platform"`
	Files    int    `json:"files"`
	Size     int64  `json:"size"`
	Packages int    `json:"packages"`
	Layers   int    `json:"layers"`
}

type parityDifferenceJS struct {
	Area   string            `json:"area"`
	Name   string            `json:"name"`
	Values map[string]string `json:"values"` // by platform; none where there is none
}

func newParity(e *env) *cobra.Command {
	var platforms, failOn []string
	var format string
	var noCache bool
	cmd := &cobra.Command{
		Use:   "parity [flags] REF",
		Short: "Tell what differs between the platforms of an index",
		Long: "parity compares the images of an index: installed packages (dpkg, apk, rpm) and their versions, Go programs and their\n" +
			"modules, files, modes, sizes of what is no program, configs. What differs because the machines do (code, names that hold\n" +
			"the machine's) is not said. What was read once is not read again.\n\n" +
			"Areas: packages, go, config, modes, files, sizes. Exit code 4 says that something differs in an area of --fail-on.",
		Example: "  manifestctl parity registry.example/app:1.0\n" +
			"  manifestctl parity --fail-on packages,config --platform linux/amd64,linux/arm64 oci:app",
		Args: positional(1, 1, "REF"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := ref.Parse(args[0])
			if err != nil {
				return err
			}
			asJSON, err := formatFlag(format)
			if err != nil {
				return err
			}
			areas, err := parity.ParseAreas(failOn)
			if err != nil {
				return usagef("--fail-on %w", err)
			}
			var o parity.Options
			if o.Platforms, err = parsePlatforms(platforms); err != nil {
				return err
			}
			var report *parity.Report
			err = e.withFacts(cmd.Context(), []ref.Ref{r}, noCache, func(opener *source.Opener, reader *verify.Reader) (err error) {
				img, err := opener.Open(cmd.Context(), r)
				if err != nil {
					return err
				}
				defer func() { err = errors.Join(err, img.Close()) }()
				report, err = parity.Run(cmd.Context(), reader, img, o)
				return err
			})
			if err != nil {
				return err
			}
			for _, p := range report.Problems {
				e.note("warning: %s", p)
			}
			if asJSON {
				err = e.printJSON(newParityJSON(report))
			} else {
				err = e.printParity(report)
			}
			if n := report.Count(areas); err == nil && n > 0 {
				return &findingsError{text: fmt.Sprintf("%s: %s", report.Name, count(n, "difference"))}
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&platforms, "platform", nil, "`OS/ARCH[/VARIANT],...` only the images of these; local is this machine")
	f.StringSliceVar(&failOn, "fail-on", nil, "`AREA,...` where nothing may differ, or all")
	f.StringVar(&format, "format", "table", "`FORMAT` table or json")
	f.BoolVar(&noCache, "no-cache", false, "read all layers, and keep nothing in the store")
	return cmd
}

func newParityJSON(r *parity.Report) parityJSON {
	out := parityJSON{
		Ref: r.Name, Platforms: []paritySummaryJSON{}, Differences: []parityDifferenceJS{}, Problems: r.Problems, BytesRead: r.Read,
	}
	for _, s := range r.Platforms {
		out.Platforms = append(out.Platforms, paritySummaryJSON{s.Platform, s.Files, s.Size, s.Packages, s.Layers})
	}
	for _, d := range r.Differences {
		values := map[string]string{}
		for i, v := range d.Values {
			if v != "" {
				values[r.Platforms[i].Platform] = v
			}
		}
		out.Differences = append(out.Differences, parityDifferenceJS{string(d.Area), d.Name, values})
	}
	return out
}

func (e *env) printParity(r *parity.Report) error {
	rows := [][]string{{"PLATFORM", "FILES", "SIZE", "PACKAGES", "LAYERS"}}
	head := []string{"AREA", "NAME"}
	for _, s := range r.Platforms {
		rows = append(rows, []string{s.Platform, fmt.Sprint(s.Files), bytesText(s.Size), fmt.Sprint(s.Packages), fmt.Sprint(s.Layers)})
		head = append(head, s.Platform)
	}
	if err := e.printTable(rows); err != nil || len(r.Differences) == 0 {
		return err
	}
	if err := e.println(); err != nil {
		return err
	}
	table := [][]string{head}
	shown := map[parity.Area]int{}
	for _, d := range r.Differences {
		if shown[d.Area]++; shown[d.Area] > maxRows {
			continue
		}
		row := []string{string(d.Area), d.Name}
		for _, v := range d.Values {
			if v == "" {
				v = "-"
			}
			row = append(row, v)
		}
		table = append(table, row)
	}
	for _, a := range parity.Areas() {
		if more := shown[a] - maxRows; more > 0 {
			table = append(table, []string{string(a), fmt.Sprintf("and %d more: --format json has all", more)})
		}
	}
	return e.printTable(table)
}
