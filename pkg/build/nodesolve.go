package build

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/image"
	"github.com/manifestctl/manifestctl/pkg/llb"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/worker/buildkit"
	"github.com/manifestctl/manifestctl/pkg/worker/local"
)

// switchWorker solves vertices on this machine, and the processes of a spec on nodes once there is a fleet. Everything else
// of a spec is made here, where the sources are; so step records, keys and caches are the same as without nodes.
type switchWorker struct {
	*local.Worker // this machine

	fleet *fleet // set before what it is for is solved
}

// The solver asks for the second by an assertion: who loses it loses only speed.
var (
	_ solve.Worker   = (*switchWorker)(nil)
	_ solve.Prefixer = (*switchWorker)(nil)
)

// Run implements solve.Worker.
func (w *switchWorker) Run(ctx context.Context, v *graph.Vertex, inputs []solve.Result) (solve.Result, error) {
	op, ok := v.Op.(graph.Exec)
	if !ok || w.fleet == nil {
		return w.Worker.Run(ctx, v, inputs)
	}
	var out solve.Result
	err := w.fleet.try(ctx, v.Platform, func(m *member) (err error) {
		return w.fleet.pulling(m, func() error {
			out, err = w.fleet.exec(ctx, m, v, op, inputs)
			return err
		})
	}, func() (err error) {
		out, err = w.Worker.Run(ctx, v, inputs)
		return err
	})
	return out, err
}

// try calls on with the nodes for p until one is not lost while it works, or here when this machine is what is left.
func (f *fleet) try(ctx context.Context, p platform.Platform, on func(m *member) error, here func() error) error {
	for {
		m, local, err := f.next(p)
		if err != nil {
			return err
		}
		if local {
			return here()
		}
		err = on(m)
		if !errors.Is(err, buildkit.ErrLost) || context.Cause(ctx) != nil {
			return err
		}
		f.lose(m, p, err)
	}
}

// exec runs one step of a spec on a node.
func (f *fleet) exec(ctx context.Context, m *member, v *graph.Vertex, op graph.Exec, inputs []solve.Result) (solve.Result, error) {
	s, err := f.open(ctx, m)
	if err != nil {
		return solve.Result{}, err
	}
	enc, err := llb.Encode(v, llb.EncodeOptions{
		Source: func(in *graph.Vertex) (llb.Source, bool, error) {
			i := slices.Index(v.Inputs, in)
			if i < 0 {
				return llb.Source{}, false, nil
			}
			src, err := f.source(ctx, m, in, inputs[i], v.Platform)
			return src, true, err
		},
		Process: func(*graph.Vertex) (llb.Process, error) { return f.process(ctx, op, inputs[0]) },
		NoCache: true, // the records are ours: whoever asks wants it run
	})
	if err != nil {
		return solve.Result{}, err
	}
	below := inputs[0].Layers
	layers, err := s.Solve(ctx, enc, buildkit.SolveOptions{
		Platform: v.Platform, Within: v.Digest().String(),
		Known: func(_ context.Context, d digest.Digest) bool { return blobOf(below, d) },
	})
	if err != nil {
		return solve.Result{}, unwrapStep(err)
	}
	if len(layers) != len(below)+1 {
		return solve.Result{}, fmt.Errorf("node %s: %d layers of a step on %d: %w", m.conn.Name(), len(layers), len(below), store.ErrCorrupt)
	}
	for i, l := range below {
		if layers[i].DiffID != l.DiffID {
			return solve.Result{}, fmt.Errorf("node %s: layer %d below the step is %s, not %s: %w", m.conn.Name(), i, layers[i].DiffID, l.DiffID, store.ErrCorrupt)
		}
	}
	made := made(layers[len(below)])
	if op.ClampTime != nil {
		if made, err = f.engine.worker.Rewrite(ctx, made, time.Unix(*op.ClampTime, 0)); err != nil {
			return solve.Result{}, err
		}
	}
	return inputs[0].With(made), nil
}

