package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newRoot is the command line: one line a command.
func newRoot(e *env) *cobra.Command {
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
		_, err := cmd.OutOrStdout().Write([]byte(usage(cmd)))
		return err
	})

	f := root.PersistentFlags()
	f.StringVar(&e.globals.root, "root", "", "`DIR` the store (default $MANIFESTCTL_ROOT, else $XDG_DATA_HOME/manifestctl)")
	e.addRegistryFlags(f)
	root.PersistentPreRunE = e.prepare

	root.AddCommand(
		newAdd(e),
		newAnnotate(e),
		newAppend(e),
		newBuild(e), newLock(e), newBake(),
		newCache(e),
		newCreate(e),
		newCopy(e),
		newEmulate(e),
		newMerge(e),
		newMutate(e),
		newDoctor(e),
		newDelete(e),
		newDiff(e),
		newDigest(e),
		newExists(e),
		newFlatten(e),
		newInspect(e),
		newLint(e),
		newLogin(e),
		newLogout(e),
		newLoad(e),
		newLs(e),
		newParity(e),
		newPush(e),
		newRebase(e),
		newRemove(e),
		newResolve(e),
		newRm(e),
		newRun(e),
		newSave(e),
		newServe(e),
		newSpec(e),
		newStage(e),
		newStore(e),
		newSync(e),
		newTag(e),
		newTags(e),
		newVerify(e),
		newVersion(e),
	)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
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
	if near, ok := nearest(args[0], names); ok {
		return err.withHint("did you mean %q?", near)
	}
	return err.withHint("`%s --help` lists the commands", cmd.CommandPath())
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
