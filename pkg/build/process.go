package build

import (
	"context"
	"errors"
	"fmt"

	"github.com/manifestctl/manifestctl/pkg/accel"
	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/worker/local"
)

type (
	// Process is one process in an image: see [local.Process].
	Process = local.Process
	// Volume is a directory or file of the host that it sees.
	Volume = local.Volume
	// Resources bound what a step or a process uses: see [sandbox.Resources].
	Resources = sandbox.Resources
	// Size is that of a terminal.
	Size = sandbox.Size
	// FailedStep is a step whose process failed: see [local.FailedStep].
	FailedStep = local.FailedStep
	// Console is the terminal of a shell in it.
	Console = local.Console
	// ExitError says how a process ended when not with 0.
	ExitError = sandbox.ExitError
)

// AccelerateHost is the source of native programs that is this machine: Options.Accelerate.
const AccelerateHost = accel.Host

// ErrNoCommand reports an image that says nowhere what to run.
var ErrNoCommand = local.ErrNoCommand

// ReadAuthorities reads files of certificates for Options.Authorities.
func ReadAuthorities(files []string) ([]byte, error) {
	pem, err := local.ReadAuthorities(files)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInput, err)
	}
	return pem, nil
}

// RunProcess runs a process in an image of a registry, the store or a layout, in the sandbox that steps run in. What it
// changes is thrown away. That this host can run the platform is checked before anything is pulled.
func RunProcess(ctx context.Context, st *store.Store, p Process, o Options) (err error) {
	if _, err := emulate.For(ctx, p.Platform, emulateOptions(o)); err != nil {
		return err
	}
	o.Events = event.Serial(o.Events)
	o.Registry.Events = o.Events
	e, err := newEngine(ctx, st, registry.New(o.Registry), Request{}, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	if err := e.worker.Ready(ctx); err != nil {
		return err
	}
	return e.worker.Process(ctx, p)
}
