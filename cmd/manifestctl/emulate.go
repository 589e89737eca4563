package main

import (
	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/emulate"
)

func newEmulate(e *env) *cobra.Command {
	return group("emulate", "Emulators for foreign architectures", newEmulateLs(e), newEmulateInstall(e))
}

func newEmulateLs(e *env) *cobra.Command {
	var host hostFlags
	var format string
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "Show how each platform would run on this host",
		Args:    positional(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := formatFlag(format)
			if err != nil {
				return err
			}
			o, err := host.options(e)
			if err != nil {
				return err
			}
			list := build.Emulators(cmd.Context(), o)
			if asJSON {
				return e.printJSON(emulatorsJSON(list))
			}
			rows := [][]string{{"PLATFORM", "RUNS", "BY"}}
			for _, s := range list {
				rows = append(rows, []string{s.Platform.String(), runsBy(s), emulatorDetail(s)})
			}
			return e.printTable(rows)
		},
	}
	host.add(cmd.Flags())
	cmd.Flags().StringVar(&format, "format", "table", "`FORMAT` table or json")
	return cmd
}

func runsBy(s emulate.Support) string {
	switch s.How {
	case emulate.Native:
		return "native"
	case emulate.Private:
		return "emulated"
	case emulate.Ptrace:
		return "emulated by a tracer"
	case emulate.Host:
		return "emulated by the host's handler"
	case emulate.None:
	}
	return "no"
}

func emulatorDetail(s emulate.Support) string {
	switch {
	case s.How == emulate.None:
		return s.Reason
	case s.Version != "":
		return s.Path + " (" + s.Version + ")" + after("; warning: ", s.Warning)
	}
	return s.Path
}

type emulatorJSON struct {
	Platform string `json:"platform"`
	How      string `json:"how"`
	Path     string `json:"path,omitempty"`
	Version  string `json:"version,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Warning  string `json:"warning,omitempty"`
}

func emulatorsJSON(list []emulate.Support) []emulatorJSON {
	out := make([]emulatorJSON, 0, len(list))
	for _, s := range list {
		out = append(out, emulatorJSON{
			Platform: s.Platform.String(), How: string(s.How), Path: s.Path, Version: s.Version, Reason: s.Reason, Warning: s.Warning,
		})
	}
	return out
}
