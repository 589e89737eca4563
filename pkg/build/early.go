package build

import (
	"context"
	"io"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/output"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/solve"
)

// earlyParallel is how many layers are on their way before the build is done.
const earlyParallel = 6

// early compresses the layers of the images to come, and sends them to where they go, while later steps run. It writes no manifest
// and no name, and its failures count for nothing: whoever writes the product does again what is missing, and says what goes wrong.
type early struct {
	f      *finisher
	ctx    context.Context //nolint:containedctx // lives as long as the build that made it
	cancel context.CancelFunc
	chain  map[digest.Digest]bool // vertices whose layers the images will have
	read   map[digest.Digest]bool // vertices whose layers are read for others
	whole  bool                   // an output is made of the layers themselves
	forms  []form
	ahead  map[form][]output.Ahead

	wait  sync.WaitGroup
	slots chan struct{}
	mu    sync.Mutex // guards seen
	seen  map[digest.Digest]bool
}

func newEarly(ctx context.Context, f *finisher, roots []*graph.Vertex, plans []plan) *early {
	e := &early{
		f: f, chain: map[digest.Digest]bool{}, read: map[digest.Digest]bool{}, ahead: map[form][]output.Ahead{},
		slots: make(chan struct{}, earlyParallel), seen: map[digest.Digest]bool{},
	}
	e.ctx, e.cancel = context.WithCancel(ctx)
	seen := map[digest.Digest]bool{}
	for _, root := range roots {
		e.follow(root)
		e.readers(root, seen)
	}
	for _, p := range plans {
		form := formOf(p.spec)
		e.whole = e.whole || !streams(form.compression)
		if form.rewrite || form.force { // other layers than those of steps
			e.whole = true
			continue
		}
		if !slices.Contains(e.forms, form) {
			e.forms = append(e.forms, form)
		}
		if d, ok := p.dest.(output.Ahead); ok {
			e.ahead[form] = append(e.ahead[form], d)
		}
	}
	return e
}

// follow marks the vertices whose layers v's result begins with, and v.
func (e *early) follow(v *graph.Vertex) {
	for v != nil && !e.chain[v.Digest()] {
		e.chain[v.Digest()] = true
		switch v.Op.(type) {
		case graph.Merge:
			for _, in := range v.Inputs {
				e.follow(in)
			}
			return
		case graph.Output, graph.Diff, graph.Image, graph.Local, graph.HTTP, graph.Git:
			return
		}
		if len(v.Inputs) == 0 {
			return
		}
		v = v.Inputs[0]
	}
}

// readers marks the vertices whose layers v and those below it read.
func (e *early) readers(v *graph.Vertex, seen map[digest.Digest]bool) {
	if v == nil || seen[v.Digest()] {
		return
	}
	seen[v.Digest()] = true
	for i, in := range v.Inputs {
		if i > 0 || readsBase(v.Op) {
			e.reads(in)
		}
		e.readers(in, seen)
	}
}

// readsBase reports whether an operation can need more of what it is on than the tables of contents.
func readsBase(op graph.Op) bool {
	switch op := op.(type) {
	case graph.Layer, graph.Copy, graph.Remove:
		return false
	case graph.File:
		return slices.ContainsFunc(op.Actions, func(a graph.FileAction) bool { return a.Copy != nil && a.Copy.Input == 0 })
	}
	return true
}

// reads marks v and all that its layers can come from.
func (e *early) reads(v *graph.Vertex) {
	if v == nil || e.read[v.Digest()] {
		return
	}
	e.read[v.Digest()] = true
	for _, in := range v.Inputs {
		e.reads(in)
	}
}

// streams reports whether a compression is made while a layer is.
func streams(c layer.Compression) bool {
	return c.Algorithm != layer.Uncompressed && c.Algorithm != layer.EStargz
}

// press says in which compressions the layer of a vertex is needed ([local.Press]).
func (e *early) press(v *graph.Vertex) (all []layer.Compression, only bool) {
	if !e.chain[v.Digest()] {
		return nil, false
	}
	for _, form := range e.forms {
		if c := form.compression; streams(c) && !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	return all, !e.whole && !e.read[v.Digest()]
}

// solved is told what became of a vertex. It does not wait.
func (e *early) solved(v *graph.Vertex, r solve.Result) {
	if len(e.ahead) == 0 || !e.chain[v.Digest()] {
		return
	}
	for _, l := range slices.Backward(r.Layers) {
		id := digestKey(l)
		e.mu.Lock()
		seen := e.seen[id]
		e.seen[id] = true
		e.mu.Unlock()
		if seen && adds(v.Op) {
			return // what is below was solved before
		}
		if seen || e.f.worker.Virtual(l) {
			continue
		}
		for form, dests := range e.ahead {
			e.wait.Go(func() { e.send(l, form, dests) })
		}
	}
}

// adds reports whether an operation's layers are those of its first input, in which they were seen, and some on them.
func adds(op graph.Op) bool {
	switch op.(type) {
	case graph.Exec, graph.File, graph.Layer, graph.Copy, graph.Remove:
		return true
	}
	return false
}

// send delivers one layer in one form.
func (e *early) send(l solve.Layer, form form, dests []output.Ahead) {
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	case <-e.ctx.Done():
		return
	}
	made, err := e.f.once(e.ctx, l, form, nil)()
	if err != nil || e.ctx.Err() != nil {
		return
	}
	from := e.f.placesOf(made.Desc.Digest)
	for _, text := range l.From {
		if r, err := ref.Parse(text); err == nil && !slices.Contains(from, r) {
			from = append(slices.Clip(from), r)
		}
	}
	for _, d := range dests {
		d.Ahead(e.ctx, made.Desc, from, func(ctx context.Context) (io.ReadCloser, error) {
			return e.f.worker.Open(ctx, made.Desc)
		})
	}
}

// stop ends what is under way, and waits for that.
func (e *early) stop() {
	e.cancel()
	e.wait.Wait()
}
