package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// flagLine is one flag as help and the reference show it.
type flagLine struct {
	flag string // "-f, --file FILE", "    --plain-http[=HOST,...]"
	text string
}

// flagLines describes the flags of a set that people are meant to see.
func flagLines(f *pflag.FlagSet) []flagLine {
	var lines []flagLine
	f.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		name, text := valueName(f)
		line := "    --" + f.Name
		if f.Shorthand != "" {
			line = "-" + f.Shorthand + ", --" + f.Name
		}
		switch {
		case f.Value.Type() == "bool":
		case f.NoOptDefVal != "":
			line += "[=" + name + "]"
		case name != "":
			line += " " + name
		}
		if def := f.DefValue; def != "" && def != "false" && def != "[]" && def != "0" && def != "0s" && !strings.Contains(text, "(default") && !strings.Contains(text, "so far") {
			text += " (default " + def + ")"
		}
		lines = append(lines, flagLine{line, text})
	})
	return lines
}

// valueName splits a usage that starts with the value's name in backquotes: "`FILE` the spec".
func valueName(f *pflag.Flag) (name, text string) {
	if rest, ok := strings.CutPrefix(f.Usage, "`"); ok {
		if name, text, ok := strings.Cut(rest, "` "); ok {
			return name, text
		}
	}
	return f.Value.Type(), f.Usage
}

// flagHelp lays out flags for a terminal: the text beside short flags, below long ones.
func flagHelp(f *pflag.FlagSet) string {
	const column = 32
	var b strings.Builder
	for _, l := range flagLines(f) {
		if len(l.flag) > column-4 {
			fmt.Fprintf(&b, "  %s\n  %*s%s\n", l.flag, column-2, "", l.text)
			continue
		}
		fmt.Fprintf(&b, "  %-*s%s\n", column-2, l.flag, l.text)
	}
	return b.String()
}

// usage is the body of --help: how to call cmd, and with what.
func usage(cmd *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:\n  %s\n", useLine(cmd))
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(&b, "\nAliases:\n  %s\n", cmd.NameAndAliases())
	}
	if cmd.HasExample() {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", cmd.Example)
	}
	if cmd.HasAvailableSubCommands() {
		b.WriteString("\nCommands:\n")
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() || sub.Name() == "help" {
				fmt.Fprintf(&b, "  %-12s%s\n", sub.Name(), sub.Short)
			}
		}
	}
	if cmd.HasAvailableLocalFlags() {
		fmt.Fprintf(&b, "\nFlags:\n%s", flagHelp(cmd.LocalFlags()))
	}
	if cmd.HasAvailableInheritedFlags() {
		fmt.Fprintf(&b, "\nFlags of every command:\n%s", flagHelp(cmd.InheritedFlags()))
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n`%s COMMAND --help` says more about a command.\n", cmd.CommandPath())
	}
	if !cmd.HasParent() {
		b.WriteString("\n" + exitHelp())
	}
	return b.String()
}

// useLine is the command as it is typed.
func useLine(cmd *cobra.Command) string {
	if cmd.HasAvailableSubCommands() {
		return cmd.CommandPath() + " COMMAND"
	}
	return cmd.UseLine()
}
