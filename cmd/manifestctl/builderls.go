package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/builder"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// statusRunning is that of a node that answers.
const statusRunning = "running"

// nodeInfo is a node and what it says of itself, as JSON has it.
type nodeInfo struct {
	Name      string   `json:"name"`
	Endpoint  string   `json:"endpoint"`
	Status    string   `json:"status"` // running, unreachable
	Error     string   `json:"error,omitempty"`
	Version   string   `json:"version,omitempty"`
	Platforms []string `json:"platforms"`          // what it builds; those that were declared first
	Declared  []string `json:"declared,omitempty"` // with --platform
	Native    []string `json:"native,omitempty"`
	Load      int      `json:"load"` // builds that are under way

	options string
	workers []build.NodeWorker
}

// builderInfo is a builder, as JSON has it.
type builderInfo struct {
	Name    string     `json:"name"`
	Driver  string     `json:"driver"`
	Current bool       `json:"current"`
	Origin  string     `json:"origin,omitempty"` // the file of buildx
	Nodes   []nodeInfo `json:"nodes"`
}

// look asks all nodes of builders what they are, at once.
func (e *env) look(ctx context.Context, list []builder.Builder, current string, timeout time.Duration) []builderInfo {
	out := make([]builderInfo, len(list))
	var wg sync.WaitGroup
	for i, b := range list {
		out[i] = builderInfo{Name: b.Name, Driver: b.Driver, Current: b.Name == current, Origin: b.Origin, Nodes: make([]nodeInfo, len(b.Nodes))}
		for j, n := range b.Nodes {
			wg.Go(func() { out[i].Nodes[j] = e.lookAt(ctx, n, timeout) })
		}
	}
	wg.Wait()
	return out
}

func (e *env) lookAt(ctx context.Context, n builder.Node, timeout time.Duration) nodeInfo {
	out := nodeInfo{Name: n.Name, Endpoint: n.Endpoint, Status: statusRunning, Declared: texts(n.Platforms), options: options(n.Options)}
	if n.IsLocal() {
		out.Version = version()
		host := hostFlags{emulation: "auto"}
		if o, err := host.options(e); err == nil {
			for _, s := range build.Emulators(ctx, o) {
				if s.How != "" && runsBy(s) != "no" {
					out.Platforms = append(out.Platforms, s.Platform.String())
				}
				if runsBy(s) == "native" {
					out.Native = append(out.Native, s.Platform.String())
				}
			}
		}
		slices.SortStableFunc(out.Platforms, func(a, b string) int { return natives(out.Native, b) - natives(out.Native, a) })
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	s, err := build.AskNode(ctx, n)
	if err != nil {
		out.Status, out.Error, out.Platforms = "unreachable", err.Error(), out.Declared
		if errors.Is(err, build.ErrNodeCannot) {
			out.Status = "unusable"
		}
		return out
	}
	out.Version, out.Load, out.workers, out.Native = s.Version, s.Load, s.Workers, texts(s.Native)
	for _, p := range slices.Concat(out.Declared, out.Native, texts(s.Emulated)) {
		if !slices.Contains(out.Platforms, p) {
			out.Platforms = append(out.Platforms, p)
		}
	}
	return out
}

func natives(list []string, p string) int {
	if slices.Contains(list, p) {
		return 1
	}
	return 0
}

func texts(list []platform.Platform) []string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = p.String()
	}
	return out
}

func newBuilderLs(e *env) *cobra.Command {
	var format string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List builders and their nodes",
		Long: "ls lists all builders and asks their nodes what they are. The one in use has a star, and so have the platforms that were\n" +
			"declared for a node (builder create --platform).",
		Example: "  manifestctl builder ls\n  manifestctl builder ls --format json",
		Args:    positional(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			print, err := e.builderFormat(format)
			if err != nil {
				return err
			}
			c, err := e.builders()
			if err != nil {
				return err
			}
			current, _, err := e.builderName(c, "")
			if err != nil {
				return err
			}
			list, unread := c.List()
			return errors.Join(print(e.look(cmd.Context(), list, current, timeout)), unread)
		},
	}
	cmd.Flags().StringVar(&format, "format", "table", "`FORMAT` table, json, or a Go template over each builder: {{.Name}}, {{.Driver}}, {{.Current}}, {{range .Nodes}}{{.Endpoint}}; or, in buildx's words, "+
		"over each line of the table: {{.Name}} {{.DriverEndpoint}} {{.Status}} {{.Buildkit}} {{.Platforms}} {{.Error}}")
	cmd.Flags().Bool("no-trunc", true, "accepted for buildx's sake: nothing is cut off")
	hide(cmd.Flags(), "no-trunc")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "`TIME` that a node may take to answer")
	return cmd
}

