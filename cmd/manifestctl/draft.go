package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/pkg/draft"
	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// draftText is what the help of every command on drafts says first.
const draftText = "A draft is an index in the store under its name: one that `create` or `build -t` made, until `push` brings it to a registry."

// withDrafts opens the store and its drafts for the time of f.
func (e *env) withDrafts(ctx context.Context, o store.Options, f func(*draft.Drafts) error) error {
	return e.withStore(ctx, o, func(st *store.Store) error {
		o := e.registry()
		var done func()
		o.Events, done = e.transferProgress()
		defer done()
		client := registry.New(o)
		defer client.Close()
		return f(&draft.Drafts{Store: st, Opener: &source.Opener{Store: st, Registry: client}})
	})
}

// hasStore reports whether there is a store at all: without one there are no drafts.
func (e *env) hasStore() (bool, error) {
	root, err := e.storeRoot()
	if err != nil {
		return false, err
	}
	_, err = os.Lstat(root)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// notes prints what a change did beyond what was asked for.
func (e *env) notes(lines []string) {
	for _, l := range lines {
		e.note("%s", l)
	}
}

// parseRefs reads references.
func parseRefs(args []string) ([]ref.Ref, error) {
	out := make([]ref.Ref, 0, len(args))
	for _, a := range args {
		r, err := ref.Parse(a)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// platformFlags say of which platform an entry is.
type platformFlags struct {
	os, arch, variant, osVersion string
	osFeatures, features         []string
}

func (p *platformFlags) add(f *pflag.FlagSet) {
	f.StringVar(&p.os, "os", "", "`OS` operating system of the entry")
	f.StringVar(&p.arch, "arch", "", "`ARCH` architecture of the entry")
	f.StringVar(&p.variant, "variant", "", "`VARIANT` variant of the architecture: v7 of arm, v8 of arm64 if it is to be written")
	f.StringVar(&p.osVersion, "os-version", "", "`VERSION` version of the operating system, as Windows images need it")
	f.StringSliceVar(&p.osFeatures, "os-features", nil, "`FEATURE,...` what the image needs of the operating system")
	f.StringSliceVar(&p.features, "features", nil, "`FEATURE,...` what the image needs of the processor")
}

// patch is what the flags that were given say; an empty value removes a part.
func (p *platformFlags) patch(f *pflag.FlagSet) index.PlatformPatch {
	var out index.PlatformPatch
	text := func(name string, to **string, value *string) {
		if f.Changed(name) {
			*to = value
		}
	}
	text("os", &out.OS, &p.os)
	text("arch", &out.Arch, &p.arch)
	text("variant", &out.Variant, &p.variant)
	text("os-version", &out.OSVersion, &p.osVersion)
	if f.Changed("os-features") {
		out.OSFeatures = &p.osFeatures
	}
	if f.Changed("features") {
		out.Features = &p.features
	}
	return out
}

// allFlag accepts podman's --all, which is what happens anyway.
func allFlag(f *pflag.FlagSet) {
	f.BoolFunc("all", "podman's spelling of what is done anyway", func(s string) error {
		if s != "true" {
			return usagef("--all=%s: an index is always of all that it names; --platform leaves some out", s)
		}
		return nil
	})
	f.Lookup("all").Hidden = true
}

// dockerConfig is the directory of docker's configuration.
func (e *env) dockerConfig() (string, error) {
	if dir := e.getenv("DOCKER_CONFIG"); dir != "" {
		return dir, nil
	}
	if home := e.getenv("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".docker"), nil
	}
	return "", usagef("docker's configuration cannot be found: HOME is not set").withHint("set DOCKER_CONFIG")
}

// listName reads the name of a draft.
func listName(arg string) (ref.Ref, error) {
	r, err := ref.Parse(arg)
	if err != nil {
		return r, err
	}
	_, err = draft.Name(r)
	return r, err
}

// draftRef is the reference of a draft's name in the store.
func draftRef(r ref.Ref) (ref.Ref, error) {
	name, err := draft.Name(r)
	if err != nil {
		return r, err
	}
	return ref.Parse("store:" + strings.TrimPrefix(name, "docker://"))
}

func newExists(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "exists LIST",
		Short: "Tell by the exit code whether a draft exists: 0 or 1",
		Long:  draftText,
		Args:  positional(1, 1, "LIST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := listName(args[0])
			if err != nil {
				return err
			}
			if there, err := e.hasStore(); err != nil {
				return err
			} else if !there {
				return errQuiet
			}
			err = e.withDrafts(cmd.Context(), store.Options{ReadOnly: true}, func(d *draft.Drafts) error {
				_, err := d.Get(cmd.Context(), r)
				return err
			})
			if errors.Is(err, store.ErrNotFound) || errors.Is(err, draft.ErrNotIndex) {
				return errQuiet
			}
			return err
		},
	}
}

func newRm(e *env) *cobra.Command {
	var ignore bool
	cmd := &cobra.Command{
		Use:   "rm [flags] LIST...",
		Short: "Remove drafts; `store gc` then frees what only they reached",
		Long:  draftText + "\n\nWhat is in registries stays there: see `delete`.",
		Args:  positional(1, 1<<20, "LIST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			lists := make([]ref.Ref, 0, len(args))
			for _, a := range args {
				r, err := listName(a)
				if err != nil {
					return err
				}
				lists = append(lists, r)
			}
			return e.withDrafts(cmd.Context(), store.Options{}, func(d *draft.Drafts) error {
				var errs []error
				for _, r := range lists {
					if err := d.Remove(cmd.Context(), r); err != nil && !(ignore && errors.Is(err, store.ErrNotFound)) {
						errs = append(errs, err)
					}
				}
				return errors.Join(errs...)
			})
		},
	}
	cmd.Flags().BoolVarP(&ignore, "ignore", "i", false, "it is no error when one does not exist")
	return cmd
}