// unwrapStep leaves the step out of an error to which the solver will add it.
func unwrapStep(err error) error {
	var step *solve.StepError
	if errors.As(err, &step) {
		return step.Err
	}
	return err
}

// made is a layer that a node made.
func made(l buildkit.Layer) solve.Layer {
	if l.Desc.Digest == l.DiffID {
		return solve.Layer{DiffID: l.DiffID, Size: l.Desc.Size}
	}
	return solve.Layer{DiffID: l.DiffID, Blob: l.Desc}
}

// blobOf reports whether d is a blob of layers.
func blobOf(layers []solve.Layer, d digest.Digest) bool {
	return slices.ContainsFunc(layers, func(l solve.Layer) bool { return l.Kept() == d || l.DiffID == d || l.Blob.Digest == d })
}

// process is the environment and directory of a step in an image, as the local worker has them.
func (f *fleet) process(ctx context.Context, op graph.Exec, base solve.Result) (llb.Process, error) {
	env, cwd, err := f.engine.worker.Environment(ctx, op, base)
	return llb.Process{Env: env, Cwd: cwd}, err
}

// source is what a definition says for a vertex whose result is here: the image itself where the node can pull it, else
// its layers over the session.
func (f *fleet) source(ctx context.Context, m *member, v *graph.Vertex, r solve.Result, p platform.Platform) (llb.Source, error) {
	if op, ok := v.Op.(graph.Image); ok {
		if src, ok, err := f.image(ctx, m, v, op); ok || err != nil {
			return src, err
		}
	}
	r, err := f.engine.worker.Settle(ctx, r)
	if err != nil {
		return llb.Source{}, err
	}
	descs := make([]ocispec.Descriptor, len(r.Layers))
	ids := make([]digest.Digest, len(r.Layers))
	for i, l := range r.Layers {
		ids[i], descs[i] = l.DiffID, l.Blob
		if l.Blob.Digest == "" && l.Packed != nil {
			descs[i] = *l.Packed
		}
		if descs[i].Digest == "" {
			size, err := f.engine.store.Stat(l.DiffID)
			if err != nil {
				return llb.Source{}, err
			}
			descs[i] = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: l.DiffID, Size: size}
		}
	}
	return lend(m.session, descs, ids, p)
}

// lend ships layers, under the names that OCI has for what they are.
func lend(s *buildkit.Session, descs []ocispec.Descriptor, ids []digest.Digest, p platform.Platform) (llb.Source, error) {
	for i := range descs {
		var err error
		if descs[i].MediaType, err = image.LayerMediaType(descs[i].MediaType, false); err != nil {
			return llb.Source{}, err
		}
	}
	return s.Ship(descs, ids, p)
}

// image is the source of an image in a registry, by the digest that it has for this build; ok is false for others. The node
// pulls it itself where the name is all that it takes. What this machine reaches in a way of its own (its loopback, http, a
// mirror, certificates) is lent to the node over the session, so that what this user said counts there, too; and so is all
// that a node needs which could not pull something.
func (f *fleet) image(ctx context.Context, m *member, v *graph.Vertex, op graph.Image) (_ llb.Source, ok bool, err error) {
	r, err := ref.Parse(op.Ref)
	if err != nil || r.Kind != ref.Registry {
		return llb.Source{}, false, nil //nolint:nilerr // its layers go over the session
	}
	if r.Digest, _, err = f.engine.worker.Resolve(ctx, op.Ref, v.Platform); err != nil {
		return llb.Source{}, false, err
	}
	if op.Checksum != "" && r.Digest.String() != op.Checksum {
		return llb.Source{}, false, fmt.Errorf("%s is %s, not %s: %w", op.Ref, r.Digest, op.Checksum, store.ErrCorrupt)
	}
	r.Tag = ""
	route, err := f.engine.client.Route(r)
	if err != nil {
		return llb.Source{}, false, err
	}
	if !route.ByName() || m.lends.Load() {
		descs, ids, err := f.engine.worker.Lend(ctx, op.Ref, v.Platform, op.Layers)
		if err != nil {
			return llb.Source{}, false, err
		}
		src, err := lend(m.session, descs, ids, v.Platform)
		return src, true, err
	}
	s := llb.Source{Identifier: "docker-image://" + r.String(), Attrs: map[string]string{}, Platform: v.Platform}
	if op.Layers != nil {
		s.Attrs["image.layerlimit"] = fmt.Sprint(*op.Layers)
	}
	return s, true, nil
}

