package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/output"
	"github.com/manifestctl/manifestctl/pkg/platform"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/remotecache"
	"github.com/manifestctl/manifestctl/pkg/runtimes"
	"github.com/manifestctl/manifestctl/pkg/store"
	"github.com/manifestctl/manifestctl/pkg/transfer"
)

// Run builds. Finished work stays in the store's cache when it fails.
func Run(ctx context.Context, st *store.Store, req Request, o Options) (_ Result, err error) {
	o.Events = event.Serial(o.Events)
	o.Registry.Events = o.Events
	if o.Parallel <= 0 {
		o.Parallel = runtime.NumCPU()
	}
	client := registry.New(o.Registry)
	e, err := newEngine(ctx, st, client, req, o)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, e.close()) }()

	if err := e.openFleet(ctx); err != nil {
		return Result{}, err
	}
	b, err := e.load(ctx)
	if err != nil {
		return Result{}, err
	}
	for _, text := range b.Warnings {
		o.Events.Emit(event.Event{Kind: event.Warning, Text: text})
	}
	applyFlags(b, req)
	plans, err := planOutputs(req, o.Load, b.Targets, output.Env{
		Store: st, Registry: client, Stdout: o.Stdout, Events: o.Events, Dir: o.Dir,
	})
	if err != nil {
		return Result{}, err
	}
	if err := checkStage(req, o, plans); err != nil {
		return Result{}, err
	}
	if err := checkTagging(req, o, plans); err != nil {
		return Result{}, err
	}
	if err := checkCaches(o, plans); err != nil && (e.fleet == nil || !e.whole()) { // nodes give theirs another name
		return Result{}, err
	}
	guard := newTagGuard(st, client, req, b.Targets, plans, o.Events)
	if err := guard.lookAtNames(ctx); err != nil {
		return Result{}, err
	}
	solving, looked, stop := guard.lookAtTags(ctx) // beside the build: a registry may be far
	defer stop()
	if e.inPlace() {
		if err := looked(); err != nil {
			return Result{}, err
		}
	}
	roots := make([]*graph.Vertex, len(b.Targets))
	for i, t := range b.Targets {
		roots[i] = t.Root
	}
	f := &finisher{store: st, worker: e.worker, build: b, parallel: o.Parallel, epoch: req.Epoch, verify: o.Verify, allow: req.Allow, steps: e.steps, events: o.Events, stage: req.Stage, clock: o.Clock}
	f.env = transfer.Env{Registry: client, Store: st, Dir: o.Dir, Now: o.Clock}
	early := newEarly(solving, f, roots, plans)
	if e.inPlace() {
		early.ahead = nil
	}
	defer early.stop()
	e.worker.SetPress(early.press)
	e.early.Store(early)
	f.results, err = e.solveTargets(solving, b.Targets)
	if gerr := looked(); gerr != nil {
		return Result{}, gerr
	}
	if err != nil {
		return Result{}, err
	}
	if !e.inPlace() { // where it has what the writers read
		e.worker.Rest()
	}
	for i, r := range f.results {
		if f.results[i], err = e.worker.Settle(ctx, r); err != nil {
			return Result{}, err
		}
	}
	for _, s := range o.CacheTo {
		f.inline = f.inline || s.Type == remotecache.TypeInline
	}
	if err := guard.lookAgain(ctx); err != nil {
		return Result{}, err
	}
	res, err := f.write(ctx, plans)
	if err != nil {
		return Result{}, err
	}
	if e.fleet != nil && e.whole() {
		return res, nil // the nodes wrote their own records
	}
	return res, f.export(ctx, f.env, o.CacheTo, cacheForm(plans))
}

