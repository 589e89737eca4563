package solve

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/graph"
)

// Options tunes a solve. The zero value is the recommended one.
type Options struct {
	Parallel  int // vertices at once over all platforms; 0 means NumCPU
	NoCache   bool
	KeepGoing bool // finish what does not depend on a failed vertex
	Events    event.Sink
	Now       func() time.Time // the clock for [Layer.Created]; nil: no times
	// Weight is how long a vertex will take, in any unit; nil: all the same. Of the vertices that could run, the one with
	// the heaviest chain of others that wait for it goes first.
	Weight func(*graph.Vertex) int
	// Done is called when a vertex is solved, from the cache or by work. key is that of its record, "" when it has none.
	// It is called concurrently; nil is legal.
	Done func(v *graph.Vertex, key digest.Digest, record Record, result Result)
}

// errStopped is the cause of cancelling what was under way when something else failed.
var errStopped = errors.New("stopped because another step failed")

// Solve runs roots and all they need. The result of a nil root is the zero Result. On failure the errors of
// all failed vertices are joined, each once; results of roots that did succeed (KeepGoing) are in the slice all the same.
func Solve(ctx context.Context, w Worker, c Cache, roots []*graph.Vertex, o Options) ([]Result, error) {
	return New(w, c, o).Solve(ctx, roots)
}

// Solver is a solve in several parts: what one part has done is not done again in the next.
type Solver struct {
	worker  Worker
	cache   Cache
	options Options
	// prefixes is what cache knows of prefixes; nil: nothing
	prefixes Prefixes
	slots    *gate

	mu      sync.Mutex // guards what follows
	started map[digest.Digest]*job
	busy    map[digest.Digest]chan struct{} // keys that somebody is at work for
}

// New makes a solver.
func New(w Worker, c Cache, o Options) *Solver {
	if o.Parallel <= 0 {
		o.Parallel = runtime.NumCPU()
	}
	p, _ := c.(Prefixes)
	return &Solver{worker: w, cache: c, prefixes: p, options: o, slots: newGate(o.Parallel), started: map[digest.Digest]*job{}, busy: map[digest.Digest]chan struct{}{}}
}

