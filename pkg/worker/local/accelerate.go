package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/manifestctl/manifestctl/pkg/accel"
	"github.com/manifestctl/manifestctl/pkg/emulate"
	"github.com/manifestctl/manifestctl/pkg/event"
	"github.com/manifestctl/manifestctl/pkg/graph"
	"github.com/manifestctl/manifestctl/pkg/layer"
	"github.com/manifestctl/manifestctl/pkg/sandbox"
	"github.com/manifestctl/manifestctl/pkg/solve"
)

// nativeTools are programs of this machine, and how they lie over the images of this build.
type nativeTools struct {
	once  sync.Once
	tools *accel.Tools
	err   error

	mu   sync.Mutex // guards over, and is held while one is made
	over map[digest.Digest]*nativeOverlay
}

// nativeOverlay is an overlay that is unpacked.
type nativeOverlay struct {
	*accel.Overlay
	dir string
}

// accelerates reports whether native programs may stand in for those of a step.
func (w *Worker) accelerates(v *graph.Vertex) bool {
	return len(w.o.Accelerate) > 0 && v.Platform.Arch != emulate.Machine().Arch
}

// Check reports what of the options cannot be used, before anything is done.
func (w *Worker) Check(ctx context.Context) error {
	if len(w.o.Accelerate) == 0 {
		return nil
	}
	_, err := w.tools(ctx)
	return err
}

func (w *Worker) tools(ctx context.Context) (*accel.Tools, error) {
	w.native.once.Do(func() { w.native.tools, w.native.err = accel.Load(ctx, w.o.Accelerate) })
	return w.native.tools, w.native.err
}

// accelerate puts native programs over the rootfs of a step; nil when there are none for it.
func (w *Worker) accelerate(ctx context.Context, v *graph.Vertex, step *sandbox.Step, layers []solve.Layer) (*nativeOverlay, error) {
	if !w.accelerates(v) || w.pool.Whole() || len(layers) == 0 {
		return nil, nil
	}
	tools, err := w.tools(ctx)
	if err != nil {
		return nil, err
	}
	chain := chainIDs(layers)[len(layers)-1]
	w.native.mu.Lock()
	defer w.native.mu.Unlock()
	if w.native.over == nil {
		w.native.over = map[digest.Digest]*nativeOverlay{}
	}
	o, ok := w.native.over[chain]
	if !ok {
		if o, err = w.nativeOver(ctx, v, tools, layers); err != nil {
			return nil, err
		}
		w.native.over[chain] = o
	}
	if o != nil {
		step.Lowers = append([]string{o.dir}, step.Lowers...)
	}
	return o, nil
}

// sayNative says in the step's log what stands in, and why others do not.
func (w *Worker) sayNative(v *graph.Vertex, fit *accel.Overlay) {
	text := fmt.Sprintf("%d native programs stand in for the image's (--accelerate)\n", len(fit.Programs))
	for _, left := range fit.Left {
		text += "not " + left + "\n"
	}
	w.o.Events.Emit(event.Event{Kind: event.Log, ID: v.Digest().String(), Stream: 2, Data: []byte(text)})
}

// nativeOver makes the overlay of an image; nil when nothing fits.
func (w *Worker) nativeOver(ctx context.Context, v *graph.Vertex, tools *accel.Tools, layers []solve.Layer) (_ *nativeOverlay, err error) {
	view, err := w.View(ctx, layers)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, view.Close()) }()
	fit, err := tools.Fit(view)
	if err != nil {
		return nil, err
	}
	if w.sayNative(v, fit); len(fit.Programs) == 0 {
		return nil, nil
	}
	dir, err := w.trees.scratch()
	if err != nil {
		return nil, err
	}
	tree := filepath.Join(dir, "fs")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return nil, fmt.Errorf("making a tree of native programs: %w", err)
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe: %w", err)
	}
	written := make(chan error, 1)
	go func() { written <- errors.Join(fit.WriteTar(pw), pw.Close()) }()
	err = w.pool.Unpack(ctx, tree, pr, layer.Limits{})
	pr.Close() // wakes the writer if Unpack stopped early
	if err := errors.Join(err, <-written); err != nil {
		return nil, fmt.Errorf("unpacking native programs: %w", err)
	}
	return &nativeOverlay{Overlay: fit, dir: tree}, nil
}

// leaked is the name in a layer that is native; "" is none.
func (w *Worker) leaked(ctx context.Context, o *nativeOverlay, l solve.Layer) (string, error) {
	toc, err := w.toc(ctx, l)
	if err != nil {
		return "", err
	}
	return o.Native(toc, func() (layer.ReaderAtCloser, error) { return w.randomAccess(ctx, l) })
}
