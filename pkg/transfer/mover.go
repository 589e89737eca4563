package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/source"
)

const (
	// defaultConcurrency is how many transfers run at once: requests are short and the way to a registry is long.
	defaultConcurrency = 32
	// maxStreams is how many of them move the bytes of blobs, so that buffers stay within some megabytes.
	maxStreams = 16
	// maxDepth is how many indexes may stand in one another (ROBUSTNESS.md b07).
	maxDepth = index.MaxNesting
)

// sink is one place that is written to.
type sink interface {
	// same reports whether r is this very place, so that what is read there need not be moved.
	same(r ref.Ref) bool
	// holds reports whether a document is there with everything it reaches. A place that cannot tell says no.
	holds(ctx context.Context, desc ocispec.Descriptor) (bool, error)
	// local returns a document that the place has and that need not be fetched to be read.
	local(ctx context.Context, desc ocispec.Descriptor) ([]byte, bool)
	putBlob(ctx context.Context, desc ocispec.Descriptor, open registry.Open, from ref.Ref) (registry.Moved, error)
	// hasBlob is for what would be done.
	hasBlob(ctx context.Context, desc ocispec.Descriptor) (bool, error)
	putDocument(ctx context.Context, doc document) error
	// name writes the names, last of all.
	name(ctx context.Context, named []namedDocument) error
	close() error
}

// document is a manifest or index with its bytes.
type document struct {
	desc ocispec.Descriptor
	raw  []byte
}

// namedDocument is a root at one place.
type namedDocument struct {
	document
	names   []ref.Ref
	whole   []ref.Ref
	subject digest.Digest
}

// mover runs one transfer.
type mover struct {
	env      Env
	o        Options
	requests chan struct{} // a slot for each transfer that may run
	streams  chan struct{} // a slot for each blob whose bytes may move

	counting sync.Mutex // guards report
	report   Report
}

func newMover(env Env, o Options) *mover {
	if o.Concurrency <= 0 {
		o.Concurrency = defaultConcurrency
	}
	return &mover{
		env: env, o: o,
		requests: make(chan struct{}, o.Concurrency),
		streams:  make(chan struct{}, min(o.Concurrency, maxStreams)),
	}
}

func (m *mover) count(f func(r *Report)) {
	m.counting.Lock()
	defer m.counting.Unlock()
	f(&m.report)
}

func (m *mover) note(format string, a ...any) {
	text := fmt.Sprintf(format, a...)
	m.count(func(r *Report) {
		if !slices.Contains(r.Notes, text) {
			r.Notes = append(r.Notes, text)
		}
	})
}

