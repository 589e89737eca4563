package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/build"
)

func newDoctor(e *env) *cobra.Command {
	var host hostFlags
	var format string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Try what this host allows, and say what to do about the rest",
		Long: "doctor tries every rung of the ladder that steps run on, by doing it, and prints what came of it:\n" +
			"the error and its mend where a rung is missing.",
		Args: positional(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := formatFlag(format)
			if err != nil {
				return err
			}
			o, err := host.options(e)
			if err != nil {
				return err
			}
			rungs := build.Doctor(cmd.Context(), e.nearStore(), o)
			if asJSON {
				out := make([]rungJSON, 0, len(rungs))
				for _, r := range rungs {
					out = append(out, rungJSON{Name: r.Name, OK: r.OK, Detail: r.Detail, Error: r.Err, Mend: r.Mend})
				}
				return e.printJSON(out)
			}
			for _, r := range rungs {
				mark := "ok"
				if !r.OK {
					mark = "no"
				}
				if err := e.println(escape(fmt.Sprintf("%s  %s%s", mark, r.Name, after(": ", r.Detail)))); err != nil {
					return err
				}
				for _, line := range []string{after("error: ", r.Err), after("mend:  ", r.Mend)} {
					if line == "" {
						continue
					}
					if err := e.println("    " + escape(line)); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
	host.add(cmd.Flags())
	cmd.Flags().StringVar(&format, "format", "table", "`FORMAT` table or json")
	return cmd
}

// after puts prefix before s, unless s is empty.
func after(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

type rungJSON struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
	Error  string `json:"error,omitempty"`
	Mend   string `json:"mend,omitempty"`
}

// nearStore is the store's directory, or the nearest one above it that exists; "" when there is none.
func (e *env) nearStore() string {
	dir, err := e.storeRoot()
	if err != nil {
		return ""
	}
	for {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			return ""
		}
		dir = up
	}
}
