package build

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/frontend/dockerfile"
	"github.com/manifestctl/manifestctl/pkg/llb"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// Description is the answer to a question about a Dockerfile.
type Description = dockerfile.Description

// Describe answers what a Dockerfile is (method check, outline or targets) and builds nothing of it.
func Describe(ctx context.Context, st *store.Store, req Request, o Options, method string) (_ Description, err error) {
	questions := map[string]dockerfile.Method{"check": dockerfile.Check, "outline": dockerfile.Outline, "targets": dockerfile.Targets}
	e, opts, err := frontend(ctx, st, req, o)
	if err != nil {
		return Description{}, err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	return dockerfile.Describe(ctx, opts, questions[method])
}

// PrintLLB writes the definitions that a Dockerfile becomes, one for each platform, and builds nothing of them:
// as JSON lines, or raw, which [Request.LLB] takes, for a single platform.
func PrintLLB(ctx context.Context, st *store.Store, req Request, o Options, raw bool, out io.Writer) (err error) {
	e, opts, err := frontend(ctx, st, req, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	var defs []*llb.Definition
	opts.Capture = func(d *llb.Definition) { defs = append(defs, d) }
	if _, err := dockerfile.Build(ctx, opts); err != nil {
		return err
	}
	if raw && len(defs) != 1 {
		return fmt.Errorf("%w: %d definitions cannot be printed raw: name one platform", ErrInput, len(defs))
	}
	for _, d := range defs {
		if raw {
			return llb.Write(out, d)
		}
		if err := llb.Print(out, d); err != nil {
			return err
		}
	}
	return nil
}

// frontend is what a question to the frontend needs.
func frontend(ctx context.Context, st *store.Store, req Request, o Options) (*engine, dockerfile.Options, error) {
	o.Events = event.Serial(o.Events)
	o.Registry.Events = o.Events
	e, err := newEngine(ctx, st, registry.New(o.Registry), req, o)
	if err != nil {
		return nil, dockerfile.Options{}, err
	}
	opts, err := e.dockerfile(ctx)
	if err != nil {
		return nil, opts, errors.Join(err, e.close())
	}
	return e, opts, nil
}
