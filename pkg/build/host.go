package build

import (
	"context"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/frontend/spec"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// Rung is one line of the ladder that steps run on.
type Rung = sandbox.Rung

// Emulators reports how each platform would run on this host.
func Emulators(ctx context.Context, o Options) []emulate.Support {
	return emulate.List(ctx, emulateOptions(o))
}

// Doctor tries every rung of the executor's ladder. dir is on the file system that the store is, or will be, on; "" is the
// directory for temporary files.
func Doctor(ctx context.Context, dir string, o Options) []sandbox.Rung {
	so := sandboxOptions(ctx, o)
	so.Dir = dir
	return sandbox.Probe(ctx, so)
}

// ExecutorInPlace has steps run in the root file system of this container itself. It is only used when it is asked for.
const ExecutorInPlace = sandbox.ModeInPlace

// ParseExecutor reads by what means steps are to run; "auto" is the first that works.
func ParseExecutor(s string) (sandbox.Mode, error) { return sandbox.ParseMode(s) }

func emulateOptions(o Options) emulate.Options {
	return emulate.Options{Emulators: o.Emulators, Path: o.Path, Mode: o.Emulation, Dir: o.EmulatorDir}
}

// versionKind is the kind of the store's records of the versions of emulators.
const versionKind = "emulator"

// emulatorVersions are those that the store remembers.
type emulatorVersions struct{ store *store.Store }

var _ emulate.Versions = emulatorVersions{}

func (v emulatorVersions) Version(file string) (string, bool) {
	r, err := v.store.GetRecord(versionKind, digest.FromString(file).Encoded())
	return string(r.Data), err == nil
}

func (v emulatorVersions) Keep(file, version string) {
	// Without the record it is asked again.
	_ = v.store.PutRecord(versionKind, digest.FromString(file).Encoded(), store.Record{Data: []byte(version)})
}

// sandboxOptions is how agents are started.
func sandboxOptions(ctx context.Context, o Options) sandbox.Options {
	return sandbox.Options{
		Mode: o.SandboxMode, Path: o.Path, Emulation: o.Emulation, Handlers: emulate.Handlers(ctx, emulateOptions(o)), Agents: o.Parallel,
		OverwriteRoot: o.OverwriteRoot,
	}
}

func specOptions(req Request) spec.Options {
	return spec.Options{
		Platforms: req.Platforms,
		Machine:   emulate.Machine(),
		Args:      req.Args,
		Epoch:     req.Epoch,
		Contexts:  req.Contexts,
	}
}
