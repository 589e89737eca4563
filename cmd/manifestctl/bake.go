package main

import "github.com/spf13/cobra"

// newBake says why there is no bake (docs/adr/0012-bake.md).
func newBake() *cobra.Command {
	return &cobra.Command{
		Use:                "bake",
		Hidden:             true,
		DisableFlagParsing: true,
		Short:              "Not supported",
		RunE: func(*cobra.Command, []string) error {
			return usagef("bake files are not supported").
				withHint("run `manifestctl build` for each target: equal steps of builds that share a store run once (docs/buildx.md)")
		},
	}
}
