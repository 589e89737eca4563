package main

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/manifestctl/manifestctl/pkg/builder"
)

func newBuilder(e *env) *cobra.Command {
	cmd := group("builder", "The machines that builds run on", newBuilderLs(e), newBuilderCreate(e), newBuilderUse(e),
		newBuilderInspect(e), newBuilderRm(e), newBuilderStop(e), newBuilderDu(e), newBuilderPrune(e))
	cmd.Long = "A builder is one or more nodes under a name: BuildKit daemons, or this machine. The builder \"local\" is this program,\n" +
		"which needs no daemon; it is the one that is used as long as no other is chosen. A build goes to as many nodes as its\n" +
		"platforms need: to one that runs a platform natively before one that emulates it.\n\n" +
		"Which builder a build uses: --builder, else MANIFESTCTL_BUILDER, else BUILDX_BUILDER, else the one of `builder use`.\n" +
		"Builders are kept in $XDG_CONFIG_HOME/manifestctl. Those of docker buildx are listed and can be used, and are never changed."
	return cmd
}

// builders is where this user's builders are.
func (e *env) builders() (builder.Config, error) {
	dir, ok := e.configDir()
	if !ok {
		return builder.Config{}, usagef("no place for builders: HOME is not set").withHint("set HOME or XDG_CONFIG_HOME")
	}
	c := builder.Config{Dir: filepath.Join(dir, "manifestctl")}
	switch {
	case e.getenv("BUILDX_CONFIG") != "":
		c.Buildx = e.getenv("BUILDX_CONFIG")
	case e.getenv("DOCKER_CONFIG") != "":
		c.Buildx = filepath.Join(e.getenv("DOCKER_CONFIG"), "buildx")
	case filepath.IsAbs(e.getenv("HOME")):
		c.Buildx = filepath.Join(e.getenv("HOME"), ".docker", "buildx")
	}
	return c, nil
}

// configDir is where programs of this user keep what they were told.
func (e *env) configDir() (string, bool) {
	for _, name := range []string{"XDG_CONFIG_HOME", "APPDATA"} { // the second is set on Windows
		if dir := e.getenv(name); filepath.IsAbs(dir) {
			return dir, true
		}
	}
	home := e.getenv("HOME")
	return filepath.Join(home, ".config"), filepath.IsAbs(home)
}

// builderName is the name of the builder of builds that were given flag, and where it comes from.
func (e *env) builderName(c builder.Config, flag string) (name, from string, err error) {
	for _, one := range []struct{ name, from string }{
		{flag, "--builder"}, {e.getenv("MANIFESTCTL_BUILDER"), "MANIFESTCTL_BUILDER"}, {e.getenv("BUILDX_BUILDER"), "BUILDX_BUILDER"},
	} {
		if one.name != "" {
			return one.name, one.from, nil
		}
	}
	name, err = c.Current()
	return name, "builder use", err
}

// builder is the builder of builds that were given flag.
func (e *env) builder(flag string) (builder.Builder, error) {
	c, err := e.builders()
	if err != nil {
		if flag == "" || flag == builder.Local {
			return builder.Builder{Name: builder.Local}, nil // nothing can have been configured
		}
		return builder.Builder{}, err
	}
	name, from, err := e.builderName(c, flag)
	if err != nil {
		return builder.Builder{}, err
	}
	b, err := c.Get(name)
	if errors.Is(err, builder.ErrNotFound) {
		if name == "default" { // docker's own: as good as none
			return c.Get(builder.Local)
		}
		hint := "`manifestctl builder ls` lists them"
		if from == "builder use" {
			hint = "it is the one in use: `manifestctl builder use local` goes back to this machine"
		}
		return b, &usageError{text: err.Error() + " (" + from + ")", err: err, hint: hint}
	}
	return b, err
}

