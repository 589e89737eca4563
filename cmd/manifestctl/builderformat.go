package main

import (
	"regexp"
	"strings"
	"sync"
	"text/tabwriter"
	"text/template"

	"github.com/manifestctl/manifestctl/pkg/inspect"
)

// builderLine is a line of buildx's table: a builder, or one of its nodes.
type builderLine struct {
	Name           string
	DriverEndpoint string
	LastActivity   string // it is not kept
	Status         string
	Buildkit       string
	Platforms      string
	Error          string
	Builder        builderInfo
}

// builderHeads are the columns' names.
var builderHeads = builderLine{
	Name: "NAME/NODE", DriverEndpoint: "DRIVER/ENDPOINT", LastActivity: "LAST ACTIVITY", Status: "STATUS", Buildkit: "BUILDKIT",
	Platforms: "PLATFORMS", Error: "ERROR",
}

// lineFields are the fields that lines have and builders do not.
var lineFields = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\.(DriverEndpoint|LastActivity|Status|Buildkit|Platforms|Error|Builder)\b`)
})

// builderLines gives the lines of builders.
func builderLines(infos []builderInfo) []builderLine {
	var out []builderLine
	for _, b := range infos {
		name := b.Name
		if b.Current {
			name += "*"
		}
		out = append(out, builderLine{Name: name, DriverEndpoint: b.Driver, Builder: b})
		for _, n := range b.Nodes {
			out = append(out, builderLine{
				Name: ` \_ ` + n.Name, DriverEndpoint: ` \_ ` + n.Endpoint, Status: n.Status, Buildkit: n.Version,
				Platforms: n.platforms(), Error: n.Error, Builder: b,
			})
		}
	}
	return out
}

// builderFormat gives what prints builders in a format.
func (e *env) builderFormat(format string) (func([]builderInfo) error, error) {
	if !strings.Contains(format, "{{") {
		asJSON, err := formatFlag(format)
		if asJSON {
			return func(infos []builderInfo) error { return e.printJSON(infos) }, err
		}
		return e.printBuilders, err
	}
	text, inTable := strings.CutPrefix(format, "table ")
	t, err := template.New("format").Funcs(inspect.Functions()).Parse(strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text))
	if err != nil {
		return nil, usagef("--format: %w", err)
	}
	byLine := inTable || lineFields().MatchString(text) && !strings.Contains(text, "range")
	return func(infos []builderInfo) error {
		var rows []any
		if inTable {
			rows = append(rows, builderHeads)
		}
		if byLine {
			for _, l := range builderLines(infos) {
				rows = append(rows, l)
			}
		} else {
			for _, b := range infos {
				rows = append(rows, b)
			}
		}
		var out strings.Builder
		w := tabwriter.NewWriter(&out, 0, 8, 2, ' ', 0)
		for _, row := range rows {
			var line strings.Builder
			if err := t.Execute(&line, row); err != nil {
				return usagef("--format: %w", err)
			}
			if !inTable {
				if err := e.println(line.String()); err != nil {
					return err
				}
				continue
			}
			if _, err := w.Write([]byte(escape(line.String()) + "\n")); err != nil {
				return err
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
		for text := range strings.Lines(out.String()) {
			if err := e.println(strings.TrimRight(text, " \n")); err != nil {
				return err
			}
		}
		return nil
	}, nil
}
