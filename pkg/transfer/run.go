package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/manifestctl/manifestctl/pkg/index"
	"github.com/manifestctl/manifestctl/pkg/ref"
	"github.com/manifestctl/manifestctl/pkg/registry"
	"github.com/manifestctl/manifestctl/pkg/source"
)

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
		if r.there(n.from, n.desc.Digest) && !n.sure {
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

// there reports whether content is read at this very place.
func (r *run) there(from Source, d digest.Digest) bool {
	at := originOf(from, d)
	return at != nil && r.sink.same(at.Ref())
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
			if r.there(n.from, b.Digest) && !n.sure {
				r.skip()
				continue
			}
			g.Go(func() error { return r.blob(gctx, b, originOf(n.from, b.Digest)) })
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
	if r.mover.o.AllLayers || !index.IsForeign(desc.MediaType) {
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
			return &stream{ReadCloser: rc, leave: leave, ctx: ctx, pace: r.mover.o.Pace}, nil
		}
		moved, err := r.sink.putBlob(ctx, desc, open, from.Ref())
		if errors.Is(err, registry.ErrMirror) && ctx.Err() == nil {
			moved, err = r.sink.putBlob(ctx, desc, open, from.Ref()) // nothing was kept of it, and now another place is asked
		}
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
	ctx   context.Context // of who opened it: a reader has none of its own
	pace  func(context.Context, int64) error
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if s.pace != nil && n > 0 {
		if perr := s.pace(s.ctx, int64(n)); perr != nil {
			return n, perr
		}
	}
	return n, err
}

func (s *stream) Close() error {
	defer s.once.Do(s.leave)
	return s.ReadCloser.Close()
}

// Verifies is that of the blob, if it has one.
func (s *stream) Verifies() digest.Digest {
	if v, ok := s.ReadCloser.(interface{ Verifies() digest.Digest }); ok {
		return v.Verifies()
	}
	return ""
}

// Aside is that of the blob, if it has one and nobody counts the bytes.
func (s *stream) Aside() (file *os.File, check func(n int64) error) {
	if a, ok := s.ReadCloser.(registry.Aside); ok && s.pace == nil {
		return a.Aside()
	}
	return nil, nil
}

func nameOf(s Source) string {
	if s == nil {
		return "the source"
	}
	return s.Ref().String()
}
