package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/builder"
)

// bootstrap starts what can be started and waits until all nodes answer.
func (e *env) bootstrap(ctx context.Context, b builder.Builder) error {
	var errs []error
	for _, n := range b.Nodes {
		if n.IsLocal() {
			continue
		}
		if n.IsContainer() {
			if err := n.Start(ctx); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		errs = append(errs, build.AwaitNode(ctx, n))
	}
	return errors.Join(errs...)
}

func newBuilderStop(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "stop [NAME]",
		Short: "Stop the containers of a builder's nodes",
		Long: "stop stops the nodes of a builder that are containers (docker-container://, podman-container://). Other daemons were not\n" +
			"started for this user, and are left alone.",
		Example: "  manifestctl builder stop farm",
		Args:    positional(0, 1, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			b, err := e.builder(name)
			if err != nil {
				return err
			}
			var errs []error
			for _, n := range b.Nodes {
				if n.IsContainer() {
					errs = append(errs, n.Stop(cmd.Context()))
				} else {
					e.note("%s: %s is left as it is", n.Name, n.Endpoint)
				}
			}
			return errors.Join(errs...)
		},
	}
}
