package main

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/draft"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// draftJSON is a draft in the output of ls --format json.
type draftJSON struct {
	Name      string   `json:"name"`
	Digest    string   `json:"digest"`
	MediaType string   `json:"mediaType"`
	Size      int64    `json:"size"`
	Platforms []string `json:"platforms"`
	Entries   int      `json:"entries"`
}

func newLs(e *env) *cobra.Command {
	var format string
	var quiet bool
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the drafts",
		Long:    draftText,
		Args:    positional(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := formatFlag(format)
			if err != nil {
				return err
			}
			var drafts []*draft.Draft
			if there, err := e.hasStore(); err != nil {
				return err
			} else if there {
				err := e.withDrafts(cmd.Context(), store.Options{ReadOnly: true}, func(d *draft.Drafts) error {
					var bad []error
					drafts, bad, err = d.List(cmd.Context())
					for _, b := range bad {
						e.note("warning: %v", b)
					}
					return err
				})
				if err != nil {
					return err
				}
			}
			switch {
			case asJSON:
				out := make([]draftJSON, 0, len(drafts))
				for _, d := range drafts {
					out = append(out, draftJSON{d.Name, d.Desc.Digest.String(), d.Desc.MediaType, d.Desc.Size, d.Platforms(), len(d.Index.Manifests)})
				}
				return e.printJSON(out)
			case quiet:
				for _, d := range drafts {
					if err := e.println(escape(d.Name)); err != nil {
						return err
					}
				}
				return nil
			}
			rows := [][]string{{"NAME", "DIGEST", "ENTRIES", "PLATFORMS"}}
			for _, d := range drafts {
				rows = append(rows, []string{d.Name, d.Desc.Digest.String(), strconv.Itoa(len(d.Index.Manifests)), strings.Join(d.Platforms(), ", ")})
			}
			return e.printTable(rows)
		},
	}
	cmd.Flags().StringVar(&format, "format", "table", "`FORMAT` table or json")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "only the names")
	return cmd
}
