package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/manifestctl/manifestctl/pkg/facts"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// uncompressed is the media type of layers as they are kept in the store.
const uncompressed = ocispec.MediaTypeImageLayer

// commit stores the layer that write produces, its table of contents and its compressed forms, all made on the way.
func (w *Worker) commit(ctx context.Context, write func(io.Writer) error) (solve.Layer, error) {
	blob, err := w.o.Store.Ingest(ctx)
	if err != nil {
		return solve.Layer{}, err
	}
	defer blob.Abort()
	var f fan
	press := pressOf(ctx)
	keep := &raw{Ingest: blob, only: press.only}
	_, keep.most = w.sizes()
	forms := w.fanPressed(ctx, &f, press.all)
	defer func() {
		for _, p := range forms {
			p.abort()
		}
	}()
	var toc *layer.TOC
	var said *facts.Layer
	f.add(func(r io.Reader) (err error) {
		if toc, said, err = w.read(ctx, r, true, recentTable); err != nil {
			err = fmt.Errorf("reading back the layer: %w", err)
		}
		return err
	})
	f.add(func(r io.Reader) error {
		_, err := io.Copy(keep, r)
		return err
	})
	if err := f.finish(write(&f)); err != nil {
		return solve.Layer{}, err
	}
	desc, dropped, err := keep.end(ctx)
	if err != nil {
		return solve.Layer{}, err
	}
	toc.DiffID = desc.Digest
	if err := w.putTOC(toc); err != nil {
		return solve.Layer{}, err
	}
	if said != nil { // nobody wanted them
		said.DiffID = desc.Digest
		if err := w.facts().PutFacts(said); err != nil {
			return solve.Layer{}, err
		}
	}
	out := solve.Layer{DiffID: desc.Digest, Size: desc.Size}
	for _, p := range forms {
		if p.blob == nil {
			continue
		}
		packed, err := p.commit(ctx, w, desc.Digest)
		if err != nil {
			return solve.Layer{}, err
		}
		if dropped && out.Packed == nil {
			out.Packed = &packed
		}
	}
	return out, nil
}

// facts keeps what the files of layers say, gathered in the pass that makes or pulls them.
func (w *Worker) facts() facts.Cache { return facts.Cache{Store: w.o.Store} }

// read reads a layer's table of contents and, unless nobody wants them, its facts. With noDigest their DiffIDs are left to the
// caller. Of more than hold entries, if that is not 0, the table holds only what is kept of it.
func (w *Worker) read(ctx context.Context, r io.Reader, noDigest bool, hold int) (*layer.TOC, *facts.Layer, error) {
	if w.o.NoFacts {
		toc, err := layer.Scan(ctx, r, layer.ScanOptions{NoDigest: noDigest, Hold: hold})
		return toc, nil, err
	}
	return facts.Read(ctx, r, facts.Options{NoDigest: noDigest, Hold: hold})
}

func (w *Worker) putTOC(toc *layer.TOC) error {
	w.tocs.put(toc)
	return w.facts().PutTOC(toc)
}

// toc returns a layer's table of contents, reading the layer for it when there is none yet.
func (w *Worker) toc(ctx context.Context, l solve.Layer) (*layer.TOC, error) {
	if toc, ok := w.knownTOC(l.DiffID); ok {
		return toc, nil
	}
	if w.o.Remote != nil && w.o.Remote.Learn(ctx, l.DiffID) {
		if toc, ok := w.knownTOC(l.DiffID); ok {
			return toc, nil
		}
	}
	r, err := w.openLayer(ctx, l)
	if err != nil {
		return nil, err
	}
	toc, err := layer.ReadTOC(ctx, r, layer.Limits{})
	if err := errors.Join(err, r.Close()); err != nil {
		return nil, fmt.Errorf("reading layer %s: %w", l.DiffID, err)
	}
	if toc.DiffID != l.DiffID {
		return nil, fmt.Errorf("layer %s unpacks to %s: %w", l.DiffID, toc.DiffID, store.ErrCorrupt)
	}
	return toc, w.putTOC(toc)
}

// knownTOC returns the table that the store has.
func (w *Worker) knownTOC(diffID digest.Digest) (*layer.TOC, bool) {
	if toc := w.tocs.get(diffID); toc != nil {
		return toc, true
	}
	toc, ok := w.facts().TOC(diffID)
	if ok {
		w.tocs.put(toc)
	}
	return toc, ok
}

// recentTOCs are tables of contents that were read or made: every step of a chain looks through those of all layers below it.
type recentTOCs struct {
	mu      sync.Mutex // guards what follows
	all     map[digest.Digest]*layer.TOC
	entries int
}

// The most entries of one table and of all that are kept in memory: large ones are rare, and read again.
const (
	recentTable   = 2_000
	recentEntries = 100_000
)

func (r *recentTOCs) get(d digest.Digest) *layer.TOC {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all[d]
}

