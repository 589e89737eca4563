package main

import (
	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/pkg/build"
)

// taggingFlags say what becomes of platforms that a tag has and a build does not make.
type taggingFlags struct{ append, drop bool }

func (t *taggingFlags) add(f *pflag.FlagSet) {
	f.BoolVar(&t.append, "append", false, "add to what the tags have, safely beside other writers, instead of replacing it")
	f.BoolVar(&t.drop, "drop-platforms", false, "replace tags although they have platforms that are not built; without it that is an error, exit code 5")
}

func (t *taggingFlags) parse() (build.Tagging, error) {
	switch {
	case t.append && t.drop:
		return 0, usagef("--append keeps platforms and --drop-platforms drops them: give one of them")
	case t.append:
		return build.AppendToTags, nil
	case t.drop:
		return build.DropFromOldTags, nil
	}
	return build.KeepTags, nil
}