// slot waits for one of a bounded number.
func slot(ctx context.Context, slots chan struct{}) (leave func(), err error) {
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// place is a destination with what goes there.
type place struct {
	sink  sink
	roots []Root
	run   *run
}

// move is Move.
func (m *mover) move(ctx context.Context, roots []Root) (err error) {
	places, err := m.places(ctx, roots)
	defer func() {
		for _, p := range places {
			err = errors.Join(err, p.sink.close())
		}
	}()
	if err != nil {
		return err
	}
	if !m.o.Condition.IsZero() {
		for _, p := range places {
			if err := m.checkCondition(ctx, p); err != nil {
				return err
			}
		}
	}
	named := make([][]namedDocument, len(places))
	for i, p := range places {
		p.run = &run{mover: m, sink: p.sink, tasks: map[digest.Digest]*task{}}
		if named[i], err = p.content(ctx); err != nil {
			return err
		}
	}
	for _, r := range roots {
		m.report.Roots = append(m.report.Roots, r.Desc)
	}
	if m.o.DryRun {
		return nil
	}
	for i, p := range places {
		err := p.sink.name(ctx, named[i])
		if errors.Is(err, registry.ErrBlobUnknown) && !m.o.Sparse {
			if err = p.again(ctx); err == nil {
				err = p.sink.name(ctx, named[i])
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// again brings everything once more, believing nothing that the place said it holds.
func (p *place) again(ctx context.Context) error {
	again := &run{mover: p.run.mover, sink: p.sink, tasks: map[digest.Digest]*task{}}
	g, gctx := errgroup.WithContext(ctx)
	for _, r := range p.roots {
		g.Go(func() (err error) {
			n := node{desc: r.Desc, raw: r.Raw, from: r.From, parts: r.Parts, sure: true}
			if n.raw, err = again.read(gctx, n); err != nil {
				return err
			}
			return again.children(gctx, n)
		})
	}
	return g.Wait()
}

// places groups roots by where their names are.
func (m *mover) places(ctx context.Context, roots []Root) ([]*place, error) {
	var out []*place
	keys := map[string]*place{}
	for _, r := range roots {
		byPlace := map[*place][]ref.Ref{}
		for _, n := range r.Names {
			key := placeKey(n)
			p := keys[key]
			if p == nil {
				s, err := m.open(ctx, n, out)
				if err != nil {
					return out, fmt.Errorf("opening %s to write: %w", n, err)
				}
				p = &place{sink: s}
				keys[key] = p
				out = append(out, p)
			}
			byPlace[p] = append(byPlace[p], n)
		}
		for _, p := range out {
			if names := byPlace[p]; len(names) > 0 {
				at := r
				at.Names = names
				p.roots = append(p.roots, at)
			}
		}
	}
	return out, nil
}

// placeKey names the place that a reference is in.
func placeKey(r ref.Ref) string {
	switch r.Kind {
	case ref.Registry:
		return r.Repository()
	case ref.Store:
		return "store:"
	}
	return string(r.Kind) + ":" + r.Path
}

// content brings everything that the roots reach to the place, but the roots themselves.
func (p *place) content(ctx context.Context) ([]namedDocument, error) {
	g, gctx := errgroup.WithContext(ctx)
	out := make([]namedDocument, len(p.roots))
	for i, r := range p.roots {
		g.Go(func() (err error) {
			out[i].names, out[i].whole, out[i].subject = r.Names, r.Whole, r.Subject
			out[i].document, err = p.run.root(gctx, r)
			return err
		})
	}
	return out, g.Wait()
}

// run is the way of all roots to one place.
type run struct {
	mover *mover
	sink  sink

	once  sync.Mutex // guards tasks
	tasks map[digest.Digest]*task
}

// task is what is done once for a digest.
type task struct {
	done chan struct{}
	err  error
}

// do calls f once for each digest; others wait for its end.
func (r *run) do(ctx context.Context, d digest.Digest, f func() error) error {
	r.once.Lock()
	t := r.tasks[d]
	if t != nil {
		r.once.Unlock()
		select {
		case <-t.done:
			return t.err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	t = &task{done: make(chan struct{})}
	r.tasks[d] = t
	r.once.Unlock()
	defer close(t.done)
	t.err = f()
	return t.err
}

// node is a document on the way.
type node struct {
	desc  ocispec.Descriptor
	raw   []byte // nil: from has it
	from  Source
	parts map[digest.Digest]Source
	path  []digest.Digest // from the root to here
	sure  bool            // the place has said that something is missing: believe nothing
}

func (r *run) root(ctx context.Context, root Root) (document, error) {
	n := node{desc: root.Desc, raw: root.Raw, from: root.From, parts: root.Parts}
	raw, err := r.read(ctx, n)
	if err != nil {
		return document{}, err
	}
	n.raw = raw
	doc := document{root.Desc, raw}
	if n.from != nil && root.Raw == nil && r.sink.same(n.from.Ref()) {
		r.skip()
		return doc, nil
	}
	return doc, r.children(ctx, n)
}

// document brings a manifest or index that is not a root.
func (r *run) document(ctx context.Context, n node) error {
	if slices.Contains(n.path, n.desc.Digest) {
		return fmt.Errorf("%w: cycle at %s", source.ErrInvalid, n.desc.Digest)
	}
	if len(n.path) > maxDepth {
		return fmt.Errorf("%w: %s is nested deeper than %d indexes", source.ErrInvalid, n.desc.Digest, maxDepth)
	}
	return r.do(ctx, n.desc.Digest, func() error {
		if n.from != nil && r.sink.same(n.from.Ref()) && !n.sure {
			r.skip()
			return nil
		}
		if !n.sure {
			has, err := r.holds(ctx, n.desc)
			if has {
				r.skip()
			}
			if has || err != nil {
				return err
			}
		}
		raw, err := r.read(ctx, n)
		if err != nil {
			if r.mover.o.Sparse && errors.Is(err, source.ErrNotFound) {
				r.mover.note("%s is missing in %s: left out", n.desc.Digest, nameOf(n.from))
				return nil
			}
			return err
		}
		n.raw = raw
		if err := r.children(ctx, n); err != nil {
			return err
		}
		return r.put(ctx, n)
	})
}

func (r *run) skip() { r.mover.count(func(rep *Report) { rep.Skipped++ }) }

func (r *run) holds(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	leave, err := slot(ctx, r.mover.requests)
	if err != nil {
		return false, err
	}
	defer leave()
	return r.sink.holds(ctx, desc)
}

// read returns a document's bytes: made here, at the place already, or from the source.
func (r *run) read(ctx context.Context, n node) ([]byte, error) {
	if n.raw != nil {
		return n.raw, nil
	}
	if raw, ok := r.sink.local(ctx, n.desc); ok {
		return raw, nil
	}
	if n.from == nil {
		return nil, fmt.Errorf("%w: nothing says where %s is", ErrIncomplete, n.desc.Digest)
	}
	leave, err := slot(ctx, r.mover.requests)
	if err != nil {
		return nil, err
	}
	defer leave()
	raw, err := n.from.Manifest(ctx, n.desc)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.from.Ref(), err)
	}
	return raw, nil
}

// put writes a document. A registry that misses something after all gets it once more.
func (r *run) put(ctx context.Context, n node) error {
	doc := document{n.desc, n.raw}
	r.mover.count(func(rep *Report) { rep.Manifests++; rep.Bytes += int64(len(n.raw)) })
	if r.mover.o.DryRun {
		r.mover.count(func(rep *Report) { rep.Requests++ })
		return nil
	}
	err := r.putOnce(ctx, doc)
	if !errors.Is(err, registry.ErrBlobUnknown) || n.sure || r.mover.o.Sparse {
		return err
	}
	again := &run{mover: r.mover, sink: r.sink, tasks: map[digest.Digest]*task{}}
	n.sure = true
	if err := again.children(ctx, n); err != nil {
		return err
	}
	return r.putOnce(ctx, doc)
}

func (r *run) putOnce(ctx context.Context, doc document) error {
	leave, err := slot(ctx, r.mover.requests)
	if err != nil {
		return err
	}
	defer leave()
	return r.sink.putDocument(ctx, doc)
}

// children brings what a document names.
func (r *run) children(ctx context.Context, n node) error {
	g, gctx := errgroup.WithContext(ctx)
	defer func() { _ = g.Wait() }() // an error below cancels nothing by itself
	switch {
	case index.IsIndex(n.desc.MediaType):
		idx, err := index.Parse(n.raw)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", source.ErrInvalid, n.desc.Digest, err)
		}
		path := append(slices.Clone(n.path), n.desc.Digest)
		for _, child := range idx.Manifests {
			if r.left(idx, child) {
				continue
			}
			c := node{desc: child, from: n.from, parts: n.parts, path: path, sure: n.sure}
			if s := n.parts[child.Digest]; s != nil {
				c.from, c.parts = s, nil
			}
			g.Go(func() error { return r.document(gctx, c) })
		}
	case index.IsManifest(n.desc.MediaType):
		man, err := index.ParseManifest(n.raw)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", source.ErrInvalid, n.desc.Digest, err)
		}
		for _, b := range append([]ocispec.Descriptor{man.Config}, man.Layers...) {
			if r.foreign(b) {
				continue
			}
			g.Go(func() error { return r.blob(gctx, b, n.from) })
		}
	}
	return g.Wait()
}

// left reports whether a sparse copy leaves out a child: its platform was not asked for.
func (r *run) left(idx *index.Index, child ocispec.Descriptor) bool {
	if !r.mover.o.Sparse || len(r.mover.o.Platforms) == 0 {
		return false
	}
	return !wanted(r.mover.o.Platforms, idx, child)
}

// foreign reports whether a layer is not to be distributed: whoever wants it gets it from its owner.
func (r *run) foreign(desc ocispec.Descriptor) bool {
	if r.mover.o.AllLayers || !strings.Contains(desc.MediaType, "nondistributable") && !strings.Contains(desc.MediaType, ".foreign.") {
		return false
	}
	r.mover.note("layer %s is not to be distributed (%s): skipped", desc.Digest, desc.MediaType)
	return true
}

// blob brings a config or layer.
func (r *run) blob(ctx context.Context, desc ocispec.Descriptor, from Source) error {
	return r.do(ctx, desc.Digest, func() error {
		leave, err := slot(ctx, r.mover.requests)
		if err != nil {
			return err
		}
		defer leave()
		if r.mover.o.DryRun {
			return r.wouldMove(ctx, desc, from)
		}
		if from == nil {
			return fmt.Errorf("%w: nothing says where %s is", ErrIncomplete, desc.Digest)
		}
		open := func(ctx context.Context) (io.ReadCloser, error) {
			leave, err := slot(ctx, r.mover.streams)
			if err != nil {
				return nil, err
			}
			rc, err := openBlob(ctx, from, desc)
			if err != nil {
				leave()
				return nil, err
			}
			return &stream{ReadCloser: rc, leave: leave}, nil
		}
		moved, err := r.sink.putBlob(ctx, desc, open, from.Ref())
		if err != nil {
			return err
		}
		r.mover.count(func(rep *Report) {
			switch moved {
			case registry.Uploaded:
				rep.Blobs++
				rep.Bytes += desc.Size
			case registry.Mounted:
				rep.Mounted++
			default:
				rep.Skipped++
			}
		})
		return nil
	})
}

// wouldMove counts a blob without moving it.
func (r *run) wouldMove(ctx context.Context, desc ocispec.Descriptor, from Source) error {
	has, err := r.sink.hasBlob(ctx, desc)
	if err != nil {
		return err
	}
	r.mover.count(func(rep *Report) {
		switch {
		case has:
			rep.Skipped++
		case from != nil && mountable(r.sink, from.Ref()):
			rep.Mounted++
			rep.Requests++ // POST
		default:
			rep.Blobs++
			rep.Bytes += desc.Size
			if from != nil && from.Ref().Kind == ref.Registry {
				rep.Requests++ // GET
			}
			if _, ok := r.sink.(*registrySink); ok {
				rep.Requests += 2 // POST, PUT
			}
		}
	})
	return nil
}

// openBlob opens a blob, from what the descriptor carries if it does.
func openBlob(ctx context.Context, from Source, desc ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := from.Blob(ctx, desc)
	if errors.Is(err, source.ErrNotFound) {
		return nil, fmt.Errorf("%w: %s lacks %s: %w", ErrIncomplete, from.Ref(), desc.Digest, err)
	}
	return rc, err
}

// stream gives its slot back when it is closed.
type stream struct {
	io.ReadCloser
	once  sync.Once
	leave func()
}

func (s *stream) Close() error {
	defer s.once.Do(s.leave)
	return s.ReadCloser.Close()
}

func nameOf(s Source) string {
	if s == nil {
		return "the source"
	}
	return s.Ref().String()
}