func newBuilderCreate(e *env) *cobra.Command {
	var ch builder.Change
	var platforms, options []string
	var leave, use, bootstrap bool
	cmd := &cobra.Command{
		Use:   "create [flags] [ENDPOINT]",
		Short: "Make a builder, or add a node to one",
		Long: "create makes a builder with one node, the BuildKit daemon at ENDPOINT, and prints its name. With --append it adds the\n" +
			"node to a builder that exists, with --node it changes that node, and with --leave it takes it out. ENDPOINT is one of\n  " +
			strings.Join(builder.EndpointForms(), "\n  ") + "\n" +
			"With --driver local the node is this machine: it builds what no other node of the builder builds natively.\n\n" +
			"tcp:// is encrypted with --driver-opt: cacert=FILE is who signed the daemon's certificate, cert=FILE,key=FILE are ours, and\n" +
			"servername=NAME is whom the daemon's certificate must name. Nothing is made: the daemon is there already. A container that\n" +
			"is stopped is started by --bootstrap, or by the build that needs it.",
		Example: "  manifestctl builder create --name farm --driver remote --driver-opt cacert=ca.pem,cert=cert.pem,key=key.pem tcp://amd:1234\n" +
			"  manifestctl builder create --append --name farm --platform linux/arm64 ssh://me@arm\n" +
			"  manifestctl builder create --use kube-pod://buildkit-0",
		Args: positional(0, 1, ""),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			for _, name := range daemonFlags {
				if cmd.Flags().Changed(name) {
					return usagef("--%s is for a daemon that is started, and create starts none", name).withHint("say it where BuildKit is started: buildkitd --help, buildkitd.toml")
				}
			}
			c, err := e.builders()
			if err != nil {
				return err
			}
			if leave {
				return e.builderLeave(c, ch, args)
			}
			if len(args) == 1 {
				ch.Endpoint = args[0]
			}
			if ch.Platforms, err = parsePlatforms(platforms); err != nil {
				return err
			}
			if ch.Options, err = driverOptions(options); err != nil {
				return err
			}
			b, err := c.Create(ch)
			if err != nil {
				return err
			}
			if use {
				if err := c.Use(b.Name); err != nil {
					return err
				}
			}
			if bootstrap {
				if err := e.bootstrap(cmd.Context(), b); err != nil {
					return err
				}
			}
			return e.println(b.Name)
		},
	}
	f := cmd.Flags()
	f.StringVar(&ch.Name, "name", "", "`NAME` of the builder (default: builder0, or the next that is free)")
	f.StringVar(&ch.Node, "node", "", "`NAME` of the node (default: the builder's name and a number)")
	f.StringVar(&ch.Driver, "driver", "", "`DRIVER` remote, a BuildKit daemon at ENDPOINT, or local, this machine (default: remote with an ENDPOINT)")
	f.StringArrayVar(&options, "driver-opt", nil, "`KEY=VALUE,...` cacert, cert, key and servername of a tcp:// endpoint; may be repeated")
	f.StringSliceVar(&platforms, "platform", nil, "`PLATFORM,...` that the node is for (default: what it reports)")
	f.BoolVar(&ch.Append, "append", false, "add the node to a builder that exists")
	f.BoolVar(&leave, "leave", false, "take the node out of the builder")
	f.BoolVar(&use, "use", false, "make it the builder of builds that name none")
	f.BoolVar(&bootstrap, "bootstrap", false, "check that the nodes answer; start containers that are stopped")
	for _, name := range daemonFlags {
		f.String(name, "", "not supported: nothing is started")
	}
	hide(f, daemonFlags...)
	return cmd
}

// daemonFlags are buildx's for the daemons that it starts.
var daemonFlags = []string{"buildkitd-flags", "buildkitd-config", "config", "flags"}

// builderLeave is create --leave.
func (e *env) builderLeave(c builder.Config, ch builder.Change, args []string) error {
	switch {
	case len(args) > 0:
		return usagef("--leave takes no endpoint")
	case ch.Append:
		return usagef("--leave and --append exclude each other")
	case ch.Name == "" || ch.Node == "":
		return usagef("--leave needs --name and --node")
	}
	b, err := c.Leave(ch.Name, ch.Node)
	if err != nil {
		return err
	}
	return e.println(b.Name)
}

