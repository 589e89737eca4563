package main

import (
	"fmt"
	"slices"
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

// valueName takes the value's name out of a usage that has it in backquotes: "`FILE` the spec", or in a sentence, "append to `FILE`".
func valueName(f *pflag.Flag) (name, text string) {
	before, rest, _ := strings.Cut(f.Usage, "`")
	name, after, ok := strings.Cut(rest, "`")
	switch {
	case ok && before == "":
		return name, strings.TrimPrefix(after, " ")
	case ok && name == strings.ToUpper(name): // and no command
		return name, before + name + after
	}
	return strings.ToUpper(f.Value.Type()), f.Usage
}

// helpWidth is how wide help is when nobody says how wide the terminal is, and at most.
const helpWidth = 120

// flagHelp lays out flags for a terminal of so many columns: the text beside short flags, below long ones.
func flagHelp(f *pflag.FlagSet, width int) string {
	column := 32
	if width < 70 {
		column = 8
	}
	var b strings.Builder
	for _, l := range flagLines(f) {
		lines := wrap(l.text, width-column)
		if len(l.flag) > column-4 {
			fmt.Fprintf(&b, "  %s\n", l.flag)
		} else {
			fmt.Fprintf(&b, "  %-*s%s\n", column-2, l.flag, lines[0])
			lines = lines[1:]
		}
		for _, line := range lines {
			fmt.Fprintf(&b, "%*s%s\n", column, "", line)
		}
	}
	return b.String()
}

// wrap breaks text between words into lines of at most width bytes, and of one word where that is longer.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// usage is the body of --help on a terminal of so many columns, 0 for none: how to call cmd, and with what.
func usage(cmd *cobra.Command, width int) string {
	if width <= 0 || width > helpWidth {
		width = helpWidth
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:\n  %s\n", useLine(cmd))
	if len(cmd.Aliases) > 0 {
		fmt.Fprintf(&b, "\nAliases:\n  %s\n", cmd.NameAndAliases())
	}
	if cmd.HasExample() {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", cmd.Example)
	}
	if cmd.HasAvailableSubCommands() {
		b.WriteString(commandHelp(cmd))
	}
	if cmd.HasAvailableLocalFlags() {
		fmt.Fprintf(&b, "\nFlags:\n%s", flagHelp(cmd.LocalFlags(), width))
	}
	if cmd.HasAvailableInheritedFlags() {
		fmt.Fprintf(&b, "\nFlags of every command:\n%s", flagHelp(cmd.InheritedFlags(), width))
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n`%s COMMAND --help` says more about a command.\n", cmd.CommandPath())
	}
	if !cmd.HasParent() {
		b.WriteString("\n" + exitHelp())
	}
	return b.String()
}

// groups are the commands of the program by what they are for. A command that is in none is under the last.
var groups = []struct {
	title string
	names []string
}{
	{"Build", []string{"build", "builder", "cache", "emulate", "lock", "run", "spec", "stage"}},
	{"Manifest lists", []string{"create", "add", "annotate", "remove", "push", "exists", "ls", "rm", "merge"}},
	{"Look and check", []string{"inspect", "digest", "diff", "lint", "parity", "resolve", "tags", "verify"}},
	{"Change what is there", []string{"append", "delete", "flatten", "mutate", "rebase", "tag"}},
	{"Carry and serve", []string{"copy", "load", "pull", "save", "serve", "sync"}},
	{"This machine", nil},
}

// commandHelp lists the commands below cmd: the program's by what they are for.
func commandHelp(cmd *cobra.Command) string {
	shown := map[string]*cobra.Command{}
	var rest []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() || sub.Name() == "help" {
			shown[sub.Name()] = sub
			rest = append(rest, sub.Name())
		}
	}
	var b strings.Builder
	list := func(title string, names []string) {
		fmt.Fprintf(&b, "\n%s:\n", title)
		for _, name := range names {
			fmt.Fprintf(&b, "  %-12s%s\n", name, shown[name].Short)
		}
	}
	if cmd.HasParent() {
		list("Commands", rest)
		return b.String()
	}
	for _, g := range groups {
		names := rest
		if g.names != nil {
			names = slices.DeleteFunc(slices.Clone(g.names), func(name string) bool { return shown[name] == nil })
			rest = slices.DeleteFunc(rest, func(name string) bool { return slices.Contains(names, name) })
		}
		if len(names) > 0 {
			list(g.title, names)
		}
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
