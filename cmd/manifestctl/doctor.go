package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/build"
)

func newDoctor(e *env) *cobra.Command {
	var host hostFlags
	var format string
	var script bool
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
			if script {
				return e.println(strings.TrimSuffix(fixScript(rungs), "\n"))
			}
			if asJSON {
				out := make([]rungJSON, 0, len(rungs))
				for _, r := range rungs {
					out = append(out, newRungJSON(r))
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
				for _, f := range r.Fixes {
					if err := e.println("    " + escape(f.Where+": "+f.Do)); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
	host.add(cmd.Flags())
	cmd.Flags().StringVar(&format, "format", "table", "`FORMAT` table or json")
	cmd.Flags().BoolVar(&script, "fix-script", false, "print what would mend what is missing as a shell script, to be read and run by hand; nothing is changed")
	return cmd
}

// fixScript is a shell script of what can be done on this machine; what is done elsewhere are comments in it.
func fixScript(rungs []build.Rung) string {
	var b strings.Builder
	b.WriteString("#!/bin/sh\nset -eu\n")
	some := false
	for _, r := range rungs {
		if r.OK || len(r.Fixes) == 0 {
			continue
		}
		some = true
		fmt.Fprintf(&b, "\n# %s: %s\n", comment(r.Name), comment(cmp.Or(r.Err, r.Detail)))
		for _, f := range r.Fixes {
			fmt.Fprintf(&b, "# %s: %s\n", comment(f.Where), comment(f.Do))
			if f.Script != "" {
				b.WriteString(f.Script + "\n")
			}
		}
	}
	if !some {
		b.WriteString("\n# nothing to mend\n")
	}
	return b.String()
}

// comment keeps text on one line.
func comment(s string) string { return strings.Join(strings.Fields(escape(s)), " ") }

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

	Fixes []fixJSON `json:"fixes,omitempty"`
}

type fixJSON struct {
	Where  string `json:"where"`
	Do     string `json:"do"`
	Script string `json:"script,omitempty"`
}

func newRungJSON(r build.Rung) rungJSON {
	out := rungJSON{Name: r.Name, OK: r.OK, Detail: r.Detail, Error: r.Err, Mend: r.Mend}
	for _, f := range r.Fixes {
		out.Fixes = append(out.Fixes, fixJSON(f))
	}
	return out
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
