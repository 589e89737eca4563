package build

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/frontend/dockerfile"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/remotecache"
	"github.com/manifestctl/manifestctl/pkg/solve"
)

// openFleet asks the nodes of the builder what they are, before anything else is done, and chooses those of the platforms
// that the command line names. Without BuildKit nodes it does nothing.
func (e *engine) openFleet(ctx context.Context) error {
	if !e.o.Builder.Remote() {
		return nil
	}
	f, err := newFleet(ctx, e)
	if err != nil {
		return err
	}
	e.fleet = f
	return f.plan(e.req.Platforms)
}

// readDockerfile reads a Dockerfile for all platforms. BUILDPLATFORM is what the node of a platform is natively: stages that
// compile for others are to run there without emulation.
func (e *engine) readDockerfile(ctx context.Context, o dockerfile.Options) (*graph.Build, error) {
	if e.fleet == nil || len(o.Platforms) == 0 {
		return dockerfile.Build(ctx, o)
	}
	of := map[platform.Platform][]platform.Platform{} // by machine
	var machines []platform.Platform
	for _, p := range o.Platforms {
		m := e.fleet.machine(p)
		if _, ok := of[m]; !ok {
			machines = append(machines, m)
		}
		of[m] = append(of[m], p)
	}
	out := &graph.Build{}
	for _, m := range machines {
		o.Machine, o.Platforms = m, of[m]
		b, err := dockerfile.Build(ctx, o)
		if err != nil {
			return nil, err
		}
		out.Targets = append(out.Targets, b.Targets...)
		out.Contexts = b.Contexts
		for _, w := range b.Warnings {
			if !slices.Contains(out.Warnings, w) {
				out.Warnings = append(out.Warnings, w)
			}
		}
	}
	slices.SortStableFunc(out.Targets, func(a, b graph.Target) int {
		return slices.Index(e.req.Platforms, a.Platform) - slices.Index(e.req.Platforms, b.Platform)
	})
	return out, nil
}

// machine is what the first choice for p is natively.
func (f *fleet) machine(p platform.Platform) platform.Platform {
	if list := f.choices[p]; len(list) > 0 && list[0].conn != nil && len(list[0].candidate.Native) > 0 {
		return list[0].candidate.Native[0]
	}
	return emulate.Machine()
}

// solveTargets gives the results of all targets: here, or on the nodes of the builder.
func (e *engine) solveTargets(ctx context.Context, targets []graph.Target) ([]solve.Result, error) {
	f := e.fleet
	if f == nil {
		return e.here(ctx, targets)
	}
	roots := make([]*graph.Vertex, len(targets))
	var unplanned []platform.Platform
	for i, t := range targets {
		roots[i] = t.Root
		if _, ok := f.choices[t.Platform]; !ok {
			unplanned = append(unplanned, t.Platform)
		}
	}
	var err error
	if f.hosts, err = f.registries(roots); err != nil {
		return nil, err
	}
	if err := f.plan(unplanned); err != nil {
		return nil, err
	}
	if e.whole() {
		if err := f.planCaches(); err != nil {
			return nil, err
		}
	}
	if e.whole() {
		return f.whole(ctx, targets)
	}
	runners, err := canRun(ctx, f.localTargets(targets), e.emulation(), e.worker.Ready, e.emit)
	if err != nil {
		return nil, err
	}
	e.setRunners(runners)
	e.places.Store(f.planned(roots))
	e.nodes.fleet = f
	return e.solver.Solve(ctx, roots)
}

// planned gives the nodes of the processes below roots, by vertex.
func (f *fleet) planned(roots []*graph.Vertex) *map[string]string {
	out := map[string]string{}
	for v := range below(roots) {
		if _, ok := v.Op.(graph.Exec); !ok {
			continue
		}
		if list := f.choices[v.Platform]; len(list) > 0 && list[0].conn != nil {
			out[v.Digest().String()] = list[0].conn.Name()
		}
	}
	return &out
}

// localTargets are those whose processes run here.
func (f *fleet) localTargets(targets []graph.Target) []graph.Target {
	var out []graph.Target
	for _, t := range targets {
		if list := f.choices[t.Platform]; len(list) == 0 || list[0].conn == nil {
			out = append(out, t)
		}
	}
	return out
}

