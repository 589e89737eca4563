package main

import (
	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/emulate"
)

func newEmulate(e *env) *cobra.Command {
	return group("emulate", "Emulators for foreign architectures", newEmulateLs(e))
}

func newEmulateLs(e *env) *cobra.Command {
	var emulators []string
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
			o, err := hostOptions(e, emulators)
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
	cmd.Flags().StringArrayVar(&emulators, "emulator", nil, "`ARCH=PATH` emulator of an architecture; may be repeated")
	cmd.Flags().StringVar(&format, "format", "table", "`FORMAT` table or json")
	return cmd
}

// hostOptions are the options of what asks about this host.
func hostOptions(e *env, emulators []string) (build.Options, error) {
	paths, err := keyValues("emulator", emulators, nil)
	if err != nil {
		return build.Options{}, err
	}
	return build.Options{Emulators: paths, Path: e.getenv("PATH")}, nil
}

func runsBy(s emulate.Support) string {
	switch s.How {
	case emulate.Native:
		return "native"
	case emulate.Private:
		return "emulated"
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
		return s.Path + " (" + s.Version + ")"
	}
	return s.Path
}

type emulatorJSON struct {
	Platform string `json:"platform"`
	How      string `json:"how"`
	Path     string `json:"path,omitempty"`
	Version  string `json:"version,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

func emulatorsJSON(list []emulate.Support) []emulatorJSON {
	out := make([]emulatorJSON, 0, len(list))
	for _, s := range list {
		out = append(out, emulatorJSON{
			Platform: s.Platform.String(), How: string(s.How), Path: s.Path, Version: s.Version, Reason: s.Reason,
		})
	}
	return out
}
