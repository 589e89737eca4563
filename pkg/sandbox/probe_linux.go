package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/manifestctl/manifestctl/pkg/emulate"
)

// The names of the rungs, in the order of the report.
const (
	rungUserns  = "user namespace"
	rungOwner   = "ownership: " // and a mode
	rungFilter  = "supervisor of a single uid"
	rungOverlay = "snapshots: overlay"
	rungProc    = "/proc of its own"
	rungNoNet   = "network: none"
	rungHostNet = "network: host"
	rungBinfmt  = "emulation: own binfmt_misc"
	rungPtrace  = "emulation: ptrace"
	rungProgram = "agent's program"
	rungProfile = "seccomp profile"
	rungLimits  = "limits: cgroup"

	rungChroot   = "steps in a chroot" // where there is no user namespace
	rungInPlace  = "steps in place"    // where there is no chroot either
	rungTrees    = "snapshots: whole trees"
	rungLandlock = "confinement: Landlock"
)

// Probe tries every rung by doing it: it starts agents, mounts, and removes what it made. Only what it was told
// (Options.Mode) is left out. A rung that is not OK says in Detail what follows from that.
func Probe(ctx context.Context, o Options) []Rung {
	var modes []Rung
	var best *Pool
	userns := Rung{Name: rungUserns}
	for _, mode := range []Mode{ModeRoot, ModeRanges, ModeSingle} {
		if o.Mode != "" && o.Mode != mode {
			continue
		}
		mo := o
		mo.Mode, mo.Agents = mode, 1
		r := Rung{Name: rungOwner + string(mode)}
		p, err := NewPool(ctx, mo)
		if err != nil {
			r.Detail, r.Err, r.Mend = consequences[mode], errText(err), mendMode(mode, err)
			if mode == ModeRanges && os.Geteuid() != 0 && r.Mend == mendRanges {
				r.Fixes = rangeFixes()
			}
			if best != nil {
				r.Fixes = nil
				r.Detail, r.Mend = "not needed: mode "+string(best.Mode())+" is used", "none needed"
			}
			modes = append(modes, r)
			userns.Err, userns.Mend = r.Err, r.Mend
			continue
		}
		r.OK = true
		r.Detail = fmt.Sprintf("ids 0 to %d", min(reach(p.plan.uids), reach(p.plan.gids))-1)
		if mode == ModeSingle {
			r.Detail = "one id; other owners and users by the supervisor"
		}
		modes = append(modes, r)
		userns.OK = true
		if best == nil {
			best = p
			defer func() { _ = best.Close() }() // what it said is said
			continue
		}
		if err := p.Close(); err != nil {
			modes[len(modes)-1].Err = err.Error()
		}
	}
	if !userns.OK {
		userns.Fixes = fixes()
		for i := range modes {
			modes[i].Fixes = nil // ids alone do not help
		}
	}
	if o.Mode == "" || o.Mode == ModeChroot {
		r, p := chrootRung(ctx, o)
		modes = append(modes, r)
		switch {
		case p != nil && best == nil:
			best = p
			defer func() { _ = best.Close() }()
		case p != nil:
			_ = p.Close()
		}
	}
	if o.Mode == ModeInPlace || o.Mode == "" && !userns.OK {
		r, p := inPlaceRung(ctx, o, best != nil)
		modes = append(modes, r)
		if p != nil {
			best = p
			defer func() { _ = best.Close() }()
		}
	}
	if best == nil {
		userns.Detail = "no step can run; what needs no RUN still builds"
		return append([]Rung{userns}, modes...)
	}
	if best.Mode() == ModeInPlace {
		userns.Detail = "steps run in place"
		o.Dir = best.TreesDir()
	} else if best.Whole() {
		userns.Detail = "steps run in a chroot"
	} else {
		userns.Err, userns.Mend = "", ""
		userns.Detail = fmt.Sprintf("mode %s is used", best.Mode())
	}
	rungs := append([]Rung{userns}, modes...)
	dir := o.Dir
	if dir == "" {
		dir = os.TempDir()
	}
	r, err := best.do(ctx, request{Op: opProbe, Dir: dir}, nil)
	if err != nil {
		return append(rungs, Rung{Name: rungOverlay, Err: errText(err)})
	}
	rungs = append(rungs, r.Rungs...)
	return append(rungs, binfmtRung(best, o), programRung(best), profileRung(), limitsRung(best))
}

// chrootRung tries steps without namespaces. Where others work they are not needed.
func chrootRung(ctx context.Context, o Options) (Rung, *Pool) {
	o.Mode, o.Agents = ModeChroot, 1
	r := Rung{Name: rungChroot}
	p, err := NewPool(ctx, o)
	if err != nil {
		r.Detail, r.Err, r.Mend = "no step can run without namespaces", errText(err), "root of the container with its default capabilities"
		return r, nil
	}
	r.OK, r.Detail = true, "the same layers; network, host name and process numbers are this container's, set-uid programs gain nothing"
	return r, p
}

