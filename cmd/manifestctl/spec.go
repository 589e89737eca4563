package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/build"
)

func newSpec(e *env) *cobra.Command {
	return group("spec", "Check specs, and print their schema", newSpecCheck(e), newSpecSchema(e))
}

func newSpecCheck(e *env) *cobra.Command {
	var in inputFlags
	cmd := &cobra.Command{
		Use:   "check [FILE] [CONTEXT]",
		Short: "Read a spec as build does, and build nothing",
		Long: "check reads FILE (default rootfs.yaml) with its sources from CONTEXT (default FILE's directory), as build\n" +
			"does. It prints warnings to stderr, and nothing to stdout.",
		Args: positional(0, 2, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := specFile
			if len(args) > 0 {
				file = args[0]
			}
			dir := filepath.Dir(file)
			if len(args) > 1 {
				dir = args[1]
			}
			req := build.Request{File: file, ContextDir: dir}
			if err := in.request(e, &req); err != nil {
				return err
			}
			warnings, err := build.SpecCheck(cmd.Context(), req)
			for _, w := range warnings {
				e.note("warning: %s", w)
			}
			if err != nil {
				return err
			}
			e.note("%s: ok", file)
			return nil
		},
	}
	in.add(cmd.Flags())
	return cmd
}

func newSpecSchema(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of a spec",
		Args:  positional(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			if _, err := e.stdout.Write(build.SpecSchema()); err != nil {
				return fmt.Errorf("writing the result: %w", err)
			}
			return nil
		},
	}
}