// printBuilders is the table of ls: a line for a builder, and one for each of its nodes.
func (e *env) printBuilders(infos []builderInfo) error {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 8, 2, ' ', 0)
	line := func(cells ...string) { fmt.Fprintln(w, escape(strings.Join(cells, "\t"))) }
	line("NAME/NODE", "DRIVER/ENDPOINT", "STATUS", "VERSION", "PLATFORMS")
	for _, b := range infos {
		name := b.Name
		if b.Current {
			name += "*"
		}
		line(name, b.Driver, "", "", "")
		for _, n := range b.Nodes {
			line(` \_ `+n.Name, ` \_ `+n.Endpoint, n.Status, n.Version, n.platforms())
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	for text := range strings.Lines(table.String()) {
		if err := e.println(strings.TrimRight(text, " \n")); err != nil {
			return err
		}
	}
	for _, b := range infos {
		for _, n := range b.Nodes {
			if n.Error != "" {
				e.note("%s: %s", b.Name, n.Error)
			}
		}
	}
	return nil
}

// platforms is the list with a star for those that were declared.
func (n nodeInfo) platforms() string {
	out := make([]string, len(n.Platforms))
	for i, p := range n.Platforms {
		out[i] = p
		if slices.Contains(n.Declared, p) {
			out[i] += "*"
		}
	}
	return strings.Join(out, ", ")
}

func newBuilderInspect(e *env) *cobra.Command {
	var format string
	var bootstrap bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "inspect [NAME]",
		Short: "Show a builder and what its nodes say of themselves",
		Long: "inspect shows the builder NAME, or the one in use. With --bootstrap containers that are stopped are started\n" +
			"(docker-container://, podman-container://), and a node that does not answer is an error.",
		Example: "  manifestctl builder inspect\n  manifestctl builder inspect --bootstrap farm",
		Args:    positional(0, 1, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			asJSON, err := formatFlag(format)
			if err != nil {
				return err
			}
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			b, err := e.builder(name)
			if err != nil {
				return err
			}
			c, err := e.builders()
			if err != nil {
				return err
			}
			if bootstrap {
				if err := e.bootstrap(cmd.Context(), b); err != nil {
					return err
				}
			}
			current, _, err := e.builderName(c, "")
			if err != nil {
				return err
			}
			info := e.look(cmd.Context(), []builder.Builder{b}, current, timeout)[0]
			if asJSON {
				return e.printJSON(info)
			}
			return e.printBuilder(info)
		},
	}
	cmd.Flags().StringVar(&format, "format", "table", "`FORMAT` table or json")
	cmd.Flags().BoolVar(&bootstrap, "bootstrap", false, "see to it that the nodes answer")
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "`TIME` that a node may take to answer")
	return cmd
}

func (e *env) printBuilder(b builderInfo) error {
	rows := [][]string{{"Name:", b.Name}, {"Driver:", b.Driver}}
	if b.Origin != "" {
		rows = append(rows, []string{"Of:", b.Origin})
	}
	for _, n := range b.Nodes {
		rows = append(rows, []string{"Node:", n.Name}, []string{"Endpoint:", n.Endpoint})
		if n.options != "" {
			rows = append(rows, []string{"Driver options:", n.options})
		}
		rows = append(rows, []string{"Status:", n.Status})
		if n.Error != "" {
			rows = append(rows, []string{"Error:", n.Error})
		}
		rows = append(rows, []string{"Version:", n.Version}, []string{"Platforms:", n.platforms()}, []string{"Native:", strings.Join(n.Native, ", ")})
		if n.Endpoint != builder.Local && n.Error == "" {
			rows = append(rows, []string{"Builds:", fmt.Sprint(n.Load)})
		}
		for _, w := range n.workers {
			for _, key := range slices.Sorted(maps.Keys(w.Labels)) {
				rows = append(rows, []string{"Label:", key + "=" + w.Labels[key]})
			}
			for i, g := range w.GC {
				rows = append(rows, []string{"GC rule:", fmt.Sprintf("%d: %s", i, gcRule(g))})
			}
		}
	}
	return e.printTable(rows)
}

// gcRule says what a node keeps by one of its rules.
func gcRule(g build.NodePrune) string {
	words := []string{"all"}
	if len(g.Filter) > 0 {
		words[0] = strings.Join(g.Filter, " or ")
	}
	if g.All {
		words = append(words, "internal ones too")
	}
	if g.KeepDuration > 0 {
		words = append(words, "unused for "+strings.TrimSuffix(g.KeepDuration.String(), "0m0s"))
	}
	for _, one := range []struct {
		text string
		size int64
	}{{"at most", g.MaxUsedSpace}, {"at least free", g.MinFreeSpace}, {"always kept", g.ReservedSpace}} {
		if one.size > 0 {
			words = append(words, one.text+" "+bytesText(one.size))
		}
	}
	return strings.Join(words, ", ")
}

// options are the --driver-opt of a node.
func options(o builder.Options) string {
	var out []string
	for _, one := range [][2]string{{"cacert", o.CACert}, {"cert", o.Cert}, {"key", o.Key}, {"servername", o.ServerName}} {
		if one[1] != "" {
			out = append(out, one[0]+"="+one[1])
		}
	}
	return strings.Join(out, ",")
}
