package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/builder"
)

// recordInfo is what a node keeps, as JSON has it.
type recordInfo struct {
	Node string `json:"node"`
	build.NodeRecord
}

// recordFilters reads --filter: conditions in BuildKit's syntax, all of which must hold, and how long something was not used.
func recordFilters(values []string) (filter []string, age time.Duration, err error) {
	var all []string
	for _, v := range values {
		key, value, _ := strings.Cut(v, "=")
		switch key {
		case "until", "unused-for":
			if age, err = time.ParseDuration(value); err != nil || age < 0 {
				return nil, 0, usagef("--filter %q: want a duration such as %s=24h", v, key)
			}
		case "id", "type", "parents", "description":
			all = append(all, key+"=="+value)
		case "id~", "type~", "parents~", "description~":
			all = append(all, strings.TrimSuffix(key, "~")+"~="+value)
		case "mutable", "immutable", "shared", "private", "inuse":
			opposite := map[string]string{"mutable": "immutable", "immutable": "mutable", "shared": "private", "private": "shared"}[key]
			switch {
			case value == "" || value == "true" || value == "1":
				all = append(all, key)
			case (value == "false" || value == "0") && opposite != "":
				all = append(all, opposite)
			default:
				return nil, 0, usagef("--filter %q: want %s=true", v, key)
			}
		default:
			return nil, 0, usagef("--filter %q: want until=DURATION, id=, type=, parents=, description= or their ~=, mutable=, shared= or inuse=true", v)
		}
	}
	if len(all) > 0 {
		filter = []string{strings.Join(all, ",")}
	}
	return filter, age, nil
}

// eachRemote calls f for the BuildKit nodes of the builder that args name, and says where this machine's own cache is seen to.
func (e *env) eachRemote(args []string, verb string, f func(builder.Node) error) error {
	name := ""
	if len(args) == 1 {
		name = args[0]
	}
	b, err := e.builder(name)
	if err != nil {
		return err
	}
	if len(b.Nodes) == 0 || !b.Remote() {
		return usagef("the builder %q is this machine", b.Name).withHint("`manifestctl cache %s` is for what it keeps itself; `manifestctl builder %s NAME` is for BuildKit nodes", verb, verb)
	}
	var errs []error
	for _, n := range b.Nodes {
		if n.IsLocal() {
			e.note("%s: `manifestctl cache %s` is for what this machine keeps", n.Name, verb)
			continue
		}
		errs = append(errs, f(n))
	}
	return errors.Join(errs...)
}

func newBuilderDu(e *env) *cobra.Command {
	var format string
	var filters []string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "du [flags] [NAME]",
		Short: "Show what BuildKit nodes keep",
		Long:  "du lists what the BuildKit nodes of the builder NAME, or of the one in use, keep for later builds, the largest last.",
		Example: "  manifestctl builder du farm\n" +
			"  manifestctl builder du --filter type=exec.cachemount --format json farm",
		Args: positional(0, 1, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			asJSON, err := formatFlag(format)
			if err != nil {
				return err
			}
			filter, age, err := recordFilters(filters)
			if err != nil {
				return err
			}
			out := []recordInfo{}
			err = e.eachRemote(args, "du", func(n builder.Node) error {
				list, err := build.NodeRecords(cmd.Context(), n, filter, age)
				for _, r := range list {
					out = append(out, recordInfo{Node: n.Name, NodeRecord: r})
				}
				return err
			})
			if asJSON {
				return errors.Join(err, e.printJSON(out))
			}
			if err != nil && len(out) == 0 {
				return err
			}
			return errors.Join(err, e.printRecords(out, verbose))
		},
	}
	f := cmd.Flags()
	f.StringVar(&format, "format", "table", "`FORMAT` table or json")
	f.BoolVar(&verbose, "verbose", false, "say what each is")
	recordFlags(f, &filters)
	return cmd
}

