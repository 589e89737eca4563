package main

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// runFlags are the flags of run, spelled as docker spells them.
type runFlags struct {
	host       hostFlags
	platforms  []string
	env        []string
	volumes    []string
	workdir    string
	user       string
	network    string
	entrypoint string
	rm         bool
	tty        bool
	steps      stepFlags
}

func newRun(e *env) *cobra.Command {
	var r runFlags
	cmd := &cobra.Command{
		Use:   "run [flags] REF [CMD...]",
		Short: "Run a program in an image, of any platform",
		Long: "run runs CMD (default: what the image says) in the image REF, in the sandbox that steps of a build run in: the same bytes\n" +
			"on every architecture, before they are pushed. REF is in a registry, in the store (store:NAME) or in a layout (oci:DIR).\n" +
			"What it changes is thrown away, as docker's --rm does it. Its exit code is that of the program: 126 when\n" +
			"it cannot be executed, 127 when it is not there, 128+N when signal N ended it; 137 when it went over a limit, which is said.\n\n" +
			"When standard input and output are a terminal, the program gets one of its own, of the same size; -t=false is against it.\n" +
			"Signals go to the program: the first SIGINT, SIGTERM or SIGHUP is its to act on, a second one ends it.",
		Example: "  manifestctl run --platform linux/arm64 store:hello:1.0\n" +
			"  manifestctl run --memory 256MB --pids 100 --timeout 1m registry.example.com/app:1.0 selftest\n" +
			"  manifestctl run -e LANG=C -v ./data:/data:ro oci:out /bin/sh -c 'ls /data'",
		Args: positional(1, 1<<20, "an image"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			p, o, err := r.process(e, cmd.Flags().Changed("entrypoint"), args)
			if err != nil {
				return err
			}
			ctx, signals, stop := forwardSignals(cmd.Context())
			defer stop()
			p.Signals = signals
			both := isTerminal(e.stdin) && isTerminal(e.stdout)
			switch asked := cmd.Flags().Changed("tty"); {
			case asked && r.tty && !both:
				return usagef("-t: standard input and output are no terminal").withHint("leave it away: where there is one, the program gets one")
			case both && (r.tty || !asked):
				t, err := openTerminal()
				if err != nil {
					return err
				}
				defer t.Close()
				p.Terminal, p.Stdin, p.Sizes = true, t, t.sizes
				if term := e.getenv("TERM"); term != "" {
					p.Env = append([]string{"TERM=" + term}, p.Env...)
				}
			}
			err = e.withStore(ctx, store.Options{}, func(st *store.Store) error {
				return build.RunProcess(ctx, st, p, o)
			})
			return exitOf(err)
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	r.host.add(f)
	f.StringArrayVar(&r.platforms, "platform", nil, "`PLATFORM` of the image (default: this machine's)")
	f.StringArrayVarP(&r.env, "env", "e", nil, "`KEY[=VALUE]` set a variable, or pass one of yours on; may be repeated")
	f.StringArrayVarP(&r.volumes, "volume", "v", nil, "`SOURCE:TARGET[:ro]` show a directory or file of yours; may be repeated")
	f.StringVarP(&r.workdir, "workdir", "w", "", "`DIR` working directory")
	f.StringVarP(&r.user, "user", "u", "", "`USER[:GROUP]` by name or number")
	f.StringVar(&r.network, "network", "none", "`NETWORK` none or host")
	f.StringVar(&r.entrypoint, "entrypoint", "", "`PROGRAM` in place of the image's entrypoint; \"\" for none")
	f.BoolVar(&r.rm, "rm", true, "as docker has it; nothing is ever kept")
	f.BoolVarP(&r.tty, "tty", "t", false, "a terminal for the program (default: when there is one)")
	f.BoolP("interactive", "i", true, "as docker has it; standard input is always passed on")
	hide(f, "interactive")
	r.steps.add(f)
	return cmd
}

// process is what the flags ask for.
func (r *runFlags) process(e *env, entrypoint bool, args []string) (p build.Process, o build.Options, err error) {
	if o, err = r.host.options(e); err != nil {
		return p, o, err
	}
	if err = r.steps.options(e, &o); err != nil {
		return p, o, err
	}
	o.Registry, o.Environ, o.Now, o.Parallel = e.registry(), e.getenv, e.now, 1
	o.Events = func(ev event.Event) {
		if ev.Kind == event.Warning {
			e.note("manifestctl: warning: %s", ev.Text)
		}
	}
	name, err := ref.Parse(args[0])
	if err != nil {
		return p, o, err
	}
	p = build.Process{
		Ref: name.String(), Args: args[1:], Cwd: r.workdir, User: r.user, Platform: emulate.Machine(),
		Stdin: e.stdin, Stdout: e.stdout, Stderr: e.stderr,
	}
	platforms, err := parsePlatforms(r.platforms)
	if err != nil {
		return p, o, err
	}
	switch {
	case len(platforms) > 1:
		return p, o, usagef("--platform: a program runs on one platform")
	case len(platforms) == 1:
		p.Platform = platforms[0]
	}
	switch r.network {
	case "none":
	case "host":
		p.HostNet = true
	default:
		return p, o, usagef("--network %s: want none or host", r.network)
	}
	if entrypoint {
		p.Entrypoint = &[]string{}
		if r.entrypoint != "" {
			p.Entrypoint = &[]string{r.entrypoint}
		}
	}
	for _, kv := range r.env {
		if !strings.Contains(kv, "=") {
			kv += "=" + e.getenv(kv)
		}
		p.Env = append(p.Env, kv)
	}
	for _, v := range r.volumes {
		f := strings.Split(v, ":")
		if len(f) < 2 || len(f) > 3 || f[0] == "" || !strings.HasPrefix(f[1], "/") || len(f) == 3 && !slices.Contains([]string{"ro", "rw"}, f[2]) {
			return p, o, usagef("--volume %s: want SOURCE:TARGET[:ro], TARGET from / on", v)
		}
		source, err := filepath.Abs(f[0])
		if err != nil {
			return p, o, usagef("--volume %s: %w", v, err)
		}
		p.Volumes = append(p.Volumes, build.Volume{Source: source, Target: f[1], ReadOnly: len(f) == 3 && f[2] == "ro"})
	}
	return p, o, nil
}

// programError is a program that ended with another code than 0: that is the exit code.
type programError struct {
	code int
	say  string // what the program cannot have said itself
}

func (p programError) Error() string { return p.say }

// exitOf passes on how a program ended.
func exitOf(err error) error {
	var exit *build.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	p := programError{code: exit.Code}
	if err.Error() != exit.Error() || exit.Reason != "" || exit.Signal != "" || exit.Limit != "" { // more than that it ended
		p.say = err.Error()
	}
	return p
}