func (r *recentTOCs) put(toc *layer.TOC) {
	n := toc.Len()
	if n > recentTable {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all[toc.DiffID] != nil {
		return
	}
	if r.all == nil || r.entries+n > recentEntries {
		r.all, r.entries = map[digest.Digest]*layer.TOC{}, 0
	}
	r.all[toc.DiffID] = toc
	r.entries += n + 1
}

// openLayer streams a layer's uncompressed tar.
func (w *Worker) openLayer(ctx context.Context, l solve.Layer) (io.ReadCloser, error) {
	desc, err := w.need(ctx, l)
	if err != nil {
		return nil, err
	}
	if desc.Digest == "" {
		return w.o.Store.Open(ctx, ocispec.Descriptor{MediaType: uncompressed, Digest: l.DiffID, Size: l.Size})
	}
	blob, err := w.o.Store.Open(ctx, desc)
	if err != nil {
		return nil, err
	}
	tar, err := layer.Decompress(ctx, blob, layer.Limits{})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("layer %s: %w", desc.Digest, err), blob.Close())
	}
	return closeBoth{tar, blob}, nil
}

// closeBoth closes the decompressor and what it reads from.
type closeBoth struct {
	io.ReadCloser
	below io.Closer
}

func (c closeBoth) Close() error { return errors.Join(c.ReadCloser.Close(), c.below.Close()) }

// randomAccess gives random access to a layer's uncompressed tar, storing it when only its compressed form is there.
func (w *Worker) randomAccess(ctx context.Context, l solve.Layer) (layer.ReaderAtCloser, error) {
	if err := w.Unpack(ctx, l); err != nil {
		return nil, err
	}
	return w.o.Store.OpenAt(l.DiffID)
}

// Unpack makes sure that a layer's uncompressed tar is in the store.
func (w *Worker) Unpack(ctx context.Context, l solve.Layer) error {
	if _, err := w.o.Store.Stat(l.DiffID); err == nil {
		return nil
	}
	r, err := w.openLayer(ctx, l)
	if err != nil {
		return err
	}
	desc, err := w.o.Store.Put(ctx, uncompressed, r)
	if err := errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("unpacking layer %s: %w", l.DiffID, err)
	}
	if desc.Digest != l.DiffID {
		return fmt.Errorf("layer %s unpacks to %s, not %s: %w", l.DiffID, desc.Digest, l.DiffID, store.ErrCorrupt)
	}
	return nil
}

// View opens the merged tree of layers, bottom first. The caller closes it.
func (w *Worker) View(ctx context.Context, layers []solve.Layer) (*layer.View, error) {
	return w.view(ctx, layers, nil)
}

// view is View that gathers where files go.
func (w *Worker) view(ctx context.Context, layers []solve.Layer, p placings) (*layer.View, error) {
	sources := make([]layer.Source, len(layers))
	for i := range layers {
		l := &layers[i] // no copy in each closure: a long chain is looked at for every step
		if f := w.virtual.get(l.DiffID); f != nil {
			sources[i] = p.source(f)
			continue
		}
		toc, err := w.toc(ctx, *l)
		if err != nil {
			return nil, err
		}
		sources[i] = layer.Source{
			TOC:  toc,
			Open: func() (layer.ReaderAtCloser, error) { return w.randomAccess(ctx, *l) },
		}
	}
	return layer.NewView(sources)
}

// change adds to below the layer that declare puts together.
func (w *Worker) change(ctx context.Context, below solve.Result, parents time.Time,
	declare func(*layer.Builder, *layer.View) error,
) (_ solve.Result, err error) {
	view, err := w.View(ctx, below.Layers)
	if err != nil {
		return solve.Result{}, err
	}
	defer func() { err = errors.Join(err, view.Close()) }()
	b := layer.NewBuilder(view, parents)
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := declare(b, view); err != nil {
		return solve.Result{}, err
	}
	l, err := w.commit(ctx, func(out io.Writer) error { return b.WriteTo(ctx, out) })
	if err != nil {
		return solve.Result{}, err
	}
	return below.With(l), nil
}

// digestOf combines what a key is made of.
func digestOf(parts ...digest.Digest) digest.Digest {
	h := digest.Canonical.Digester()
	for _, p := range parts {
		fmt.Fprintln(h.Hash(), p)
	}
	return h.Digest()
}

// OpenLayer streams a layer's uncompressed tar, verified when it is read to its end.
func (w *Worker) OpenLayer(ctx context.Context, l solve.Layer) (io.ReadCloser, error) {
	return w.openLayer(ctx, l)
}

// Rewrite makes a layer whose times are none after limit.
func (w *Worker) Rewrite(ctx context.Context, l solve.Layer, limit time.Time) (_ solve.Layer, err error) {
	r, err := w.openLayer(ctx, l)
	if err != nil {
		return solve.Layer{}, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	out, err := w.commit(notPressing(ctx), func(to io.Writer) error { return layer.Rewrite(ctx, to, r, limit) })
	out.History = l.History
	return out, err
}