// inPlaceRung says whether steps could have the root of this container, and tries it only when that is asked for.
func inPlaceRung(ctx context.Context, o Options, others bool) (Rung, *Pool) {
	r := Rung{Name: rungInPlace, Mend: "root of a container with a root file system that can be written to"}
	if o.Mode != ModeInPlace {
		if _, err := newSwap(o); err != nil {
			r.Detail, r.Err = "no step can run in place of what this container has in /", errText(err)
			return r, nil
		}
		if others {
			r.Detail, r.Mend = "not needed", "none needed"
			return r, nil
		}
		r.OK, r.Mend = true, ""
		r.Detail = "possible, with --executor inplace only: while a step runs, all that this container has in / is put aside"
		return r, nil
	}
	o.Agents = 1
	p, err := NewPool(ctx, o)
	if err != nil {
		r.Detail, r.Err = "no step can run in place of what this container has in /", errText(err)
		return r, nil
	}
	r.OK, r.Mend = true, ""
	r.Detail = "the same layers; while a step runs, all that this container has in / is put aside, and what is mounted there can be reached"
	if missing := missingOf(ownerCaps); len(missing) > 0 {
		r.Detail += "; owners and users are recorded, as the capabilities " + strings.Join(missing, ", ") + " are missing, and what needs DAC_OVERRIDE of root's own files fails"
	}
	if p.restored {
		r.Detail += "; a build that was killed had left a step's files here, and this container has its own back"
	}
	return r, p
}

// consequences says what is lost without a mode.
var consequences = map[Mode]string{
	ModeRoot:   "not as this user: the next rung is tried",
	ModeRanges: "files cannot belong to other users than root in a step",
	ModeSingle: "no step can run",
}

func mendMode(mode Mode, err error) string {
	var errno syscall.Errno
	switch {
	case mode == ModeRoot && os.Geteuid() != 0:
		return "none needed"
	case mode == ModeRanges && errors.As(err, &errno):
		return mendUserns(errno)
	case mode == ModeRanges:
		return mendRanges
	case errors.As(err, &errno):
		return mendUserns(errno)
	}
	return ""
}

func errText(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno) + ": " + err.Error()
	}
	return err.Error()
}

func binfmtRung(p *Pool, o Options) Rung {
	r := Rung{Name: rungBinfmt}
	switch err := p.Emulation(); {
	case o.Emulation != emulate.Auto && o.Emulation != emulate.PrivateOnly:
		r.Detail, r.Mend = "not asked for: --emulation "+string(o.Emulation), "none needed"
	case p.Emulator() == emulate.Ptrace:
		r.Detail, r.Err, r.Mend = "the tracer is used", "an own binfmt_misc instance was refused", "linux 6.7 or later; none needed"
	case p.Whole():
		r.Detail, r.Mend = "needs a user namespace", "none needed with ptrace"
	case len(o.Handlers) == 0:
		r.Fixes = []Fix{{Where: "debian, ubuntu", Do: "install qemu-user-static", Script: "sudo apt-get install -y qemu-user-static"}}
		r.Detail, r.Mend = "no emulator was found: foreign platforms run only where the host has handlers", "install qemu-user-static"
	case err != nil:
		r.Detail, r.Err, r.Mend = "foreign platforms run only where the host has handlers", errText(err), "linux 6.7 or later; or update-binfmts on the host"
	default:
		r.OK, r.Detail = true, fmt.Sprintf("%d handlers, seen by steps only", len(o.Handlers))
	}
	return r
}

func programRung(p *Pool) Rung {
	if p.exe.shield == shieldNone {
		return Rung{
			Name: rungProgram, Detail: "agents run from the program's file: it is protected by not being dumpable only",
			Err: errText(p.exe.err), Mend: "sysctl -w vm.memfd_noexec=0",
		}
	}
	return Rung{Name: rungProgram, OK: true, Detail: "no step can write to it: " + string(p.exe.shield)}
}

func profileRung() Rung {
	if profile() == nil {
		return Rung{
			Name: rungProfile, Detail: "steps may call all of the kernel; namespaces and capabilities confine them",
			Err: "seccomp filters are not there, or the calls of " + runtime.GOARCH + " are not known", Mend: "a kernel with CONFIG_SECCOMP_FILTER",
		}
	}
	return Rung{Name: rungProfile, OK: true, Detail: "what no build needs of the kernel is denied"}
}

func limitsRung(p *Pool) Rung {
	if err := p.Watched(Resources{Memory: 1, PIDs: 1, CPUs: 1}); err != nil {
		return Rung{
			Name: rungLimits, Detail: "--memory, --pids and --cpus are kept by watching steps, a moment late", Err: err.Error(), Mend: mendCgroup,
		}
	}
	return Rung{Name: rungLimits, OK: true, Detail: "steps get cgroups of their own in " + p.cgroups.dir}
}
