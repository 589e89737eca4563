package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime/debug"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/solve"
	"github.com/manifestctl/manifestctl/pkg/source"
	"github.com/manifestctl/manifestctl/pkg/store"
)

// virtuals are directories of this machine that stand in results as layers without being in the store: what is
// copied of them is read where it is. Their DiffID is the digest of no tar.
type virtuals struct {
	mu    sync.Mutex // guards what follows
	files map[digest.Digest]*source.Files
	sums  map[string]*source.Sums // by absolute directory
	dirs  map[string]*sourceDir   // by context
	gc    sync.Once               // a tree is large
	gcWas int                     // 0: it was left as it was
}

// largeTree is the number of files from which what is known of them is most of the memory: it stays until the end, and the
// collector lets only largeTreeGC percent more come to it.
const (
	largeTree   = 20_000
	largeTreeGC = 25
	defaultGC   = 100
)

// saveMemory makes the collector run more often, unless somebody has said how often it is to run.
func (w *Worker) saveMemory() {
	was := debug.SetGCPercent(largeTreeGC)
	if was != defaultGC {
		debug.SetGCPercent(was)
		return
	}
	w.virtual.mu.Lock()
	defer w.virtual.mu.Unlock()
	w.virtual.gcWas = was
}

func (v *virtuals) get(d digest.Digest) *source.Files {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.files[d]
}

const sumsKind = "filesums"

func sumsKey(dir string) string { return digest.FromString(dir).Encoded() }

// sumsOf returns the digests that are known of a directory's files.
func (w *Worker) sumsOf(dir string) *source.Sums {
	w.virtual.mu.Lock()
	defer w.virtual.mu.Unlock()
	if s := w.virtual.sums[dir]; s != nil {
		return s
	}
	var data []byte
	if r, err := w.o.Store.GetRecord(sumsKind, sumsKey(dir)); err == nil {
		data = r.Data
	}
	s := source.LoadSums(data)
	s.Open = func(d digest.Digest) (layer.ReaderAtCloser, error) { return w.o.Store.OpenAt(d) }
	w.virtual.sums[dir] = s
	return s
}

// closeVirtual remembers digests of files for the next build.
func (w *Worker) closeVirtual() error {
	w.virtual.mu.Lock()
	defer w.virtual.mu.Unlock()
	if w.virtual.gcWas != 0 { // at the end: to save digests takes memory, too
		defer debug.SetGCPercent(w.virtual.gcWas)
	}
	var errs []error
	for dir, s := range w.virtual.sums {
		data, changed, err := s.Save()
		if err == nil && changed {
			err = w.o.Store.PutRecord(sumsKind, sumsKey(dir), store.Record{Data: data})
			if errors.Is(err, store.ErrInvalid) { // more files than a record holds are read again
				err = nil
			}
		}
		errs = append(errs, err)
	}
	for _, d := range w.virtual.dirs {
		errs = append(errs, d.Close())
	}
	for _, f := range w.virtual.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// files opens a directory as it is (graph.Local with Raw).
func (w *Worker) files(ctx context.Context, op graph.Local) (solve.Result, error) {
	root, err := w.contextRoot(op.Context)
	if err != nil {
		return solve.Result{}, err
	}
	dir, err := filepath.Abs(root.Name())
	if err != nil {
		return solve.Result{}, errors.Join(err, root.Close())
	}
	f, err := source.OpenFiles(ctx, root, source.FilesOptions{Include: op.Include, Exclude: op.Exclude, Follow: op.Follow}, w.sumsOf(dir))
	if err != nil {
		return solve.Result{}, errors.Join(fmt.Errorf("build context %q: %w", op.Context, err), root.Close())
	}
	if len(f.TOC.Entries) > largeTree {
		w.virtual.gc.Do(w.saveMemory)
	}
	id := digestOf("virtual", digest.FromString(dir), f.TOC.DiffID)
	w.virtual.mu.Lock()
	defer w.virtual.mu.Unlock()
	if w.virtual.files[id] != nil {
		err = f.Close()
	} else {
		w.virtual.files[id] = f
	}
	return solve.Result{Layers: []solve.Layer{{DiffID: id, Size: f.TOC.Size}}}, err
}

// placings gather where the files of directories go in a layer that is being made.
type placings map[*source.Files]*source.Placing

// source is a directory as a layer of a view.
func (p placings) source(f *source.Files) layer.Source {
	out := f.Source()
	if p != nil {
		if p[f] == nil {
			p[f] = f.Placing()
		}
		out.Placed = p[f].Put
	}
	return out
}

func (p placings) done(diffID digest.Digest) {
	for _, one := range p {
		one.Done(diffID)
	}
}

// hasVirtual reports whether a result has a layer that is a directory of this machine.
func (w *Worker) hasVirtual(r solve.Result) bool {
	for _, l := range r.Layers {
		if w.virtual.get(l.DiffID) != nil {
			return true
		}
	}
	return false
}

// writeVirtual writes a directory of this machine as a tar.
func writeVirtual(ctx context.Context, f *source.Files, out io.Writer) error {
	v, err := layer.NewView([]layer.Source{f.Source()})
	if err != nil {
		return err
	}
	return errors.Join(layer.Flatten(ctx, v, out, ""), v.Close())
}

// Settle makes layers in the store of those of r that are directories of this machine, as results of a build need them.
func (w *Worker) Settle(ctx context.Context, r solve.Result) (solve.Result, error) {
	if !w.hasVirtual(r) {
		return r, nil
	}
	out := solve.Result{Config: r.Config}
	for _, l := range r.Layers {
		if f := w.virtual.get(l.DiffID); f != nil {
			real, err := w.commit(ctx, func(to io.Writer) error { return writeVirtual(ctx, f, to) })
			if err != nil {
				return solve.Result{}, err
			}
			real.History, real.Created = l.History, l.Created
			l = real
		}
		out.Layers = append(out.Layers, l)
	}
	return out, nil
}

// Virtual reports whether a layer is a directory of this machine, which is in no store.
func (w *Worker) Virtual(l solve.Layer) bool { return w.virtual.get(l.DiffID) != nil }
