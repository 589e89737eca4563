package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/stage"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// stageFlags are the flags of merge that are about a stage.
type stageFlags struct {
	id     string
	repo   string
	expect []string
	wait   time.Duration
	grace  time.Duration
}

func (s *stageFlags) add(f *pflag.FlagSet) {
	f.StringVar(&s.id, "stage", "", "`ID` the sources are what `build --stage ID` left in DEST's repository")
	f.StringArrayVar(&s.expect, "expect", nil, "`OS/ARCH[/VARIANT][?],...` with --stage, the platforms of the index; '?' marks one that may be missing")
	f.DurationVar(&s.wait, "wait", 0, "`DURATION` with --stage, how long to wait for what is required: 30m")
	f.DurationVar(&s.grace, "grace", 0, "`DURATION` with --stage, how long to wait for the optional once the required is there")
	f.StringVar(&s.repo, "from", "", "`REPO` with --stage, where it is (default the repository of the first DEST)")
}

// check refuses flags that only a stage has a use for, and a stage without what it needs.
func (s *stageFlags) check(f *pflag.FlagSet) error {
	if s.id == "" {
		for _, name := range []string{"expect", "wait", "grace", "from"} {
			if f.Changed(name) {
				return usagef("--%s is for --stage", name).withHint("--stage ID names what `build --stage ID` has left")
			}
		}
		return nil
	}
	if len(s.expect) == 0 {
		return usagef("--stage needs --expect: which platforms make the index complete").
			withHint("--expect linux/amd64,linux/arm64,linux/riscv64? where '?' marks one that may be missing")
	}
	if s.wait < 0 || s.grace < 0 {
		return usagef("--wait and --grace: want a time to come")
	}
	return nil
}

// repository is where the stage is.
func (s *stageFlags) repository(names []ref.Ref) (ref.Ref, error) {
	if s.repo != "" {
		r, err := ref.Parse(s.repo)
		if err != nil {
			return r, err
		}
		if r.Kind != ref.Registry {
			return r, usagef("--from %q is not in a registry", s.repo)
		}
		return r.WithTag(""), nil
	}
	if names[0].Kind != ref.Registry {
		return ref.Ref{}, usagef("%s is not in a registry: --from REPO says where the stage is", names[0])
	}
	return names[0].WithTag(""), nil
}

// merge makes the index of a stage.
func (s *stageFlags) merge(ctx context.Context, e *env, env transfer.Env, names []ref.Ref, more []transfer.MergeSource, o transfer.MergeOptions) (transfer.Merged, error) {
	repo, err := s.repository(names)
	if err != nil {
		return transfer.Merged{}, err
	}
	so := stage.Options{MergeOptions: o, Wait: s.wait, Grace: s.grace, Waiting: func(missing []stage.Expected) {
		words := make([]string, 0, len(missing))
		for _, m := range missing {
			word := m.Platform.String()
			if m.Optional {
				word += " (optional)"
			}
			words = append(words, word)
		}
		e.note("stage %s: waiting for %s", s.id, strings.Join(words, ", "))
	}}
	if so.Expect, err = stage.ParseExpected(s.expect...); err != nil {
		return transfer.Merged{}, err
	}
	done, err := stage.Merge(ctx, env, repo, s.id, names, more, so)
	if err == nil {
		for _, p := range done.Missing {
			e.note("note: %s is optional and missing: the index says so in %s", p, stage.AnnotationMissing)
		}
	}
	return done.Merged, err
}

func newStage(e *env) *cobra.Command {
	cmd := group("stage", "Look at and remove what `build --stage` left in a repository", newStageLs(e), newStageRm(e))
	cmd.Long = "A stage is where the machines of a CI pipeline meet: each runs `build --platform P --push --stage ID -t NAME`, which leaves the\n" +
		"image of P in NAME's repository under the tag _stage.ID.OS-ARCH, and one runs `merge --stage ID --expect P,... -t NAME`.\n" +
		"No file passes between them. An ID is for one run of a pipeline: $CI_PIPELINE_ID, $GITHUB_RUN_ID."
	return cmd
}

func newStageLs(e *env) *cobra.Command {
	var id, format string
	cmd := &cobra.Command{
		Use:     "ls [flags] REPO",
		Short:   "List what is staged in a repository",
		Example: "  manifestctl stage ls registry.example/app\n  manifestctl stage ls --stage 4711 --format json registry.example/app",
		Args:    positional(1, 1, "REPO"),
		RunE: func(cmd *cobra.Command, args []string) error {
			asJSON, err := formatFlag(format)
			if err != nil {
				return err
			}
			return e.withStage(args[0], func(client *registry.Client, repo ref.Ref) error {
				list, err := stage.List(cmd.Context(), client, repo, id)
				if err != nil {
					return err
				}
				if asJSON {
					if list == nil {
						list = []stage.Staged{}
					}
					return e.printJSON(list)
				}
				rows := [][]string{{"STAGE", "PLATFORM", "IMAGE", "AGE"}}
				for _, s := range list {
					age := "-"
					if !s.Created.IsZero() {
						age = ago(e.now().Sub(s.Created))
					}
					rows = append(rows, []string{s.ID, s.Platform.String(), s.Image.Digest.String(), age})
				}
				return e.printTable(rows)
			})
		},
	}
	cmd.Flags().StringVar(&id, "stage", "", "`ID` of this stage only")
	cmd.Flags().StringVar(&format, "format", "table", "`FORMAT` table or json")
	return cmd
}

func newStageRm(e *env) *cobra.Command {
	var (
		id     string
		older  time.Duration
		dryRun bool
	)
	cmd := &cobra.Command{
		Use:   "rm [flags] REPO",
		Short: "Remove the tags of a stage, or of all that are old",
		Long: "rm removes tags of stages and nothing that an index was made of. One of --stage and --older says which; what another\n" +
			"program has pushed to a stage's tag has no age, and goes with its stage only. Each tag is printed.",
		Example: "  manifestctl stage rm --stage 4711 registry.example/app\n  manifestctl stage rm --older 168h registry.example/app",
		Args:    positional(1, 1, "REPO"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if id == "" && older <= 0 {
				return usagef("nothing says what to remove: give --stage ID or --older DURATION")
			}
			return e.withStage(args[0], func(client *registry.Client, repo ref.Ref) error {
				list, err := stage.List(cmd.Context(), client, repo, id)
				if err != nil {
					return err
				}
				kept := list[:0]
				for _, s := range list {
					if older <= 0 || !s.Created.IsZero() && e.now().Sub(s.Created) >= older {
						kept = append(kept, s)
					}
				}
				if !dryRun {
					if err := stage.Remove(cmd.Context(), client, repo, kept); err != nil {
						return err
					}
				}
				for _, s := range kept {
					if err := e.println(repo.WithTag(s.Tag)); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&id, "stage", "", "`ID` of this stage only")
	cmd.Flags().DurationVar(&older, "older", 0, "`DURATION` what was staged at least so long ago: 168h")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "remove nothing, and say what would be")
	return cmd
}

// withStage opens a repository for the time of f.
func (e *env) withStage(name string, f func(client *registry.Client, repo ref.Ref) error) error {
	repo, err := ref.Parse(name)
	if err != nil {
		return err
	}
	if repo.Kind != ref.Registry {
		return usagef("%q is not in a registry: stages are", name)
	}
	client := registry.New(e.registry())
	defer client.Close()
	return f(client, repo.WithTag(""))
}
