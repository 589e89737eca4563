package main

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/registry"
)

// allHosts is what a hosts flag without a value stands for.
const allHosts = "*"

// hostsValue is --plain-http[=HOST,...] and --insecure[=HOST,...].
type hostsValue struct{ registry.Hosts }

var _ pflag.Value = (*hostsValue)(nil)

func hostsVar(f *pflag.FlagSet, v *hostsValue, name, usage string) {
	f.Var(v, name, usage)
	f.Lookup(name).NoOptDefVal = allHosts
}

// Set implements pflag.Value. "true" and "false" are understood as for a boolean flag.
func (v *hostsValue) Set(s string) error {
	for host := range strings.SplitSeq(s, ",") {
		switch host = strings.TrimSpace(host); {
		case host == allHosts || host == "true":
			v.All = true
		case host == "false":
			v.Hosts = registry.Hosts{}
		case host == "" || strings.ContainsAny(host, "/@ "):
			return usagef("%q is not HOST or HOST:PORT", host)
		case !slices.Contains(v.Names, host):
			v.Names = append(v.Names, host)
		}
	}
	return nil
}

// String implements pflag.Value.
func (v *hostsValue) String() string {
	if v.All {
		return allHosts
	}
	return strings.Join(v.Names, ",")
}

// Type implements pflag.Value.
func (v *hostsValue) Type() string { return "hosts" }

// parsePlatforms reads --platform flags: comma lists; "local" is this machine.
func parsePlatforms(values []string) ([]platform.Platform, error) {
	var words []string
	for _, v := range values {
		for word := range strings.SplitSeq(v, ",") {
			if word = strings.TrimSpace(word); word == "local" {
				word = emulate.Machine().String()
			}
			words = append(words, word)
		}
	}
	if len(words) == 0 {
		return nil, nil
	}
	return platform.ParseList(words...)
}

// keyValues reads flags of the form KEY=VALUE. bare says what a value without "=" means; nil refuses it.
func keyValues(flag string, values []string, bare func(key string) (value string, ok bool)) (map[string]string, error) {
	if len(values) == 0 {
		return nil, nil
	}
	out := make(map[string]string, len(values))
	for _, v := range values {
		key, value, found := strings.Cut(v, "=")
		if key == "" || (!found && bare == nil) {
			return nil, usagef("--%s %q: want KEY=VALUE", flag, v)
		}
		if !found {
			var ok bool
			if value, ok = bare(key); !ok {
				continue
			}
		}
		out[key] = value
	}
	return out, nil
}