func recordFlags(f *pflag.FlagSet, filters *[]string) {
	f.StringArrayVar(filters, "filter", nil, "`CONDITION` until=DURATION, id=, type=, parents= or description=VALUE (~= is a regular expression), mutable=, shared= or inuse=true; may be repeated: all must hold")
}

// printRecords is the table of du, in buildx's columns, with the sums below.
func (e *env) printRecords(list []recordInfo, verbose bool) error {
	head := []string{"NODE", "ID", "RECLAIMABLE", "SIZE", "LAST USED"}
	if verbose {
		head = append(head, "TYPE", "DESCRIPTION")
	}
	rows := [][]string{head}
	var total, free int64
	for _, r := range list {
		last := "never"
		if !r.LastUsed.IsZero() {
			last = ago(e.now().Sub(r.LastUsed))
		}
		row := []string{r.Node, r.ID, fmt.Sprint(!r.InUse), bytesText(r.Size), last}
		if verbose {
			row = append(row, r.Type, r.Description)
		}
		rows = append(rows, row)
		total += r.Size
		if !r.InUse {
			free += r.Size
		}
	}
	rows = append(rows, []string{"Reclaimable:", bytesText(free)}, []string{"Total:", bytesText(total)})
	return e.printTable(rows)
}

func newBuilderPrune(e *env) *cobra.Command {
	var filters []string
	var all, ignored bool
	var keep, reserved, used, free string
	cmd := &cobra.Command{
		Use:   "prune [flags] [NAME]",
		Short: "Drop what BuildKit nodes keep",
		Long: "prune drops what the BuildKit nodes of the builder NAME, or of the one in use, keep for later builds: all that is not in\n" +
			"use, or what the flags say. Nothing is asked. Other people's builds on the same nodes lose their caches, too.",
		Example: "  manifestctl builder prune --filter until=168h farm\n  manifestctl builder prune --max-used-space 20GB farm",
		Args:    positional(0, 1, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := build.NodePrune{All: all}
			var err error
			if o.Filter, o.KeepDuration, err = recordFilters(filters); err != nil {
				return err
			}
			for _, one := range []struct {
				flag, value string
				into        *int64
			}{
				{"keep-storage", keep, &o.ReservedSpace},
				{"reserved-space", reserved, &o.ReservedSpace},
				{"max-used-space", used, &o.MaxUsedSpace},
				{"min-free-space", free, &o.MinFreeSpace},
			} {
				if one.value == "" {
					continue
				}
				if *one.into, err = parseSize(one.flag, one.value); err != nil {
					return err
				}
			}
			return e.prune(cmd.Context(), args, o)
		},
	}
	f := cmd.Flags()
	recordFlags(f, &filters)
	f.BoolVarP(&all, "all", "a", false, "what BuildKit keeps for itself, too")
	f.StringVar(&reserved, "reserved-space", "", "`SIZE` that always stays: 500MB, 10GB, 1GiB")
	f.StringVar(&keep, "keep-storage", "", "`SIZE` the same, as it was called before")
	f.StringVar(&used, "max-used-space", "", "`SIZE` drop until no more is used")
	f.StringVar(&free, "min-free-space", "", "`SIZE` drop until so much of the node's disk is free")
	f.BoolVarP(&ignored, "force", "f", false, "accepted for docker's sake: nothing is asked")
	f.BoolVar(&ignored, "verbose", false, "accepted for docker's sake")
	hide(f, "verbose")
	return cmd
}

// prune drops on all nodes, and says how much that was.
func (e *env) prune(ctx context.Context, args []string, o build.NodePrune) error {
	return e.eachRemote(args, "prune", func(n builder.Node) error {
		var count int
		var size int64
		err := build.PruneNode(ctx, n, o, func(r build.NodeRecord) {
			count++
			size += r.Size
		})
		return errors.Join(err, e.println(fmt.Sprintf("%s: freed %s, %d records", n.Name, bytesText(size), count)))
	})
}
