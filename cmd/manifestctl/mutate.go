package main

import (
	"encoding/csv"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/pkg/edit"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// configFlags are what of a config can be changed.
type configFlags struct {
	env, labels, entrypoint, cmd, ports, volumes []string
	user, workdir, stopSignal, author, created   string
	platform                                     string
	change                                       edit.Change
}

func (c *configFlags) add(f *pflag.FlagSet) {
	f.StringArrayVarP(&c.env, "env", "e", nil, "`NAME=VALUE` set a variable; may be repeated")
	f.StringSliceVar(&c.change.UnsetEnv, "unset-env", nil, "`NAME,...` remove variables")
	f.StringArrayVarP(&c.labels, "label", "l", nil, "`KEY=VALUE` set a label; may be repeated")
	f.StringSliceVar(&c.change.UnsetLabels, "unset-label", nil, "`KEY,...` remove labels")
	f.StringArrayVar(&c.entrypoint, "entrypoint", nil, "`WORDS` as [\"a\",\"b\"] or a,b; \"\" removes it; the command goes away with the old one")
	f.StringArrayVar(&c.cmd, "cmd", nil, "`WORDS` as [\"a\",\"b\"] or a,b; \"\" removes it")
	f.StringVarP(&c.user, "user", "u", "", "`USER[:GROUP]` \"\" removes it")
	f.StringVarP(&c.workdir, "workdir", "w", "", "`DIR` \"\" removes it")
	f.StringSliceVar(&c.ports, "exposed-ports", nil, "`PORT[/tcp],...` add ports")
	f.StringSliceVar(&c.change.UnsetPorts, "unset-ports", nil, "`PORT[/tcp],...` remove ports")
	f.StringSliceVar(&c.volumes, "volume", nil, "`PATH,...` add volumes")
	f.StringSliceVar(&c.change.UnsetVolumes, "unset-volume", nil, "`PATH,...` remove volumes")
	f.StringVar(&c.stopSignal, "stop-signal", "", "`SIGNAL` \"\" removes it")
	f.StringVar(&c.author, "author", "", "`NAME` \"\" removes it")
	f.StringVar(&c.created, "created", "", "`TIME` RFC 3339 or seconds since 1970")
	f.StringVar(&c.platform, "set-platform", "", "`OS/ARCH[/VARIANT][:OSVERSION]` what one image is for, in its config and in the index")
	// The peers' spellings.
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if own, ok := configSpellings[name]; ok {
			name = own
		}
		return pflag.NormalizedName(name)
	})
}

// parse makes a change of the flags that were given.
func (c *configFlags) parse(f *pflag.FlagSet) (edit.Change, error) {
	o := c.change
	text := func(name string, to **string, value *string) {
		if f.Changed(name) {
			*to = value
		}
	}
	text("user", &o.User, &c.user)
	text("workdir", &o.WorkingDir, &c.workdir)
	text("stop-signal", &o.StopSignal, &c.stopSignal)
	text("author", &o.Author, &c.author)
	for _, v := range c.env {
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" {
			return o, usagef("--env %q: want NAME=VALUE", v)
		}
	}
	o.Env, o.ExposedPorts, o.Volumes = c.env, c.ports, c.volumes
	var err error
	if o.Labels, err = keyValues("label", c.labels, func(string) (string, bool) { return "", true }); err != nil {
		return o, err
	}
	if f.Changed("entrypoint") {
		if o.Entrypoint, err = words("entrypoint", c.entrypoint); err != nil {
			return o, err
		}
	}
	if f.Changed("cmd") {
		if o.Cmd, err = words("cmd", c.cmd); err != nil {
			return o, err
		}
	}
	if c.created != "" {
		at, err := parseTime(c.created)
		if err != nil {
			return o, usagef("--created %q: want RFC 3339 (2026-01-02T15:04:05Z) or seconds since 1970", c.created)
		}
		o.Created = &at
	}
	if c.platform != "" {
		p, err := parsePlatform(c.platform)
		if err != nil {
			return o, err
		}
		oci := p.OCI()
		o.Platform.OS, o.Platform.Arch, o.Platform.Variant = &oci.OS, &oci.Architecture, &oci.Variant
		if oci.OSVersion != "" {
			o.Platform.OSVersion = &oci.OSVersion
		}
	}
	return o, nil
}

func parseTime(s string) (time.Time, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.Unix(n, 0).UTC(), nil
	}
	return time.Parse(time.RFC3339, s)
}

// words reads the words of a command: JSON, or separated by commas as crane has them. They are never nil.
func words(flag string, values []string) ([]string, error) {
	out := []string{}
	for _, v := range values {
		if strings.HasPrefix(strings.TrimSpace(v), "[") {
			var list []string
			if err := json.Unmarshal([]byte(v), &list); err != nil {
				return nil, usagef("--%s %q: want a JSON list of strings, or words with commas between", flag, v)
			}
			out = append(out, list...)
			continue
		}
		if v == "" {
			continue
		}
		list, err := csv.NewReader(strings.NewReader(v)).Read()
		if err != nil {
			return nil, usagef("--%s %q: want a JSON list of strings, or words with commas between", flag, v)
		}
		out = append(out, list...)
	}
	return out, nil
}

func newMutate(e *env) *cobra.Command {
	var d editFlags
	var c configFlags
	var layers, gone []string
	cmd := &cobra.Command{
		Use:   "mutate [flags] REF -t NEW",
		Short: "Change config and annotations of an image, or of every image of an index",
		Long:  "mutate changes what images say of themselves.\n\n" + editText,
		Example: "  manifestctl mutate registry.example/app:1.0 -t registry.example/app:1.0-fixed --label maintainer=me --user 1000\n" +
			"  manifestctl mutate oci:app:1.0 -t oci:app:1.1 --platform linux/arm64 --env 'OPTS=-march=native'\n" +
			"  manifestctl mutate app.example/x:1 --replace -a org.opencontainers.image.licenses=MIT -a index:note=checked",
		Args: positional(1, 1, "REF"),
		RunE: func(cmd *cobra.Command, args []string) error {
			change, err := c.parse(cmd.Flags())
			if err != nil {
				return err
			}
			return e.edited(cmd.Context(), &d, args[0], nil, func(env transfer.Env, src ref.Ref, names []ref.Ref, o edit.Options) (edit.Result, error) {
				if o.Remove, err = entriesNamed(gone); err != nil {
					return edit.Result{}, err
				}
				if len(layers) > 0 {
					return edit.Append(cmd.Context(), env, src, names, layers, edit.AppendOptions{Options: o, Change: change})
				}
				return edit.Mutate(cmd.Context(), env, src, names, change, o)
			})
		},
	}
	f := cmd.Flags()
	d.add(e, f)
	f.StringArrayVar(&layers, "append", nil, "`LAYER.tar` add a layer too; may be repeated")
	f.StringSliceVar(&gone, "remove", nil, "`PLATFORM|DIGEST,...` leave entries out of the index, with their attestations")
	c.add(f)
	return cmd
}

// entriesNamed reads what of an index is left out.
func entriesNamed(values []string) ([]edit.Entry, error) {
	out := make([]edit.Entry, 0, len(values))
	for _, v := range values {
		e, err := edit.ParseEntry(v)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}