// whole solves the targets of a Dockerfile or definition: each as a whole on one node.
func (f *fleet) whole(ctx context.Context, targets []graph.Target) ([]solve.Result, error) {
	results := make([]solve.Result, len(targets))
	bases, stop := context.WithCancel(ctx)
	var resolving sync.WaitGroup
	defer resolving.Wait()
	defer stop()
	g, inner := errgroup.WithContext(ctx)
	if f.engine.o.KeepGoing {
		g, inner = new(errgroup.Group), ctx
	}
	errs := make([]error, len(targets))
	for i, t := range targets {
		g.Go(func() error {
			errs[i] = f.try(inner, t.Platform, func(m *member) (err error) {
				base := f.engine.base(bases, &resolving, t.Root)
				return f.pulling(m, func() error {
					results[i], err = f.target(inner, m, t, base)
					return err
				})
			}, func() error {
				r, err := f.engine.here(inner, []graph.Target{t})
				if err == nil {
					results[i] = r[0]
				}
				return err
			})
			return errs[i]
		})
	}
	err := g.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	if err != nil && f.engine.o.KeepGoing {
		return nil, errors.Join(errs...)
	}
	return results, err
}

// target solves one target on one node.
func (f *fleet) target(ctx context.Context, m *member, t graph.Target, base *targetBase) (solve.Result, error) {
	s, err := f.open(ctx, m)
	if err != nil {
		return solve.Result{}, err
	}
	var allow llb.Allow
	if d := f.engine.req.Dockerfile; d != nil {
		allow = d.Allow
	}
	enc, err := llb.Encode(t.Root, llb.EncodeOptions{
		Source: func(v *graph.Vertex) (llb.Source, bool, error) { return f.bases(ctx, m, v) },
		Allow:  allow,
		// The frontend says which steps of a Dockerfile are to be run again; a definition says nothing.
		NoCache: f.engine.o.NoCache && f.engine.req.LLB != nil,
	})
	if err != nil {
		return solve.Result{}, err
	}
	if enc.Definition == nil {
		return solve.Result{}, nil
	}
	from, to := f.caches(t.Platform)
	layers, err := s.Solve(ctx, enc, buildkit.SolveOptions{
		Platform: t.Platform, Allow: allow, CacheFrom: from, CacheTo: to,
		Known: func(_ context.Context, d digest.Digest) bool { return slices.Contains(base.blobs(), d) },
	})
	if err != nil {
		return solve.Result{}, err
	}
	below, err := base.result()
	if err != nil {
		return solve.Result{}, err
	}
	out := solve.Result{Config: below.Config}
	for i, l := range layers {
		if i < len(below.Layers) && below.Layers[i].DiffID == l.DiffID {
			out.Layers = append(out.Layers, below.Layers[i])
			continue
		}
		out.Layers = append(out.Layers, made(l))
	}
	return out, nil
}

// bases gives the sources of images.
func (f *fleet) bases(ctx context.Context, m *member, v *graph.Vertex) (llb.Source, bool, error) {
	op, ok := v.Op.(graph.Image)
	if !ok {
		return llb.Source{}, false, nil
	}
	if src, ok, err := f.image(ctx, m, v, op); ok || err != nil {
		return src, ok, err
	}
	r, err := f.engine.solver.Solve(ctx, []*graph.Vertex{v})
	if err != nil {
		return llb.Source{}, false, err
	}
	src, err := f.source(ctx, m, v, r[0], v.Platform)
	return src, true, err
}
