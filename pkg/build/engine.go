package build

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/cdi"
	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/frontend/spec"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/remotecache"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/worker/local"
)

// engine is what one build works with. Frontends may ask it to solve something before the build's graph is known.
type engine struct {
	req      Request
	o        Options
	store    *store.Store
	client   *registry.Client
	opener   *source.Opener
	contexts map[string]string // what the worker reads, filled before anything is solved
	pins     *pins
	agents   *agents
	worker   *local.Worker
	nodes    *switchWorker // worker, or nodes once there is a fleet
	fleet    *fleet        // nil without nodes
	solver   *solve.Solver
	imported *remotecache.Cache // nil without --cache-from
	steps    *steps
	devices  sync.Once // fills found
	found    *cdi.Devices
	runners  atomic.Pointer[map[string]string] // by vertex, once they are known
	places   atomic.Pointer[map[string]string] // the nodes that vertices of a spec were planned for
	early    atomic.Pointer[early]             // nil until the graph is known
}

// done is told of every vertex that is solved.
func (e *engine) done(v *graph.Vertex, key digest.Digest, record solve.Record, result solve.Result) {
	e.steps.add(v, key, record, result)
	if early := e.early.Load(); early != nil {
		early.solved(v, result)
	}
}

// setRunners says what runs the processes of vertices.
func (e *engine) setRunners(r map[string]string) { e.runners.Store(&r) }

// emit passes an event on, with what runs its vertex.
func (e *engine) emit(ev event.Event) {
	if r := e.runners.Load(); r != nil && ev.Kind == event.VertexStart {
		ev.Runner = (*r)[ev.ID]
	}
	if r := e.places.Load(); r != nil && ev.Node == "" {
		ev.Node = (*r)[ev.ID]
	}
	e.o.Events.Emit(ev)
}

func newEngine(ctx context.Context, st *store.Store, client *registry.Client, req Request, o Options) (*engine, error) {
	if err := checkNodes(req, o); err != nil {
		return nil, err
	}
	e := &engine{req: req, o: o, store: st, client: client, contexts: map[string]string{}, pins: newPins(req), steps: &steps{done: map[digest.Digest]solved{}}}
	e.opener = &source.Opener{Registry: client, Store: st, Dir: o.Dir}
	var cache solve.Cache = solve.Records{Store: st}
	var remote local.Remote
	if len(o.CacheFrom) > 0 && !(o.Builder.Remote() && e.whole()) {
		imported, err := remotecache.Open(ctx, cache, st, e.opener, o.CacheFrom, e.emit)
		if err != nil {
			return nil, err
		}
		e.imported, cache, remote = imported, imported, imported
	}
	e.worker = local.New(local.Options{
		Store: st, Opener: e.opener, Contexts: e.contexts, Pins: e.pins, Secret: secrets(req, o), Remote: remote, Events: e.emit, Epoch: req.Epoch,
		SSH: e.sshSocket, Insecure: req.Dockerfile != nil && req.Dockerfile.Allow.SecurityInsecure,
		NoFacts: o.Verify == VerifyOff, Limits: o.Limits, LogLimit: o.LogLimit, Authorities: o.Authorities, OnError: o.OnError, Accelerate: o.Accelerate, PackedFrom: o.PackedFrom,
		Sandbox: sandboxOptions(ctx, o), Device: e.device,
	})
	e.nodes = &switchWorker{Worker: e.worker}
	if err := e.worker.Check(ctx); err != nil {
		return nil, errors.Join(err, e.close())
	}
	if e.inPlace() {
		cache = restingCache{cache, e.worker}
	}
	e.solver = solve.New(e.nodes, cache, solve.Options{
		Parallel: o.Parallel, NoCache: e.noCache(), KeepGoing: o.KeepGoing, Events: e.emit, Now: o.Now,
		Weight: e.weight, Done: e.done,
	})
	return e, nil
}

// noCache reports whether every step must run. A Dockerfile's frontend is told instead, and says so of its steps.
func (e *engine) noCache() bool { return e.o.NoCache && (e.req.Dockerfile == nil || e.req.LLB != nil) }

// close ends what the engine started.
func (e *engine) close() error {
	err := errors.Join(e.fleet.close(), e.worker.Close(), e.agents.close())
	if e.imported != nil {
		err = errors.Join(err, e.imported.Close())
	}
	return err
}

// emulatedWeight is how many times longer a process takes under emulation, about.
const emulatedWeight = 15

// weight guesses how long a vertex takes, so that the longest emulated chain goes first.
func (e *engine) weight(v *graph.Vertex) int {
	if _, ok := v.Op.(graph.Exec); !ok {
		return 1
	}
	if r := e.runners.Load(); r != nil && (*r)[v.Digest().String()] != event.RunnerNative {
		return 10 * emulatedWeight
	}
	return 10
}

// sshSocket is the socket of an ssh agent.
func (e *engine) sshSocket(id string) (string, bool) { return e.agents.socket(id) }

// load makes the graph of what is to be built.
func (e *engine) load(ctx context.Context) (b *graph.Build, err error) {
	if d := e.req.Dockerfile; d != nil {
		if e.agents, err = newAgents(d.SSH); err != nil {
			return nil, err
		}
	}
	switch {
	case e.req.LLB != nil:
		b, err = e.definition()
	case e.req.Dockerfile != nil:
		b, err = e.loadDockerfile(ctx)
	default:
		b, err = spec.Load(ctx, e.req.File, e.req.ContextDir, specOptions(e.req))
	}
	if err != nil {
		return nil, err
	}
	maps.Copy(e.contexts, b.Contexts)
	return b, nil
}
