package main

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/remotecache"
	"github.com/manifestctl/manifestctl/pkg/store"
)

func newCache(e *env) *cobra.Command {
	return group("cache", "Look after what makes the next build faster", newCacheLs(e), newCacheDu(e), newCachePrune(e))
}

// usage looks at the store. One that was never made is empty.
func (e *env) usage(ctx context.Context) (entries []build.CacheEntry, u store.Usage, err error) {
	root, err := e.storeRoot()
	if err != nil {
		return nil, u, err
	}
	if _, err := os.Lstat(root); errors.Is(err, fs.ErrNotExist) {
		return []build.CacheEntry{}, u, nil
	}
	err = e.withStore(ctx, store.Options{ReadOnly: true}, func(st *store.Store) error {
		entries, u, err = build.CacheEntries(ctx, st)
		return err
	})
	return entries, u, err
}

func newCacheLs(e *env) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the entries of the cache, the least recently used first",
		Example: "  manifestctl cache ls\n  manifestctl cache ls --format json",
		Args:    positional(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := formatFlag(format)
			if err != nil {
				return err
			}
			entries, _, err := e.usage(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return e.printJSON(entries)
			}
			rows := [][]string{{"ID", "TYPE", "PLATFORM", "SIZE", "LAST USED", "NAME"}}
			for _, c := range entries {
				id := c.ID
				if i := strings.LastIndexByte(id, '/'); i >= 0 {
					id = id[i+1:]
				}
				rows = append(rows, []string{id[:min(12, len(id))], c.Type, c.Platform, bytesText(c.Size), ago(e.now().Sub(c.LastUsed)), c.Name})
			}
			return e.printTable(rows)
		},
	}
	cmd.Flags().StringVar(&format, "format", "table", "`FORMAT` table or json")
	return cmd
}

func newCacheDu(e *env) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "du",
		Short: "Show what takes room in the store",
		Args:  positional(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := formatFlag(format)
			if err != nil {
				return err
			}
			_, u, err := e.usage(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return e.printJSON(map[string]int64{
					"images": u.Refs, "cache": u.Cache, "unpacked": u.Trees, "garbage": u.Garbage, "total": u.Total(),
				})
			}
			return e.printTable([][]string{
				{"WHAT", "SIZE", "FREED BY"},
				{"images and drafts", bytesText(u.Refs), "manifestctl store rm NAME"},
				{"step cache", bytesText(u.Cache), "manifestctl cache prune"},
				{"unpacked layers, cache mounts", bytesText(u.Trees), "manifestctl cache prune"},
				{"garbage", bytesText(u.Garbage), "manifestctl store gc"},
				{"total", bytesText(u.Total()), ""},
			})
		},
	}
	cmd.Flags().StringVar(&format, "format", "table", "`FORMAT` table or json")
	return cmd
}

func newCachePrune(e *env) *cobra.Command {
	var (
		keep, unused string
		filters      []string
		dryRun       bool
		ignored      bool
	)
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Drop the cache, or what of it was not used for long",
		Long: "prune drops the step cache, unpacked layers and cache mounts: all of them, or with --unused-for and --keep-storage\n" +
			"the least recently used. Images, drafts and what running builds need stay.",
		Example: "  manifestctl cache prune --unused-for 168h\n  manifestctl cache prune --keep-storage 10GB\n  manifestctl cache prune",
		Args:    positional(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := store.GCOptions{DryRun: dryRun}
			var err error
			if o.KeepStorage, err = parseSize("keep-storage", keep); err != nil {
				return err
			}
			for _, f := range filters {
				value, ok := strings.CutPrefix(f, "until=")
				if !ok {
					return usagef("--filter %q: only until=DURATION is known", f)
				}
				unused = value
			}
			if unused != "" {
				d, err := time.ParseDuration(unused)
				if err != nil || d < 0 {
					return usagef("--unused-for %q: want a duration such as 24h or 90m", unused)
				}
				o.UnusedSince = e.now().Add(-d)
			}
			o.Cache = o.KeepStorage == 0 && o.UnusedSince.IsZero()
			return e.withStore(cmd.Context(), store.Options{}, func(st *store.Store) error {
				return e.collect(cmd.Context(), st, o)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&keep, "keep-storage", "", "`SIZE` drop only as much as brings the store to this size: 500MB, 10GB, 1GiB")
	f.StringVar(&unused, "unused-for", "", "`DURATION` drop only what was not used for so long: 24h, 90m")
	f.StringArrayVar(&filters, "filter", nil, "`until=DURATION` the same in docker's words")
	f.BoolVar(&dryRun, "dry-run", false, "only say what would be freed")
	f.BoolVarP(&ignored, "force", "f", false, "accepted for docker's sake: nothing is asked")
	f.BoolVarP(&ignored, "all", "a", false, "accepted for docker's sake: all is the default")
	return cmd
}

// cacheFlags are the caches of build in other places.
type cacheFlags struct {
	from, to []string
}

func (c *cacheFlags) add(f *pflag.FlagSet) {
	f.StringArrayVar(&c.from, "cache-from", nil, "`type=registry,ref=NAME|type=local,src=DIR|NAME` look for steps' results there, too; may be repeated")
	f.StringArrayVar(&c.to, "cache-to", nil, "`type=registry,ref=NAME|type=local,dest=DIR|type=inline[,mode=max][,ignore-error=BOOL]` leave the results of steps there for other machines; may be repeated")
}

// options reads them into o.
func (c *cacheFlags) options(e *env, o *build.Options) error {
	for _, text := range c.from {
		s, err := remotecache.ParseFrom(text)
		if err != nil {
			return usagef("--cache-from: %w", err)
		}
		o.CacheFrom = append(o.CacheFrom, s)
	}
	for _, text := range c.to {
		s, err := remotecache.ParseTo(text)
		if err != nil {
			return usagef("--cache-to: %w", err)
		}
		o.CacheTo = append(o.CacheTo, s)
	}
	o.Clock = e.now
	return nil
}

// ago is how long ago something was, as people say it.
func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "now"
	case d < time.Hour:
		return strconv.Itoa(int(d.Minutes())) + "m ago"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + "h ago"
	}
	return strconv.Itoa(int(d.Hours()/24)) + "d ago"
}

// sizeUnits are the units of sizes: decimal with SI's names, binary with IEC's and with docker's single letters.
var sizeUnits = map[string]float64{
	"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
	"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}

// parseSize reads a number of bytes; "" is 0.
func parseSize(flag, s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	i := strings.LastIndexAny(s, "0123456789.") + 1
	n, err := strconv.ParseFloat(s[:i], 64)
	unit, ok := sizeUnits[strings.ToLower(strings.TrimSpace(s[i:]))]
	if err != nil || !ok || n < 0 || n*unit > math.MaxInt64/2 {
		return 0, usagef("--%s %q: want a size such as 500MB, 10GB or 1GiB", flag, s)
	}
	return int64(n * unit), nil
}
