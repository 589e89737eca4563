package main

import (
	"strings"

	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/pkg/build"
	"github.com/manifestctl/manifestctl/pkg/platform"
)

// refusedFlags are the flags of docker buildx build that build does not have, and why. docs/buildx.md says the same (a test
// compares them).
var refusedFlags = []struct {
	name, shorthand string
	switches        bool // takes no value
	why             string
}{
	{"cgroup-parent", "", false, "cgroups of steps are made in that of manifestctl: run it in the one that they should be in"},
	{"compress", "", true, "nothing is sent anywhere that could be compressed"},
	{"cpu-period", "", false, "--cpus says how much of the processors a step gets"},
	{"cpu-quota", "", false, "--cpus says how much of the processors a step gets"},
	{"cpu-shares", "c", false, "steps have no shares: --cpus bounds each, --parallel how many run"},
	{"cpuset-cpus", "", false, "--cpus says how many; to say which, run manifestctl under taskset"},
	{"cpuset-mems", "", false, "run manifestctl under numactl"},
	{"isolation", "", false, "it is for Windows containers"},
	{"memory-swap", "", false, "what --memory bounds is not swapped"},
	{"policy", "", false, "source policies are not read: manifestctl lock pins what sources mean"},
	{"security-opt", "", false, "steps are confined by the user namespace: --allow security.insecure lifts it for RUN --security=insecure"},
	{"squash", "", true, "it is docker's legacy builder's: FROM scratch and COPY --from=stage / / make one layer"},
}

// idleFlags are flags of docker build that change nothing here, as in buildx.
var idleFlags = []string{"force-rm", "rm"}

// buildxFlags adds what users of buildx may type.
func buildxFlags(f *pflag.FlagSet) {
	for _, r := range refusedFlags {
		f.StringP(r.name, r.shorthand, "", "not supported: "+r.why)
		if r.switches {
			f.Lookup(r.name).NoOptDefVal = "true"
		}
		hide(f, r.name)
	}
	for _, name := range idleFlags {
		f.Bool(name, true, "has no effect")
		hide(f, name)
	}
}

// refuseBuildx reports the first flag that was given and is not supported.
func refuseBuildx(f *pflag.FlagSet) error {
	for _, r := range refusedFlags {
		if flag := f.Lookup(r.name); flag != nil && flag.Changed && flag.Value.String() != "false" {
			return usagef("--%s is not supported: %s", r.name, r.why)
		}
	}
	return nil
}

// parseAnnotations reads --annotation [TARGET,...:]KEY=VALUE. Without a target it is for the index and its manifests.
func parseAnnotations(values []string) (all map[string]string, some []build.Annotation, err error) {
	for _, v := range values {
		targets, rest := "", v
		if head, tail, ok := strings.Cut(v, ":"); ok && !strings.Contains(head, "=") && isAnnotationTarget(head) {
			targets, rest = head, tail
		}
		key, value, ok := strings.Cut(rest, "=")
		if !ok || key == "" {
			return nil, nil, usagef("--annotation %q: want [TARGET,...:]KEY=VALUE", v)
		}
		if targets == "" {
			if all == nil {
				all = map[string]string{}
			}
			all[key] = value
			continue
		}
		for target := range strings.SplitSeq(targets, ",") {
			a := build.Annotation{Key: key, Value: value}
			name, of, limited := strings.Cut(strings.TrimSuffix(target, "]"), "[")
			a.Target = name
			if limited {
				if a.Platform, err = platform.Parse(of); err != nil {
					return nil, nil, usagef("--annotation %q: %w", v, err)
				}
			}
			switch {
			case name == "index-descriptor":
				return nil, nil, usagef("--annotation %q: what an index is called in a layout cannot be annotated", v).
					withHint("annotate the index itself: index:%s=%s", key, value)
			case name == "index" && limited:
				return nil, nil, usagef("--annotation %q: an index has no platform", v)
			}
			some = append(some, a)
		}
	}
	return all, some, nil
}

func isAnnotationTarget(s string) bool {
	for word := range strings.SplitSeq(s, ",") {
		word, _, _ = strings.Cut(word, "[")
		switch word {
		case "index", "manifest", "index-descriptor", "manifest-descriptor":
		default:
			return false
		}
	}
	return true
}
