package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/store"
)

func newStore(e *env) *cobra.Command {
	return group("store", "Look after the local store", newStoreLs(e), newStoreRm(e), newStoreCheck(e), newStoreGC(e))
}

func newStoreLs(e *env) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the names in the store",
		Args:    positional(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := formatFlag(format)
			if err != nil {
				return err
			}
			refs, err := e.refs(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				out := make([]refJSON, 0, len(refs))
				for _, r := range refs {
					out = append(out, refJSON{r.Name, r.Desc.Digest.String(), r.Desc.MediaType, r.Desc.Size})
				}
				return e.printJSON(out)
			}
			rows := [][]string{{"NAME", "DIGEST", "MEDIA TYPE"}}
			for _, r := range refs {
				rows = append(rows, []string{r.Name, r.Desc.Digest.String(), r.Desc.MediaType})
			}
			return e.printTable(rows)
		},
	}
	cmd.Flags().StringVar(&format, "format", "table", "`FORMAT` table or json")
	return cmd
}

// refs lists the names in the store. A store that was never made holds none.
func (e *env) refs(ctx context.Context) (refs []store.Ref, err error) {
	root, err := e.storeRoot()
	if err != nil {
		return nil, err
	}
	if _, err := os.Lstat(root); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	err = e.withStore(ctx, store.Options{ReadOnly: true}, func(st *store.Store) error {
		refs, err = st.Refs()
		return err
	})
	return refs, err
}

type refJSON struct {
	Name      string `json:"name"`
	Digest    string `json:"digest"`
	MediaType string `json:"mediaType"`
	Size      int64  `json:"size"`
}

func newStoreRm(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "rm NAME...",
		Short: "Remove names; `store gc` then frees what only they reached",
		Args:  positional(1, 1<<20, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return e.withStore(cmd.Context(), store.Options{}, func(st *store.Store) error {
				for _, name := range args {
					if err := st.DeleteRef(cmd.Context(), storeName(name)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func newStoreCheck(e *env) *cobra.Command {
	var o store.CheckOptions
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look for missing and damaged content",
		Args:  positional(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.withStore(cmd.Context(), store.Options{ReadOnly: !o.Repair}, func(st *store.Store) error {
				findings, err := st.Check(cmd.Context(), o)
				if err != nil {
					return err
				}
				left := 0
				for _, f := range findings {
					mark := "wrong"
					if f.Fixed {
						mark = "fixed"
					} else {
						left++
					}
					if err := e.println(escape(fmt.Sprintf("%s: %s: %s", mark, f.Object, f.Text))); err != nil {
						return err
					}
				}
				if left > 0 {
					return &findingsError{text: fmt.Sprintf("%s: %d findings", st.Root(), left), repair: !o.Repair}
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&o.ReadData, "read-data", false, "hash all content, not only look at its size")
	cmd.Flags().BoolVar(&o.Repair, "repair", false, "remove damaged content and what needs it")
	return cmd
}

// findingsError ends a check that found something.
type findingsError struct {
	text   string
	repair bool // could help
}

func (e *findingsError) Error() string        { return e.text }
func (e *findingsError) Is(target error) bool { return target == errFindings }

func (e *findingsError) Hint() string {
	if e.repair {
		return "`manifestctl store check --repair` removes what is damaged"
	}
	return ""
}

func newStoreGC(e *env) *cobra.Command {
	var o store.GCOptions
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Free what no name, lease or step record reaches",
		Args:  positional(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return e.withStore(cmd.Context(), store.Options{}, func(st *store.Store) error {
				return e.collect(cmd.Context(), st, o)
			})
		},
	}
	cmd.Flags().BoolVar(&o.Cache, "cache", false, "drop the step cache and unpacked layers too")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "only say what would be freed")
	return cmd
}

// collect frees what o says, and says what that was.
func (e *env) collect(ctx context.Context, st *store.Store, o store.GCOptions) error {
	r, err := build.Collect(ctx, st, o, build.Options{Path: e.getenv("PATH")})
	if err != nil {
		return err
	}
	if r.SnapshotsInUse {
		e.note("a build is running: unpacked layers and cache mounts were left")
	}
	verb := "freed"
	if o.DryRun {
		verb = "would free"
	}
	return e.println(fmt.Sprintf("%s %s: %d blobs, %d records, %d snapshots, %d unfinished",
		verb, bytesText(r.Bytes), r.Blobs, r.Records, r.Snapshots, r.Ingests))
}

// bytesText is n in the largest fitting decimal unit.
func bytesText(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB", "EB"}
	v, i := float64(n), 0
	for v >= 999.95 && i < len(units)-1 {
		v, i = v/1000, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

// storeName is the name of a ref as people may write it: with or without store:.
func storeName(s string) string {
	return strings.TrimPrefix(s, "store:")
}
