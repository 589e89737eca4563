package build

import (
	"context"
	"maps"
	"sync/atomic"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/frontend/dockerfile"
	"github.com/manifestctl/manifestctl/pkg/frontend/spec"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/worker/local"
)

// engine is what one build works with. Frontends may ask it to solve something before the build's graph is known.
type engine struct {
	req      Request
	o        Options
	opener   *source.Opener
	contexts map[string]string // what the worker reads, filled before anything is solved
	pins     *pins
	worker   *local.Worker
	solver   *solve.Solver
	runners  atomic.Pointer[map[string]string] // by vertex, once they are known
}

// setRunners says what runs the processes of vertices.
func (e *engine) setRunners(r map[string]string) { e.runners.Store(&r) }

// emit passes an event on, with what runs its vertex.
func (e *engine) emit(ev event.Event) {
	if r := e.runners.Load(); r != nil && ev.Kind == event.VertexStart {
		ev.Runner = (*r)[ev.ID]
	}
	e.o.Events.Emit(ev)
}

func newEngine(ctx context.Context, st *store.Store, client *registry.Client, req Request, o Options) *engine {
	e := &engine{req: req, o: o, contexts: map[string]string{}, pins: newPins(req)}
	e.opener = &source.Opener{Registry: client, Store: st, Dir: o.Dir}
	e.worker = local.New(local.Options{
		Store: st, Opener: e.opener, Contexts: e.contexts, Pins: e.pins, Secret: secrets(req, o), Events: e.emit, Epoch: req.Epoch,
		Sandbox: sandbox.Options{
			Mode: o.SandboxMode, Agents: o.Parallel, Path: o.Path, Handlers: emulate.Handlers(ctx, emulateOptions(o)),
		},
	})
	e.solver = solve.New(e.worker, solve.Records{Store: st}, solve.Options{
		Parallel: o.Parallel, NoCache: o.NoCache && req.Dockerfile == nil, KeepGoing: o.KeepGoing, Events: e.emit, Now: o.Now,
	})
	return e
}

// load makes the graph of what is to be built.
func (e *engine) load(ctx context.Context) (b *graph.Build, err error) {
	switch {
	case e.req.LLB != nil:
		b, err = e.definition()
	case e.req.Dockerfile != nil:
		var o dockerfile.Options
		if o, err = e.dockerfile(ctx); err != nil {
			return nil, err
		}
		b, err = dockerfile.Build(ctx, o)
	default:
		b, err = spec.Load(ctx, e.req.File, e.req.ContextDir, specOptions(e.req))
	}
	if err != nil {
		return nil, err
	}
	maps.Copy(e.contexts, b.Contexts)
	return b, nil
}
