package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
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

	counting sync.Mutex // guards report and opened
	report   Report
	opened   []io.Closer // what close closes
}

// close closes what was opened to be read.
func (m *mover) close() error {
	var errs []error
	for _, c := range m.opened {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
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
		for _, n := range named[i] {
			m.report.Manifests++
			m.report.Bytes += int64(len(n.raw))
			if _, ok := p.sink.(*registrySink); ok && m.o.DryRun {
				m.report.Requests += int64(len(n.names))
			}
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