// driverOptions reads --driver-opt. Files become absolute: the builder is used from other directories.
func driverOptions(values []string) (builder.Options, error) {
	var o builder.Options
	for _, v := range values {
		for one := range strings.SplitSeq(v, ",") {
			key, value, ok := strings.Cut(one, "=")
			if !ok || value == "" {
				return o, usagef("--driver-opt %q: want KEY=VALUE", one)
			}
			field, isFile := map[string]*string{
				"cacert": &o.CACert, "cert": &o.Cert, "key": &o.Key, "servername": &o.ServerName,
			}[key], key != "servername"
			if field == nil {
				return o, usagef("--driver-opt %q: want cacert, cert, key or servername", key)
			}
			if isFile {
				path, err := filepath.Abs(value)
				if err != nil {
					return o, usagef("--driver-opt %s: %w", key, err)
				}
				value = path
			}
			*field = value
		}
	}
	return o, nil
}

func newBuilderUse(e *env) *cobra.Command {
	var ignored bool
	cmd := &cobra.Command{
		Use:     "use NAME",
		Short:   "Choose the builder of builds that name none",
		Example: "  manifestctl builder use farm\n  manifestctl builder use local",
		Args:    positional(1, 1, "the name of a builder"),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := e.builders()
			if err != nil {
				return err
			}
			name := args[0]
			if _, err := c.Get(name); errors.Is(err, builder.ErrNotFound) && name == "default" { // docker's own: as good as none
				name = builder.Local
			}
			return c.Use(name)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&ignored, "default", false, "accepted for buildx's sake: there is one choice for all of docker's contexts")
	f.BoolVar(&ignored, "global", false, "accepted for buildx's sake")
	hide(f, "default", "global")
	return cmd
}

func newBuilderRm(e *env) *cobra.Command {
	var force, inactive, ignored bool
	cmd := &cobra.Command{
		Use:     "rm NAME...",
		Aliases: []string{"remove"},
		Short:   "Remove builders; the daemons of their nodes are left alone",
		Example: "  manifestctl builder rm farm\n  manifestctl builder rm --all-inactive",
		Args:    positional(0, 1000, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := e.builders()
			if err != nil {
				return err
			}
			switch {
			case inactive && len(args) > 0:
				return usagef("--all-inactive takes no names")
			case inactive:
				if args, err = e.inactive(cmd.Context(), c); err != nil {
					return err
				}
			case len(args) == 0:
				return usagef("name a builder to remove").withHint("`manifestctl builder ls` lists them")
			}
			var errs []error
			for _, name := range args {
				if err := c.Remove(name); err != nil {
					if force && errors.Is(err, builder.ErrNotFound) {
						continue
					}
					errs = append(errs, err)
					continue
				}
				e.note("%s removed", name)
			}
			return errors.Join(errs...)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&force, "force", "f", false, "one that is not there is no error")
	f.BoolVar(&inactive, "all-inactive", false, "all whose nodes do not answer")
	f.BoolVar(&ignored, "keep-state", false, "accepted for buildx's sake: daemons and what they keep are never touched")
	f.BoolVar(&ignored, "keep-daemon", false, "accepted for buildx's sake")
	hide(f, "keep-state", "keep-daemon")
	return cmd
}

// inactive are our builders of which no node answers.
func (e *env) inactive(ctx context.Context, c builder.Config) ([]string, error) {
	all, err := c.List()
	if err != nil {
		return nil, err
	}
	ours := slices.DeleteFunc(all, func(b builder.Builder) bool { return b.Origin != "" || b.Name == builder.Local })
	var names []string
	for _, b := range e.look(ctx, ours, "", 5*time.Second) {
		if !slices.ContainsFunc(b.Nodes, func(n nodeInfo) bool { return n.Status == statusRunning }) {
			names = append(names, b.Name)
		}
	}
	return names, nil
}
