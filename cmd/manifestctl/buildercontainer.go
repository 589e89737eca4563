package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/builder"
)

// container gives the engine's command for a node that is a container.
func container(n builder.Node, verb string) ([]string, bool) {
	for prefix, command := range containers {
		rest, ok := strings.CutPrefix(n.Endpoint, prefix)
		if !ok {
			continue
		}
		name, query, _ := strings.Cut(rest, "?")
		args := []string{command}
		if c, ok := strings.CutPrefix(query, "context="); ok && command == "docker" {
			args = append(args, "--context", c)
		}
		return append(args, verb, name), true
	}
	return nil, false
}

// engine runs a command of a container engine.
func engine(ctx context.Context, args []string) error {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// bootstrap starts what can be started and waits until all nodes answer.
func (e *env) bootstrap(ctx context.Context, b builder.Builder) error {
	var errs []error
	for _, n := range b.Nodes {
		if n.IsLocal() {
			continue
		}
		if args, ok := container(n, "start"); ok {
			if err := engine(ctx, args); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		errs = append(errs, answers(ctx, n))
	}
	return errors.Join(errs...)
}

// answers waits until a node answers; a container that was just started takes a moment.
func answers(ctx context.Context, n builder.Node) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	_, isContainer := container(n, "start")
	for {
		_, err := build.AskNode(ctx, n)
		if err == nil || !isContainer || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(500 * time.Millisecond):
		}
	}
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
				if args, ok := container(n, "stop"); ok {
					errs = append(errs, engine(cmd.Context(), args))
				} else {
					e.note("%s: %s is left as it is", n.Name, n.Endpoint)
				}
			}
			return errors.Join(errs...)
		},
	}
}
