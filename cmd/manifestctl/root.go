package main

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newRoot is the command line; args say which of its commands are needed ([commands]).
func newRoot(e *env, args []string) *cobra.Command {
	root := &cobra.Command{
		Use:   "manifestctl",
		Short: "Build multi-architecture container images, without a daemon and without root",
		Long: "manifestctl builds multi-architecture container images and works on their manifest lists:\n" +
			"one program, no daemon, no root, no privileged setup.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          unknownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(flagError)
	root.SetUsageFunc(func(cmd *cobra.Command) error {
		width := 0
		if e.size != nil {
			width, _ = e.size()
		}
		_, err := cmd.OutOrStdout().Write([]byte(usage(cmd, width)))
		return err
	})

	f := root.PersistentFlags()
	f.StringVar(&e.globals.root, "root", "", "`DIR` the store (default $MANIFESTCTL_ROOT, else $XDG_DATA_HOME/manifestctl)")
	e.addRegistryFlags(f)
	root.PersistentPreRunE = e.prepare

	root.AddCommand(commands(e, args)...)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}

// table has the names of each command and what makes it.
var table = []struct {
	names []string
	make  func(*env) *cobra.Command
}{
	{[]string{"add"}, newAdd},
	{[]string{"annotate"}, newAnnotate},
	{[]string{"append"}, newAppend},
	{[]string{"build", "b"}, newBuild},
	{[]string{"lock"}, newLock},
	{[]string{"bake"}, func(*env) *cobra.Command { return newBake() }},
	{[]string{"builder"}, newBuilder},
	{[]string{"cache"}, newCache},
	{[]string{"create"}, newCreate},
	{[]string{"copy", "cp"}, newCopy},
	{[]string{"emulate"}, newEmulate},
	{[]string{"merge"}, newMerge},
	{[]string{"mutate"}, newMutate},
	{[]string{"doctor"}, newDoctor},
	{[]string{"delete"}, newDelete},
	{[]string{"diff"}, newDiff},
	{[]string{"digest"}, newDigest},
	{[]string{"exists"}, newExists},
	{[]string{"flatten"}, newFlatten},
	{[]string{"inspect"}, newInspect},
	{[]string{"lint"}, newLint},
	{[]string{"login"}, newLogin},
	{[]string{"logout"}, newLogout},
	{[]string{"load"}, newLoad},
	{[]string{"ls", "list"}, newLs},
	{[]string{"parity"}, newParity},
	{[]string{"pull"}, newPull},
	{[]string{"push"}, newPush},
	{[]string{"rebase"}, newRebase},
	{[]string{"remove"}, newRemove},
	{[]string{"resolve"}, newResolve},
	{[]string{"rm"}, newRm},
	{[]string{"run"}, newRun},
	{[]string{"save"}, newSave},
	{[]string{"serve"}, newServe},
	{[]string{"spec"}, newSpec},
	{[]string{"stage"}, newStage},
	{[]string{"store"}, newStore},
	{[]string{"sync"}, newSync},
	{[]string{"tag"}, newTag},
	{[]string{"tags"}, newTags},
	{[]string{"verify"}, newVerify},
	{[]string{"version"}, newVersion},
}

// commands makes the command that args name first, or all: to make the flags of all takes 1 ms of every start.
func commands(e *env, args []string) []*cobra.Command {
	for _, row := range table {
		if len(args) > 0 && slices.Contains(row.names, args[0]) {
			return []*cobra.Command{row.make(e)}
		}
	}
	all := make([]*cobra.Command, 0, len(table))
	for _, row := range table {
		all = append(all, row.make(e))
	}
	return all
}

// group is a command that only holds others.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		Args:  unknownCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(subs...)
	return cmd
}

// unknownCommand refuses arguments of a command that only holds others, and names the nearest one.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := usagef("unknown command %q for %q", args[0], cmd.CommandPath())
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	if instead := peersWords[args[0]]; instead != "" && !cmd.HasParent() {
		return err.withHint("%s; docs/migrating.md has the commands of other tools beside these", instead)
	}
	if near, ok := nearest(args[0], names); ok {
		return err.withHint("did you mean %q?", near)
	}
	return err.withHint("`%s --help` lists the commands", cmd.CommandPath())
}

// peersWords are commands that other tools have, and what does that here.
var peersWords = map[string]string{
	"buildx":     "`manifestctl build` and `manifestctl builder` need no word before them",
	"image":      "`manifestctl store ls` lists the images here, `manifestctl inspect` shows one",
	"images":     "`manifestctl store ls` lists the images here",
	"imagetools": "`manifestctl merge` makes an index of images, `manifestctl inspect` shows one",
	"index":      "`manifestctl merge` makes an index of images, with --append onto one",
	"manifest":   "`manifestctl create`, `annotate`, `push`, `inspect` and the others need no word before them",
	"prune":      "`manifestctl cache prune` frees what makes builds faster, `manifestctl store gc` what nothing refers to",
	"rmi":        "`manifestctl store rm` removes a name from the store, `manifestctl delete` a tag from a registry",
	"auth":       "`manifestctl login` and `manifestctl logout`",
	"registry":   "`manifestctl serve DIR` is a registry",
	"validate":   "`manifestctl verify` looks at contents, `manifestctl lint` at an index",
}

// positional accepts between least and most arguments; words says which.
func positional(least, most int, words string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		usage := "usage: " + useLine(cmd)
		switch {
		case len(args) < least:
			return usagef("%s needs %s", cmd.CommandPath(), words).withHint("%s", usage)
		case len(args) > most:
			return usagef("unexpected argument %q", args[most]).withHint("%s", usage)
		}
		return nil
	}
}

// flagError makes a usageError of what pflag refused, and names the nearest flag.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		e := usagef("unknown flag: --%s", unknown.GetSpecifiedName())
		if unknown.GetSpecifiedShortnames() != "" {
			e = usagef("unknown flag: -%s", unknown.GetSpecifiedName())
		}
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, f.Name)
			}
		})
		if near, ok := nearest(unknown.GetSpecifiedName(), names); ok {
			return e.withHint("did you mean --%s?", near)
		}
		return e.withHint("`%s --help` lists the flags", cmd.CommandPath())
	}
	return &usageError{text: err.Error(), err: err, hint: hintFor(err)}
}

// nearest returns the candidate that name was most likely meant to be.
func nearest(name string, candidates []string) (string, bool) {
	best, found := len(name)/3+2, ""
	for _, c := range candidates {
		d := distance(strings.ToLower(name), c)
		if len(name) > 2 && strings.HasPrefix(c, strings.ToLower(name)) {
			d = min(d, 1)
		}
		if d < best {
			best, found = d, c
		}
	}
	return found, found != ""
}

// distance is the number of single-byte edits between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