// applyFlags lays labels and annotations of the command line over the spec's.
func applyFlags(b *graph.Build, req Request) {
	for i := range b.Targets {
		t := &b.Targets[i]
		t.Config.Labels = overlay(t.Config.Labels, req.Labels) // a Dockerfile's frontend was told
		t.Annotations = overlay(t.Annotations, req.Annotations)
	}
	b.IndexAnnotations = overlay(b.IndexAnnotations, req.Annotations)
	for _, a := range req.Annotate {
		one := map[string]string{a.Key: a.Value}
		if a.Target == "index" {
			b.IndexAnnotations = overlay(b.IndexAnnotations, one)
		}
		for i := range b.Targets {
			t := &b.Targets[i]
			if !a.Platform.IsZero() && a.Platform != t.Platform {
				continue
			}
			switch a.Target {
			case "manifest":
				t.Annotations = overlay(t.Annotations, one)
			case "manifest-descriptor":
				t.EntryAnnotations = overlay(t.EntryAnnotations, one)
			}
		}
	}
}

func overlay(base, top map[string]string) map[string]string {
	if len(top) == 0 {
		return base
	}
	out := make(map[string]string, len(base)+len(top))
	for k, v := range base {
		out[k] = v
	}
	for k, v := range top {
		out[k] = v
	}
	return out
}

// plan is one output and where it writes.
type plan struct {
	spec  output.Spec
	dest  output.Destination
	names []ref.Ref
	// append: dest writes content only, and names get it added to what they hold.
	append bool
}

// pushes reports whether the output goes to a registry.
func (p plan) pushes() bool { return p.spec.Push || p.spec.Type == "registry" }

// planOutputs opens the destinations, so that what is wrong with one is said before anything is built.
func planOutputs(req Request, load runtimes.Runtime, targets []graph.Target, env output.Env) ([]plan, error) {
	specs := req.Outputs
	if len(specs) == 0 && load == nil {
		specs = []output.Spec{{Type: "image"}}
	}
	if err := output.CheckAll(specs); err != nil {
		return nil, err
	}
	platforms := make([]platform.Platform, len(targets))
	for i, t := range targets {
		platforms[i] = t.Platform
	}
	plans := make([]plan, len(specs))
	for i, s := range specs {
		p := plan{names: req.Tags}
		if len(s.Names) == 0 {
			for _, t := range req.Tags {
				s.Names = append(s.Names, t.String())
			}
		} else {
			p.names = nil
			for _, n := range s.Names {
				r, err := ref.ParseTag(n)
				if err != nil {
					return nil, fmt.Errorf("output type=%s: %w", s.Type, err)
				}
				p.names = append(p.names, r)
			}
		}
		if req.Stage != "" && (s.Push || s.Type == "registry") {
			s.PushByDigest, s.Canonical, s.Unnamed = false, false, true
		}
		p.append = req.Tagging == AppendToTags && (s.Type == "registry" || s.Type == "image") && !s.PushByDigest && len(p.names) > 0
		if p.append {
			s.Unnamed, s.PushByDigest = true, s.Push || s.Type == "registry"
		}
		d, err := output.Open(s, env)
		if err != nil {
			return nil, err
		}
		if c, ok := d.(output.PlatformChecker); ok {
			if err := c.CheckPlatforms(platforms); err != nil {
				return nil, err
			}
		}
		p.spec, p.dest = s, d
		plans[i] = p
	}
	if load != nil {
		p := plan{names: req.Tags}
		p.spec, p.dest = output.OpenRuntime(load, env)
		if c, ok := p.dest.(output.PlatformChecker); ok {
			if err := c.CheckPlatforms(platforms); err != nil {
				return nil, err
			}
		}
		plans = append(plans, p)
	}
	return plans, nil
}

// secrets returns what reads the secrets of req.
func secrets(req Request, o Options) func(id string) ([]byte, bool, error) {
	return func(id string) ([]byte, bool, error) {
		s, ok := req.Secrets[id]
		if !ok {
			return nil, false, nil
		}
		if s.File == "" {
			if o.Environ == nil {
				return nil, false, nil
			}
			return []byte(o.Environ(s.Env)), true, nil
		}
		data, err := os.ReadFile(s.File)
		return data, err == nil, err
	}
}