// whole reports whether targets are solved as a whole on nodes, with BuildKit's own caches: all but specs.
func (e *engine) whole() bool { return e.req.Dockerfile != nil || e.req.LLB != nil }

// here solves targets on this machine.
func (e *engine) here(ctx context.Context, targets []graph.Target) ([]solve.Result, error) {
	e.expect(ctx, targets)
	runners, err := canRun(ctx, targets, e.emulation(), e.worker.Ready, e.emit)
	if err != nil {
		return nil, err
	}
	e.setRunners(runners)
	if err := e.worker.DropCaches(ctx, droppedCaches(targets, e.noCache())); err != nil {
		return nil, err
	}
	roots := make([]*graph.Vertex, len(targets))
	for i, t := range targets {
		roots[i] = t.Root
	}
	return e.solver.Solve(ctx, roots)
}

// emulation is how foreign platforms run here.
func (e *engine) emulation() emulate.Options {
	o := emulateOptions(e.o)
	o.Versions = emulatorVersions{e.store}
	return o
}

// expect tells the worker how many processes will run at once: one of each platform. In place nothing is begun beside what reads this
// container's files.
func (e *engine) expect(ctx context.Context, targets []graph.Target) {
	platforms := map[platform.Platform]bool{}
	now := false
	for v := range processes(targets) {
		platforms[v.Platform] = true
		now = now || !e.inPlace() && (e.noCache() || v.Meta.NoCache)
	}
	e.worker.Expect(ctx, min(len(platforms), e.o.Parallel), now)
}

// bring makes sure that a layer is in the store.
func (e *engine) bring(ctx context.Context, desc ocispec.Descriptor) error {
	return e.worker.Bring(ctx, []ocispec.Descriptor{desc})
}

// targetBase is the base image of a target that a node solves: what is known of it here need not be sent.
type targetBase struct {
	blobs  func() []digest.Digest       // its layers as they are in the registry
	result func() (solve.Result, error) // the base as it is here
}

// base begins to resolve the base image of a target, if it has one, beside the node's work.
func (e *engine) base(ctx context.Context, resolving *sync.WaitGroup, root *graph.Vertex) *targetBase {
	v := root
	for v != nil {
		if _, ok := v.Op.(graph.Image); ok {
			break
		}
		if _, ok := v.Op.(graph.Diff); ok || len(v.Inputs) == 0 {
			v = nil
			break
		}
		v = v.Inputs[0]
	}
	if v == nil {
		return &targetBase{
			blobs:  func() []digest.Digest { return nil },
			result: func() (solve.Result, error) { return solve.Result{}, nil },
		}
	}
	op, _ := v.Op.(graph.Image)
	b := &targetBase{
		blobs: sync.OnceValue(func() []digest.Digest {
			descs, err := e.worker.Layers(ctx, op.Ref, v.Platform)
			if err != nil {
				return nil // then they are sent
			}
			out := make([]digest.Digest, len(descs))
			for i, d := range descs {
				out[i] = d.Digest
			}
			return out
		}),
		result: sync.OnceValues(func() (solve.Result, error) {
			r, err := e.solver.Solve(ctx, []*graph.Vertex{v})
			if err != nil {
				return solve.Result{}, err
			}
			return r[0], nil
		}),
	}
	resolving.Go(func() { _, _ = b.result() }) // its error is looked at when the node is ready
	return b
}

// checkNodes refuses what only this machine does.
func checkNodes(req Request, o Options) error {
	if !o.Builder.Remote() {
		return nil
	}
	for _, only := range []struct {
		asked bool
		flag  string
	}{
		{o.Limits != (Resources{}), "--memory, --cpus, --pids, --disk and --step-timeout bound"},
		{o.OnError != nil, "--on-error shell opens"},
		{o.Authorities != nil, "--ca-in-steps is for"},
		{len(o.Accelerate) > 0, "--accelerate is for"},
	} {
		if only.asked {
			return fmt.Errorf("%w: %s steps of this machine; those of a node are its daemon's to configure", ErrNodeCannot, only.flag)
		}
	}
	for _, s := range o.CacheTo {
		if s.Type == remotecache.TypeInline && (req.Dockerfile != nil || req.LLB != nil) {
			return fmt.Errorf("%w: the inline cache holds records of this program: use --cache-to type=registry", ErrNodeCannot)
		}
	}
	return nil
}
