package main

import (
	"math"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"github.com/manifestctl/manifestctl/pkg/build"
)

// stepFlags are the flags of what processes in images may use, and whom they trust.
type stepFlags struct {
	memory    string
	cpus      string
	pids      int64
	disk      string
	timeout   time.Duration // of build only
	logLimit  string        // likewise
	native    []string      // likewise
	caInSteps bool
}

func (s *stepFlags) add(f *pflag.FlagSet) {
	f.StringVarP(&s.memory, "memory", "m", "", "`SIZE` of memory for all processes of a step together: 512MB, 2GiB")
	f.StringVar(&s.cpus, "cpus", "", "`N` processors for a step: 2, 0.5")
	f.Int64Var(&s.pids, "pids", 0, "`N` processes and threads at most in a step")
	f.Int64Var(&s.pids, "pids-limit", 0, "docker's spelling of --pids")
	hide(f, "pids-limit")
	f.StringVar(&s.disk, "disk", "", "`SIZE` a step may add to its root file system")
	f.BoolVar(&s.caInSteps, "ca-in-steps", false, "programs of steps trust the authorities of --ca-file, too; nothing of them gets into an image")
}

// addBuild adds those of build.
func (s *stepFlags) addBuild(f *pflag.FlagSet) {
	s.add(f)
	f.DurationVar(&s.timeout, "step-timeout", 0, "`DURATION` a step may run: 10m; --timeout is for the whole build")
	f.StringArrayVar(&s.native, "accelerate", nil, "`SOURCE` of native programs (shell, coreutils, tar, ...) that stand in for the image's in emulated steps: =FILE.deb, =DIR of packages, or without a value this machine's; may be repeated")
	f.Lookup("accelerate").NoOptDefVal = build.AccelerateHost
	f.StringVar(&s.logLimit, "log-limit", "64MiB", "`SIZE` of a step's output that is shown; 0 for all")
}

// options sets what they ask for.
func (s *stepFlags) options(e *env, o *build.Options) (err error) {
	if o.Limits.Memory, err = parseSize("memory", s.memory); err != nil {
		return err
	}
	if o.Limits.Disk, err = parseSize("disk", s.disk); err != nil {
		return err
	}
	if o.LogLimit, err = parseSize("log-limit", s.logLimit); err != nil {
		return err
	}
	if s.cpus != "" {
		n, err := strconv.ParseFloat(s.cpus, 64)
		if err != nil || !(n >= 0.001 && n < math.MaxInt32) {
			return usagef("--cpus %q: want a number such as 2 or 0.5", s.cpus)
		}
		o.Limits.CPUs = int(math.Round(n * 1000))
	}
	switch {
	case s.pids < 0:
		return usagef("--pids %d: want a number above zero", s.pids)
	case s.timeout < 0:
		return usagef("--step-timeout %s: want a time to come", s.timeout)
	}
	o.Accelerate = s.native
	o.Limits.PIDs, o.Limits.Timeout = s.pids, s.timeout
	if !s.caInSteps {
		return nil
	}
	if len(e.globals.caFiles) == 0 {
		return usagef("--ca-in-steps needs --ca-file")
	}
	o.Authorities, err = build.ReadAuthorities(e.globals.caFiles)
	return err
}
