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
	forms  []form
	ahead  map[form][]output.Ahead

	wait  sync.WaitGroup
	slots chan struct{}
	mu    sync.Mutex // guards seen
	seen  map[digest.Digest]bool
}

func newEarly(ctx context.Context, f *finisher, roots []*graph.Vertex, plans []plan) *early {
	e := &early{
		f: f, chain: map[digest.Digest]bool{}, ahead: map[form][]output.Ahead{},
		slots: make(chan struct{}, earlyParallel), seen: map[digest.Digest]bool{},
	}
	e.ctx, e.cancel = context.WithCancel(ctx)
	for _, root := range roots {
		e.follow(root)
	}
	for _, p := range plans {
		form := formOf(p.spec)
		if form.rewrite || form.force { // other layers than those of steps
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

// press says in which compressions the layer of a vertex is needed ([local.Press]).
func (e *early) press(v *graph.Vertex) []layer.Compression {
	if !e.chain[v.Digest()] {
		return nil
	}
	var out []layer.Compression
	for _, form := range e.forms {
		c := form.compression
		streams := c.Algorithm != layer.Uncompressed && c.Algorithm != layer.EStargz
		if streams && !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out
}

// solved is told what became of a vertex. It does not wait.
func (e *early) solved(v *graph.Vertex, r solve.Result) {
	if len(e.ahead) == 0 || !e.chain[v.Digest()] {
		return
	}
	for _, l := range r.Layers {
		id := digestKey(l)
		e.mu.Lock()
		seen := e.seen[id]
		e.seen[id] = true
		e.mu.Unlock()
		if seen || e.f.worker.Virtual(l) {
			continue
		}
		for form, dests := range e.ahead {
			e.wait.Go(func() { e.send(l, form, dests) })
		}
	}
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