// Solve is the function of that name. A vertex that failed in an earlier part fails again without being run.
func (v *Solver) Solve(ctx context.Context, roots []*graph.Vertex) ([]Result, error) {
	inner, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	s := &scheduler{Solver: v, stop: stop, urgency: urgencies(roots, v.options.Weight)}
	results := make([]Result, len(roots))
	var wg sync.WaitGroup
	for i, root := range roots {
		wg.Go(func() {
			r, err := s.solve(inner, root)
			if err == nil {
				results[i] = r
				return
			}
			s.report(err)
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return results, err
	}
	return results, s.failure()
}

// scheduler is one part of a solve under way.
type scheduler struct {
	*Solver
	stop    context.CancelCauseFunc
	urgency map[digest.Digest]int // by vertex

	failing  sync.Mutex // guards failures
	failures []error
}

// report adds the failure of an earlier part.
func (s *scheduler) report(err error) {
	s.failing.Lock()
	defer s.failing.Unlock()
	if len(s.failures) == 0 && errors.Is(err, ErrStep) {
		s.failures = append(s.failures, err)
	}
}

// job is a vertex that was begun; done is closed when result and err are final.
type job struct {
	done   chan struct{}
	result Result
	err    error
}

func (s *scheduler) solve(ctx context.Context, v *graph.Vertex) (Result, error) {
	if v == nil {
		return Result{}, nil
	}
	s.mu.Lock()
	j, ok := s.started[v.Digest()]
	if !ok {
		j = &job{done: make(chan struct{})}
		s.started[v.Digest()] = j
	}
	s.mu.Unlock()
	if ok {
		<-j.done // its owner ends by the same ctx
		return j.result, j.err
	}
	j.result, j.err = s.run(ctx, v)
	close(j.done)
	return j.result, j.err
}

// run solves v's inputs, then v.
func (s *scheduler) run(ctx context.Context, v *graph.Vertex) (Result, error) {
	inputs := make([]Result, len(v.Inputs))
	var g errgroup.Group
	for i, in := range v.Inputs {
		g.Go(func() (err error) {
			inputs[i], err = s.solve(ctx, in)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return Result{}, err // reported where it happened
	}
	if op, ok := v.Op.(graph.Output); ok {
		r, ok := inputs[0].More[op.Index]
		if !ok {
			return Result{}, s.fail(ctx, v, fmt.Errorf("the step has no output %d", op.Index))
		}
		return r, nil
	}
	if err := s.slots.enter(ctx, s.urgency[v.Digest()]); err != nil {
		return Result{}, err
	}
	defer s.slots.leave()
	r, err := s.work(ctx, v, inputs)
	if err != nil {
		return Result{}, s.fail(ctx, v, err)
	}
	return r, nil
}

// work gives v's result from the cache or from the worker, and reports both.
func (s *scheduler) work(ctx context.Context, v *graph.Vertex, inputs []Result) (r Result, err error) {
	e := event.Event{
		Kind: event.VertexStart, ID: v.Digest().String(), Platform: v.Meta.For, Name: v.Meta.Name,
		Step: v.Meta.Step, Steps: v.Meta.Steps, Source: v.Meta.Source,
	}
	s.options.Events.Emit(e)
	defer func() {
		e.Kind = event.VertexDone
		if err != nil {
			e.Error, e.Canceled = err.Error(), context.Cause(ctx) != nil
		}
		s.options.Events.Emit(e)
	}()

	lookup := !s.options.NoCache && !v.Meta.NoCache
	prefix, err := s.prefix(ctx, v, inputs)
	if err != nil {
		return Result{}, err
	}
	var key digest.Digest
	late := prefix != "" && (!lookup || !s.prefixes.Seen(ctx, prefix)) // there is no record, or it does not count
	if !late {
		if key, err = s.key(ctx, v, inputs); err != nil {
			return Result{}, err
		}
		if key != "" && lookup {
			leave, err := s.alone(ctx, key)
			if err != nil {
				return Result{}, err
			}
			defer leave()
			if record, ok := s.cache.Get(ctx, key); ok {
				e.Cached = true
				r = extend(inputs, record, v)
				s.done(v, key, record, r)
				return r, nil
			}
		}
	}
	if r, err = s.worker.Run(ctx, v, inputs); err != nil {
		return Result{}, err
	}
	if late {
		if key, err = s.key(ctx, v, inputs); err != nil {
			return Result{}, err
		}
	}
	if key == "" {
		s.done(v, "", Record{}, r)
		return r, nil
	}
	if late && lookup { // another vertex of that key may have been faster
		if record, ok := s.cache.Get(ctx, key); ok {
			r = extend(inputs, record, v)
			s.done(v, key, record, r)
			return r, nil
		}
	}
	if prefix != "" {
		if err := s.prefixes.See(ctx, prefix); err != nil {
			return Result{}, err
		}
	}
	record := recordOf(r, inputs, v)
	if s.options.Now != nil {
		now := s.options.Now().UTC()
		for l := range record.All() {
			l.Created = &now
		}
	}
	if err := s.cache.Put(ctx, key, record); err != nil {
		return Result{}, err
	}
	r = extend(inputs, record, v)
	s.done(v, key, record, r)
	return r, nil
}

// alone waits until no other vertex of that key is at work: what it does will be a record. Whoever entered leaves.
func (s *scheduler) alone(ctx context.Context, key digest.Digest) (leave func(), err error) {
	for {
		s.mu.Lock()
		other, taken := s.busy[key]
		if !taken {
			mine := make(chan struct{})
			s.busy[key] = mine
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				delete(s.busy, key)
				close(mine)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// key is the key of v's record; "" when it has none.
func (s *scheduler) key(ctx context.Context, v *graph.Vertex, inputs []Result) (digest.Digest, error) {
	content, err := s.worker.Key(ctx, v, inputs)
	if err != nil || content == "" {
		return "", err
	}
	return recordKey(v, content)
}

// prefix is what is known of v's key before its inputs are read; "" when there is no use for it.
func (s *scheduler) prefix(ctx context.Context, v *graph.Vertex, inputs []Result) (digest.Digest, error) {
	w, ok := s.worker.(Prefixer)
	if !ok || s.prefixes == nil {
		return "", nil
	}
	known, err := w.Prefix(ctx, v, inputs)
	if err != nil || known == "" {
		return "", err
	}
	return recordKey(v, known)
}

func (s *scheduler) done(v *graph.Vertex, key digest.Digest, record Record, r Result) {
	if s.options.Done != nil {
		s.options.Done(v, key, record, r)
	}
}

// urgencies gives for every vertex the weight of the heaviest chain from it to a root.
func urgencies(roots []*graph.Vertex, weight func(*graph.Vertex) int) map[digest.Digest]int {
	urgency := map[digest.Digest]int{}
	if weight == nil {
		return urgency
	}
	var order []*graph.Vertex // inputs before what needs them
	seen := map[digest.Digest]bool{}
	var visit func(v *graph.Vertex)
	visit = func(v *graph.Vertex) {
		if v == nil || seen[v.Digest()] {
			return
		}
		seen[v.Digest()] = true
		for _, in := range v.Inputs {
			visit(in)
		}
		order = append(order, v)
	}
	for _, root := range roots {
		visit(root)
	}
	for _, v := range slices.Backward(order) {
		urgency[v.Digest()] += weight(v)
		for _, in := range v.Inputs {
			if in != nil {
				urgency[in.Digest()] = max(urgency[in.Digest()], urgency[v.Digest()])
			}
		}
	}
	return urgency
}

// fail records v's error, unless v only ended because something else did, and stops the rest.
func (s *scheduler) fail(ctx context.Context, v *graph.Vertex, err error) error {
	if context.Cause(ctx) != nil {
		return context.Cause(ctx)
	}
	step := &StepError{
		Platform: v.Platform, For: v.Meta.For, Step: v.Meta.Name, Source: v.Meta.Source, Excerpt: v.Meta.Excerpt, Err: err,
	}
	s.failing.Lock()
	s.failures = append(s.failures, step)
	s.failing.Unlock()
	if !s.options.KeepGoing {
		s.stop(errStopped)
	}
	return step
}

func (s *scheduler) failure() error {
	s.failing.Lock()
	defer s.failing.Unlock()
	if len(s.failures) == 1 {
		return s.failures[0]
	}
	return errors.Join(s.failures...)
}
